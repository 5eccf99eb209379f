#include "policies/retrieval/infllm_index.h"

#include <cstddef>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/status_macros.h"
#include "kernels/row_convert.h"
#include "policies/selection/score_checks.h"

namespace kvasir {
namespace {

std::vector<const std::byte*> KeysOf(std::span<const kernels::KeyRun> runs, uint64_t count) {
  std::vector<const std::byte*> keys;
  keys.reserve(count);
  for (const kernels::KeyRun& run : runs) {
    for (size_t row = 0; row < run.rows; ++row) keys.push_back(run.k + row * run.stride);
  }
  return keys;
}

}  // namespace

absl::StatusOr<std::vector<float>> BlockRepresentative(const kernels::KeyShape& shape,
                                                       uint32_t heads,
                                                       std::span<const kernels::KeyRun> runs,
                                                       std::span<const float> mass,
                                                       uint32_t repr_topk) {
  KVASIR_ASSIGN_OR_RETURN(const uint64_t rows, CountKeys(shape, runs));
  if (heads == 0 || heads % shape.kv_heads != 0) {
    return InvalidArgument("heads must be a multiple of kv_heads: heads={} kv_heads={}", heads,
                           shape.kv_heads);
  }
  if (mass.size() % heads != 0 || mass.size() / heads != rows) {
    return InvalidArgument("mass must be heads x rows: mass={} heads={} rows={}", mass.size(),
                           heads, rows);
  }
  KVASIR_RETURN_IF_ERROR(CheckBounds("repr_topk", repr_topk, 1, rows));
  KVASIR_RETURN_IF_ERROR(CheckFinite(mass, "mass"));
  const std::vector<const std::byte*> keys = KeysOf(runs, rows);
  const uint32_t group = heads / shape.kv_heads;
  std::vector<float> repr(size_t{heads} * shape.dim);
  for (uint32_t head = 0; head < heads; ++head) {
    const std::span<float> mean = std::span(repr).subspan(size_t{head} * shape.dim, shape.dim);
    const size_t element = size_t{head / group} * shape.dim;
    for (const uint32_t row : kernels::TopK(mass.subspan(head * rows, rows), repr_topk)) {
      for (size_t d = 0; d < shape.dim; ++d) {
        mean[d] += kernels::LoadElement(shape.type, keys[row], element + d);
      }
    }
    for (float& x : mean) x /= static_cast<float>(repr_topk);
  }
  KVASIR_RETURN_IF_ERROR(CheckFinite(repr, "representative"));
  return repr;
}

absl::StatusOr<std::vector<uint32_t>> LookupBlocks(std::span<const float> reprs,
                                                   std::span<const float> query, uint32_t topk) {
  KVASIR_RETURN_IF_ERROR(CheckBounds("width", query.size(), 1, kMaxKeyElements));
  if (reprs.size() % query.size() != 0) {
    return InvalidArgument("representatives must be blocks x width: size={} width={}", reprs.size(),
                           query.size());
  }
  const uint64_t blocks = reprs.size() / query.size();
  KVASIR_RETURN_IF_ERROR(CheckBounds("blocks", blocks, 0, kMaxEntries));
  const kernels::KeyRun run{reinterpret_cast<const std::byte*>(reprs.data()),
                            static_cast<uint32_t>(query.size_bytes()),
                            static_cast<uint32_t>(blocks)};
  return LookupBlocks(std::span(&run, 1), query, topk);
}

absl::StatusOr<std::vector<uint32_t>> LookupBlocks(std::span<const kernels::KeyRun> reprs,
                                                   std::span<const float> query, uint32_t topk) {
  KVASIR_RETURN_IF_ERROR(CheckBounds("width", query.size(), 1, kMaxKeyElements));
  KVASIR_RETURN_IF_ERROR(CheckBounds("topk", topk, 1, std::numeric_limits<uint32_t>::max()));
  KVASIR_RETURN_IF_ERROR(CheckFinite(query, "query"));
  uint64_t blocks = 0;
  for (const kernels::KeyRun& run : reprs) blocks += run.rows;
  KVASIR_RETURN_IF_ERROR(CheckBounds("blocks", blocks, 0, kMaxEntries));
  if (blocks <= topk) {
    std::vector<uint32_t> all(blocks);
    std::iota(all.begin(), all.end(), 0U);
    return all;
  }
  const kernels::KeyShape shape{kernels::RowType::kF32, 1, static_cast<uint32_t>(query.size())};
  std::vector<float> scores(blocks);
  kernels::DotRows(shape, query.data(), reprs, scores.data());
  KVASIR_RETURN_IF_ERROR(CheckFinite(scores, "score of a block"));
  return kernels::TopK(scores, topk);
}

}  // namespace kvasir
