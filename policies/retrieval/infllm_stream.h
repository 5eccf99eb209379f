// The life of a token in InfLLM, for one lane: local window, then remainder, then either one of the
// n_init initial rows or a row of a sealed block.
//
// A row has left the local window when it is not among the last n_local. The first n_init of such
// rows are initial for ever; of the rest, a block is sealed as soon as block_size of them are
// there. All of it depends on the number of rows alone, not on the pieces they came in, so that
// number is the whole state. Source: context_manager.py, append() and its sealing loop.
#ifndef KVASIR_POLICIES_RETRIEVAL_INFLLM_STREAM_H_
#define KVASIR_POLICIES_RETRIEVAL_INFLLM_STREAM_H_

#include <cstdint>
#include <vector>

#include <absl/status/statusor.h>

#include "policies/retrieval/infllm_config.h"

namespace kvasir {

// Rows first <= row < last.
struct RowRange {
  uint64_t first = 0;
  uint64_t last = 0;
  bool operator==(const RowRange&) const = default;
};

struct InfLlmAppended {
  RowRange init;                 // rows that became initial; empty where first == last
  std::vector<RowRange> sealed;  // blocks sealed now, ascending; their numbers go on from blocks()
};

// Copyable value; not thread-safe.
class InfLlmStream {
 public:
  // `rows`: of a stream to resume. Errors: those of CheckInfLlmConfig, and kInvalidArgument for
  // more than 2^48 rows.
  static absl::StatusOr<InfLlmStream> Create(const InfLlmConfig& config, uint64_t rows = 0);

  // The queries of the appended rows have run: what leaves the remainder for good. Append after
  // every execution block (exc_block_size rows or fewer), because the next one may look a block up
  // that this one sealed. O(blocks sealed). Errors: kInvalidArgument beyond 2^48 rows.
  absl::StatusOr<InfLlmAppended> Append(uint64_t rows);

  uint64_t rows() const { return rows_; }
  // Rows [0, init_rows()) are initial, then blocks() blocks, then the remainder up to rows().
  uint64_t init_rows() const;
  uint64_t blocks() const;
  uint64_t remainder_first() const { return init_rows() + blocks() * config_.block_size; }
  RowRange BlockRows(uint64_t block) const;  // block < blocks()
  // First row of the local window of the query at `row`. Rows from remainder_first() to there are
  // attended at one position with the initial rows and the retrieved blocks.
  uint64_t LocalFirst(uint64_t row) const;

 private:
  InfLlmStream(const InfLlmConfig& config, uint64_t rows) : config_(config), rows_(rows) {}

  InfLlmConfig config_;
  uint64_t rows_ = 0;
};

}  // namespace kvasir

#endif  // KVASIR_POLICIES_RETRIEVAL_INFLLM_STREAM_H_
