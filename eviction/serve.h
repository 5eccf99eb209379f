// One request at a time, as a replay of a trace serves them: begun, completed, then the next one.
// Thread-compatible as the policy is. Cost: that of Begin() and Complete().
#ifndef KVASIR_EVICTION_SERVE_H_
#define KVASIR_EVICTION_SERVE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "eviction/eviction_policy.h"

namespace kvasir::eviction {

inline constexpr int64_t kDecodeMicrosPerToken = 30000;  // of an answer, where nobody measured it

struct Request {
  std::span<const ChainKey> chain;
  bool last_partial = false;
  uint32_t tokens_in = 0;
  uint32_t tokens_out = 0;
  int64_t now_us = 0;
};

// Errors: those of Begin().
absl::StatusOr<Admission> Serve(EvictionPolicy& policy, const Request& request,
                                std::vector<Eviction>& evicted,
                                int64_t decode_micros_per_token = kDecodeMicrosPerToken);

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_SERVE_H_
