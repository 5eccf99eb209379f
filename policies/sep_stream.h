// Streaming SepLLM for one layer: the exact state machine of a bounded cache, batch rows in lock
// step.
//
// The cache of every batch row is, in this order,
//   [initial a + offset][separators, at most s][one contiguous run, the last w entries are "local"]
// and a compaction drops what is no separator from the run, all but its last w entries. Variants:
//   kSepCache   the SepCache class of transformers: a prefill chunk is never compacted; a decode
//   step
//               appends its token, compacts if the length has reached c, then attends to what is
//               left
//   kManager    the paper's cache manager: attends, then compacts if the length is over c
//   kStreamLlm  the manager's StreamingLLM: attends, then keeps the first a and the last w entries
// Errors are found where the references find them, at the compaction, so a machine with impossible
// parameters runs until it would compact; after an error the machine must not be used any more.
//
// Thread-compatible. Cost: O(1) amortised a token and row (plus O(a + offset) a compaction); lists
// are made only by KeptRows(). Source: SepLLM (arXiv 2412.12094), section 3 and figure 4.
#ifndef KVASIR_POLICIES_SEP_STREAM_H_
#define KVASIR_POLICIES_SEP_STREAM_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include <absl/status/status.h>

#include "base/state_codec.h"
#include "policies/retention_policy.h"
#include "policies/separator_set.h"

namespace kvasir {

enum class SepStreamVariant { kSepCache, kManager, kStreamLlm };

// Signed, because impossible values must reach the check that refuses them.
struct SepStreamConfig {
  SepStreamVariant variant = SepStreamVariant::kSepCache;
  int64_t a = 4;              // initial entries
  int64_t s = 64;             // most separators
  int64_t w = 256;            // local window, entries that survive any compaction
  int64_t c = 512;            // capacity
  bool accumulate = true;     // old separators stay; false: only those of the newest past window
  bool use_max = true;        // drop the oldest separators over s; false: s and c grow instead
  bool pad_in_batch = false;  // rows with fewer separators are filled up; false: others are cut
  std::optional<TokenId> pad_id;  // counted in prefill chunks: the left-padding offset
  SeparatorSet separators;
};

class SepStream {
 public:
  // REQUIRES: batch >= 1.
  explicit SepStream(SepStreamConfig config, size_t batch = 1);

  // One forward step over chunk[b] for every batch row b (all of one length): Feed, then Advance.
  // Errors: kInvalidArgument for another shape of the chunk, else those of Advance().
  absl::Status Step(std::span<const std::vector<TokenId>> chunk, bool prefill);

  // Makes the ids of the coming rows of batch row b known, before the steps that process them.
  void Feed(size_t b, std::span<const TokenId> ids);

  // Processes `count` more rows as one step. Only a compaction looks at ids, and only at those of
  // rows that leave the window, so the others may be fed later (not with pad_id set). `offset`
  // replaces the count of padding ids of a prefill step. Errors: kFailedPrecondition where the
  // reference refuses (parameters, empty past window, a decode chunk of several rows below
  // capacity, no prefill step yet) or when an id needed is not known.
  absl::Status Advance(int64_t count, bool prefill, std::optional<int64_t> offset = std::nullopt);

  // Forgets the ids fed for rows >= `row`. REQUIRES: row >= run_first().
  void Unfeed(uint64_t row);

  uint64_t seen() const { return seen_; }                   // rows processed
  uint64_t known() const;                                   // rows fed (batch row 0)
  int64_t kept_length() const;                              // entries of the cache after the step
  int64_t attend_length() const { return attend_length_; }  // keys that the last step's queries saw
  int64_t s() const { return config_.s; }                   // grown where use_max is false
  int64_t c() const { return config_.c; }
  int64_t separator_end() const { return separator_end_; }  // 0: no compaction yet
  uint64_t compactions() const { return compactions_; }     // kStreamLlm makes none

  // The cache is front entries 0 .. front_size()-1, then the rows [run_first(), seen()).
  size_t front_size() const { return rows_[0].front.size(); }
  uint64_t FrontRow(size_t b, size_t index) const { return rows_[b].front[index].row; }
  uint64_t run_first() const { return run_first_; }
  int64_t head() const { return config_.a + offset_.value_or(0); }
  // Front entries [head, head + last_dropped) of before the last compaction are the ones it
  // dropped.
  size_t last_dropped() const { return last_dropped_; }
  // Id of a row of the run. REQUIRES: run_first() <= row < known().
  TokenId IdOf(size_t b, uint64_t row) const { return rows_[b].run[row - run_first_]; }

  // Rows of the cache in cache order. The keys attended by a manager step are those of KeptRows()
  // before it, then the step's own. Cost: O(kept_length()).
  std::vector<uint64_t> KeptRows(size_t b) const;

  // The machine as it stands before its first step, or when a compaction has ended its last one:
  // all that later steps depend on, but not what the last one attended to and dropped. Bytes: 40,
  // 8 for each separator in the cache, 4 for each id of the run. REQUIRES: such a moment, one batch
  // row, no pad_id, not kStreamLlm.
  void Write(StateWriter& writer) const;
  // REQUIRES: a new machine of the same configuration. `rows`: known() is to become. `offset_max`:
  // most initial entries beyond a, for which a + s + w + offset_max < c. Fails the reader for what
  // no machine can be: then this one must not be used.
  void Read(uint64_t rows, int64_t offset_max, StateReader& reader);

 private:
  struct Entry {
    uint64_t row = 0;
    bool pad = false;
  };
  struct BatchRow {
    std::deque<Entry> front;
    std::deque<TokenId> run;  // ids of the rows from run_first_ on, known ones
    int64_t pads = 0;         // padding ids in the cache now
  };

  absl::Status CheckCompaction(int64_t length);
  absl::Status Compact(int64_t length);
  absl::Status EvictStreamLlm(int64_t length);
  bool IsPad(TokenId id) const { return config_.pad_id && *config_.pad_id == id; }
  Entry EntryAt(const BatchRow& row, size_t index) const;
  void DropRun(size_t count);
  // Cache indices of the entries that row `b` adds to its separators.
  std::vector<size_t> NewSeparators(const BatchRow& row, size_t first, size_t last) const;

  SepStreamConfig config_;
  std::vector<BatchRow> rows_;
  uint64_t seen_ = 0;
  uint64_t run_first_ = 0;
  int64_t separator_end_ = 0;
  std::optional<int64_t> offset_;
  int64_t attend_length_ = 0;
  uint64_t compactions_ = 0;
  size_t last_dropped_ = 0;
};

}  // namespace kvasir

#endif  // KVASIR_POLICIES_SEP_STREAM_H_
