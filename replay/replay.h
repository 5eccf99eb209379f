// A trace through an eviction policy: what would have been hit.
//
// Request by request, one at a time, as eviction/serve.h has it. Thread-compatible.
#ifndef KVASIR_REPLAY_REPLAY_H_
#define KVASIR_REPLAY_REPLAY_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "replay/trace.h"

namespace kvasir::replay {

// Policies of these names exist beside those of eviction_registry.h: the future is known; all fits.
inline constexpr char kInfinite[] = "infinite";

struct Result {
  std::string eviction;
  uint32_t capacity_blocks = 0;
  uint64_t accesses = 0;
  uint64_t block_hits = 0;   // blocks that were there when their turn came
  uint64_t prefix_hits = 0;  // leading blocks that were there when their request came
  uint64_t stored = 0;       // blocks written
  uint64_t evicted = 0;
  double seconds = 0;           // in the policy
  uint64_t metadata_bytes = 0;  // at the end, index included
  uint32_t resident = 0;        // at the end

  double block_hit_ratio() const { return Share(block_hits); }
  double prefix_hit_ratio() const { return Share(prefix_hits); }
  double micros_per_access() const { return seconds * 1e6 / static_cast<double>(accesses); }
  double metadata_per_block() const {
    return resident == 0 ? 0 : static_cast<double>(metadata_bytes) / resident;
  }

 private:
  double Share(uint64_t hits) const {
    return static_cast<double>(hits) / static_cast<double>(accesses);
  }
};

// "1827" or "5%" of `unique_blocks`, rounded down and at least 1. Errors: kInvalidArgument.
absl::StatusOr<uint32_t> ParseCapacity(const std::string& text, uint32_t unique_blocks);

// "a,b:x=1,y=2,c" -> "a", "b:x=1,y=2", "c": a part with '=' belongs to the name before it.
std::vector<std::string> SplitEvictions(const std::string& text);

// `eviction`: a name of eviction_registry.h, belady or infinite. `progress`: called now and then
// with the share that is done; may be null. Errors: kInvalidArgument.
absl::StatusOr<Result> Replay(const Trace& trace, const std::string& eviction,
                              uint32_t capacity_blocks,
                              const std::function<void(double)>& progress);

}  // namespace kvasir::replay

#endif  // KVASIR_REPLAY_REPLAY_H_
