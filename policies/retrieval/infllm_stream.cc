#include "policies/retrieval/infllm_stream.h"

#include <algorithm>

#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir {
namespace {

constexpr uint64_t kMaxRows = uint64_t{1} << 48U;

}  // namespace

absl::StatusOr<InfLlmStream> InfLlmStream::Create(const InfLlmConfig& config, uint64_t rows) {
  KVASIR_RETURN_IF_ERROR(CheckInfLlmConfig(config));
  if (rows > kMaxRows) {
    return InvalidArgument("rows out of bounds: rows={} max={}", rows, kMaxRows);
  }
  return InfLlmStream(config, rows);
}

uint64_t InfLlmStream::init_rows() const {
  return std::min(config_.n_init, rows_ - std::min(rows_, config_.n_local));
}

uint64_t InfLlmStream::blocks() const {
  const uint64_t held = init_rows() + config_.n_local;  // no block may take these
  return (rows_ - std::min(rows_, held)) / config_.block_size;
}

RowRange InfLlmStream::BlockRows(uint64_t block) const {
  const uint64_t first = config_.n_init + block * config_.block_size;
  return {first, first + config_.block_size};
}

uint64_t InfLlmStream::LocalFirst(uint64_t row) const {
  return row + 1 - std::min(row + 1, config_.n_local);
}

absl::StatusOr<InfLlmAppended> InfLlmStream::Append(uint64_t rows) {
  if (rows > kMaxRows - rows_) {
    return InvalidArgument("rows out of bounds: rows={} appended={} max={}", rows_, rows, kMaxRows);
  }
  const uint64_t init_before = init_rows();
  const uint64_t blocks_before = blocks();
  rows_ += rows;
  InfLlmAppended appended;
  appended.init = {init_before, init_rows()};
  for (uint64_t block = blocks_before; block < blocks(); ++block) {
    appended.sealed.push_back(BlockRows(block));
  }
  return appended;
}

}  // namespace kvasir
