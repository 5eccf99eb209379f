// Request traces in Mooncake's format: one JSON object a line,
//
//   {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 2353]}
//
// timestamp in ms, lengths in tokens, hash_ids one number for each block of the prompt: requests
// with the same leading numbers share a prefix. Source: Qin et al., "Mooncake: a KVCache-centric
// architecture for serving LLM chatbots", FAST 2025. The file is hostile until checked.
#ifndef KVASIR_REPLAY_TRACE_H_
#define KVASIR_REPLAY_TRACE_H_

#include <cstdint>
#include <istream>
#include <span>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "eviction/serve.h"
#include "index/chain_key.h"

namespace kvasir::replay {

inline constexpr uint64_t kRequestsMax = uint64_t{1} << 24;
inline constexpr uint64_t kAccessesMax = uint64_t{1} << 28;
inline constexpr size_t kLineBytesMax = size_t{1} << 24;
inline constexpr uint64_t kTimestampMax = uint64_t{1} << 43;  // ms: some 280 years
inline constexpr uint64_t kTokensMax = uint64_t{1} << 31;
inline constexpr uint64_t kHashIdMax = (uint64_t{1} << 53) - 1;

// Thread-safe once read.
class Trace {
 public:
  // Every line is checked; keys are chained by the project's own hash under a fixed secret. Cost:
  // O(bytes). Errors: kInvalidArgument naming line, field and bound.
  static absl::StatusOr<Trace> Read(std::istream& in, uint32_t block_tokens);

  size_t requests() const { return requests_.size(); }
  eviction::Request request(size_t i) const;
  std::span<const ChainKey> accesses() const { return keys_; }
  uint32_t unique_blocks() const { return unique_blocks_; }
  uint32_t block_tokens() const { return block_tokens_; }

 private:
  struct Line {
    uint64_t timestamp = 0;
    uint32_t input_length = 0;
    uint32_t output_length = 0;
    size_t first = 0;  // of its keys
    size_t count = 0;
  };

  uint32_t block_tokens_ = 0;
  uint32_t unique_blocks_ = 0;
  std::vector<Line> requests_;
  std::vector<ChainKey> keys_;  // of all requests, one behind the other
};

}  // namespace kvasir::replay

#endif  // KVASIR_REPLAY_TRACE_H_
