// Selector: from scores to the rows that stay, for one layer. The pure half of a score-based
// policy.
//
// Rules that all selectors share: a larger score first, the lower entry on a tie; entries come back
// ascending; a score that is not finite is an error; sums are in float or better.
#ifndef KVASIR_POLICIES_SELECTION_SELECTOR_H_
#define KVASIR_POLICIES_SELECTION_SELECTOR_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

namespace kvasir {

using TokenId = uint32_t;

// What is scored, and by whom.
enum class ScoreSource {
  kNone,           // nothing: positions and ids decide
  kAttentionMass,  // softmax probability of a key, summed over queries; the engine reports it
  kWindowQueries,  // the same for the prompt's last queries, whose rows the engine stores
  kKeyNorm,        // -||k||
  kKeyDifference,  // -cos(k, mean of the normalised keys)
  // Retrieval: softmax probability by query head, of rows inside the window only, until they are
  // sealed. No decision waits for it; representatives of blocks are made of it.
  kLocalMass,
};

// The visible rows of one layer and their scores. An entry is a visible row: kept ones in cache
// order first, then the recent ones.
struct ScoredRows {
  uint32_t kv_heads = 1;
  uint32_t heads = 1;    // rows of `scores`: query heads with kWindowQueries, else kv heads
  uint64_t entries = 0;  // of every head
  std::span<const float> scores;  // [heads][entries]; kWindowQueries: 0 for the window's own rows
  // Row numbers and token ids of the entries: [sets][entries], where sets is kv_heads, or 1 where
  // the heads share their rows.
  uint32_t sets = 1;
  std::span<const uint64_t> rows;
  std::span<const TokenId> ids;
};

// Ascending indices of the entries that stay.
using KeepSet = std::vector<uint32_t>;

// Immutable, thread-safe.
class Selector {
 public:
  virtual ~Selector() = default;

  // One set for each kv head, or a single one where the heads share it; all of one size.
  // Errors: kInvalidArgument for a score that is not finite or spans of the wrong size.
  // Cost: O(heads * entries) on average.
  virtual absl::StatusOr<std::vector<KeepSet>> Select(const ScoredRows& rows) const = 0;

  // The selector with all its settings: those of equal text choose alike.
  virtual std::string Description() const = 0;
};

}  // namespace kvasir

#endif  // KVASIR_POLICIES_SELECTION_SELECTOR_H_
