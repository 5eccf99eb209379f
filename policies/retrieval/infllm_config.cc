#include "policies/retrieval/infllm_config.h"

#include "base/error.h"
#include "base/status_macros.h"
#include "policies/selection/score_checks.h"

namespace kvasir {
namespace {

constexpr uint64_t kMaxInit = uint64_t{1} << 20U;
constexpr uint64_t kMaxLocal = uint64_t{1} << 24U;
constexpr uint64_t kMaxBlockSize = 65536;
constexpr uint64_t kMaxCachedBlock = 65536;

}  // namespace

absl::Status CheckInfLlmConfig(const InfLlmConfig& config) {
  KVASIR_RETURN_IF_ERROR(CheckBounds("n_init", config.n_init, 0, kMaxInit));
  KVASIR_RETURN_IF_ERROR(CheckBounds("n_local", config.n_local, 1, kMaxLocal));
  KVASIR_RETURN_IF_ERROR(CheckBounds("block_size", config.block_size, 1, kMaxBlockSize));
  KVASIR_RETURN_IF_ERROR(
      CheckBounds("max_cached_block", config.max_cached_block, 1, kMaxCachedBlock));
  KVASIR_RETURN_IF_ERROR(CheckBounds("topk", config.topk, 1, config.max_cached_block));
  KVASIR_RETURN_IF_ERROR(CheckBounds("repr_topk", config.repr_topk, 1, config.block_size));
  KVASIR_RETURN_IF_ERROR(CheckBounds("exc_block_size", config.exc_block_size, 1, config.n_local));
  if (!(config.score_decay >= 0.0 && config.score_decay <= 1.0)) {
    return InvalidArgument("score_decay out of bounds: score_decay={} min=0 max=1",
                           config.score_decay);
  }
  return absl::OkStatus();
}

}  // namespace kvasir
