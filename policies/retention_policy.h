// RetentionPolicy: decides which rows of one lane stay, and what each query may see.
//
// A lane is the set of layers of a sequence that share one plan. A policy is a pure state machine
// over token ids: no I/O, no locks, no clock. Rows are indices into the token stream, from 0, for
// ever.
//
// The state of a lane, as its engine sees it, is a *table*:
//   kept      rows in cache order, each < recent_first, all visible to every query of the table
//   recent    the rows from recent_first on, contiguous; the query of row i sees those with
//             max(recent_first, i + 1 - window) <= row <= i  (window 0: from recent_first on)
//   sticky    rows >= recent_first that stay visible below the window (not yet moved to kept)
// valid for the queries of rows [from_row, until_row). A RetentionPlan is the edit that turns one
// table into the next one. So what a query sees is exact at every row, whenever the edit is carried
// out, and an engine needs no policy code.
#ifndef KVASIR_POLICIES_RETENTION_POLICY_H_
#define KVASIR_POLICIES_RETENTION_POLICY_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "policies/selection/selector.h"

namespace kvasir {

class StateReader;
class StateWriter;

inline constexpr uint64_t kNoRow = std::numeric_limits<uint64_t>::max();

// One row that moves from recent to kept. `rotated_at` is the position at which its key is to be
// rotated (RoPE) in the copy: equal to `row` where original positions are kept, another index for
// in_cache.
struct MovedRow {
  uint64_t row = 0;
  uint64_t rotated_at = 0;
  friend bool operator==(const MovedRow&, const MovedRow&) = default;
};

// The next `count` kept rows, in cache order, share one query position:
//   position of the query of row i for these keys = min(i - query_offset, query_max).
// Original positions: offset 0, max kNoRow. The recent rows always take position i.
struct KeptSpan {
  uint64_t count = 0;
  int64_t query_offset = 0;
  uint64_t query_max = kNoRow;
  friend bool operator==(const KeptSpan&, const KeptSpan&) = default;
};

struct RetentionPlan {
  uint64_t from_row = 0;         // first query that uses the new table
  uint64_t until_row = kNoRow;   // first query that must not use it any more
  std::vector<uint32_t> drop;    // ascending indices into the previous kept list
  std::vector<MovedRow> append;  // added at the end of the kept list, in this order
  std::vector<KeptSpan> spans;   // partition of the new kept list; the counts add up to its size
  uint64_t recent_first = 0;     // never decreases
  uint64_t window = 0;           // rows, the query's own included; 0: all
  std::vector<uint64_t> sticky;  // ascending
  // Score-based policies: the whole new kept list, instead of drop and append, one set for each
  // column of the lane (Needs()). Indices into the visible rows of the table before: its kept rows
  // in cache order, then the recent ones from its recent_first on. All sets have one size; none
  // names a row >= recent_first. Positions are the original ones.
  std::vector<KeepSet> keep;
  // Retrieval: rows [seal_first, seal_last) leave the table and become the next sealed block, which
  // queries see only where a lookup finds it. Empty where equal.
  uint64_t seal_first = 0;
  uint64_t seal_last = 0;
  // Encoded lanes: rows [record_first, record_last) leave recent and become the next record, the
  // one behind the last; every query sees its rows as far as the window, from records_from on,
  // reaches. Empty where equal. Records wholly below records_from are given back. recent_first is
  // then the first row behind the last record.
  uint64_t record_first = 0;
  uint64_t record_last = 0;
  uint64_t records_from = 0;
  // Retrieval; 0: none. Recent rows below the window are visible too, at this position of the query
  // and position 0 of the key, as kept rows and retrieved blocks are. The same in all plans.
  uint64_t far_position = 0;
};

// A lane of a score-based policy has columns: one for each kv head of each of its layers (layers
// ascending, heads inside), or one for each layer where the heads share their keep set. A slot of a
// kept block then holds another row in each column.
struct ScoreNeeds {
  ScoreSource source = ScoreSource::kNone;
  // kAttentionMass: factor of what was reported before, for each token that follows; 0 leaves the
  // mass of the last query alone.
  double decay = 1.0;
  uint32_t window_size = 0;          // kWindowQueries: queries of the last rows of the prompt
  bool shared_across_heads = false;  // one keep set for all kv heads of a layer
  uint64_t kept_rows_max = 0;        // no table keeps more rows; kAttentionMass: room for reports
};

// Which rows of a lane may be encoded, once and never again: as records, a block at a time, or each
// by itself.
enum class EncodableRows {
  kNone,
  kWindow,    // as records, those of the window: all rows leave through its end, but the first ones
  kKept,      // as records, kept rows: they are chosen once, and stay or are dropped
  kOneByOne,  // by themselves, kept rows: decided about again and again, head by head
};

struct Encodable {
  EncodableRows rows = EncodableRows::kNone;
  // kWindow: rows below it stay for ever; kNoRow: all do.
  uint64_t staying = 0;
  bool KeepsAll() const { return rows == EncodableRows::kWindow && staying == kNoRow; }
};

// What the owner of the blocks would like; decides when optional edits are worth making.
struct PlanHorizon {
  uint32_t slots_per_block = 64;  // recent is freed in whole blocks of this many rows
  uint64_t lead_rows = 128;  // a table should stay valid for at least this many rows past rows()
};

class RetentionPolicy {
 public:
  virtual ~RetentionPolicy() = default;

  // Number of rows appended (and not truncated) so far.
  virtual uint64_t rows() const = 0;

  // The rows [rows(), rows() + ids.size()) have these ids. Cost: O(ids.size()).
  virtual void Append(std::span<const TokenId> ids) = 0;

  // The edit after the last one returned, or nothing if none is due yet. The first call returns the
  // initial table (from_row 0, nothing kept). Call again until it returns nothing.
  // ENSURES: rows in `append` are < rows(); from_row == the previous until_row where the policy
  // cuts at a fixed row (streaming forms; it may lie ahead of rows(), several plans of one lane
  // too), else from_row <= rows(); from_row never decreases and is never above the previous
  // until_row (equal from_rows: the later plan replaces the earlier one); whenever rows() has
  // reached until_row of the last plan, another plan is due.
  virtual std::optional<RetentionPlan> NextPlan(const PlanHorizon& horizon) = 0;

  // The lowest row to which Truncate() is exact now: no row that a returned plan has moved or
  // dropped may change, and no query may need a table that a later one in force (from_row <=
  // rows()) replaced.
  virtual uint64_t RollbackFloor() const = 0;

  // Constant.
  virtual Encodable encodable() const { return {}; }
  // Constant: every row stays visible to every later query.
  virtual bool KeepsAll() const { return encodable().KeepsAll(); }

  // Kept rows from `n_sink` on will lie in records of `record_rows` rows, in cache order: a row
  // that is kept belongs to the record that it fills. Tables then end at the row from which queries
  // see a record, a function of the ids alone. REQUIRES: encodable().rows is kKept, no row is
  // appended, no plan was returned, record_rows > 0. Nothing to do for policies whose tables all
  // end where rows move.
  virtual void EncodeKept(uint32_t /*record_rows*/, uint64_t /*n_sink*/) {}

  // ---- score-based policies only; constant for the others.
  virtual ScoreNeeds Needs() const { return {}; }

  // How to decide, when rows() has reached the row whose query needs a decision by scores; null
  // while none is due. Until Decide() is called NextPlan() returns nothing. The selector is
  // immutable: it may be asked on another thread, and outlives the policy if need be.
  virtual std::shared_ptr<const Selector> Waiting() const { return nullptr; }
  // First row that the decision is not about: the scores are of visible rows below it.
  virtual uint64_t DecisionRow() const { return 0; }
  // What the selector chose, for all columns, among the visible rows below DecisionRow().
  // REQUIRES: Waiting() is not null. NextPlan() then returns the plan.
  virtual void Decide(std::vector<KeepSet> /*keep*/) {}

  // The table of the last plan returned: its rows, spans, window, recent_first and records_from,
  // without what the plan moved (drop, append, sticky, keep, seals, record); nothing before the
  // first one. What the owner of a restored policy compares its own table with.
  virtual std::optional<RetentionPlan> LastTable() const = 0;

  // ---- the state as bytes, to outlive the process.
  // A policy newly made by the same spec, in the same context, and given these bytes answers every
  // later call as this one does. Not part of it: selectors, which are settings, and what the
  // class does not see of a spec (unrotated keys, codecs), so compare the canonical spec too.
  // Size: about 100 bytes, and in bytes
  //   window with rules, static forms  8 a row that stays and is recent yet: O(window + block)
  //   streaming forms                  8 a separator in the cache, 4 an id that is not compacted
  //                                    yet: O(cache_size), of SepCache's prompt all of it
  //   records of a window              those of the policy within, again 100
  // and 8 for each plan that lies ahead of rows(). Errors: kUnimplemented where what it decides by
  // is not its own (attention mass and queries that an engine reported, sealed blocks),
  // kFailedPrecondition between Decide() and NextPlan(), kResourceExhausted above kPolicyState's
  // bound. Cost: O(size).
  absl::StatusOr<std::string> SaveState() const;

  // Goes on from what SaveState() gave at `rows` rows; what the policy was before is forgotten.
  // The bytes may be a stranger's: all fields are checked, so that what is accepted keeps every
  // ENSURES above, and takes no more memory than `bytes` and `rows` rows call for. Errors: the
  // policy is unchanged; kDataLoss for what is cut, damaged or contradicts itself,
  // kInvalidArgument for another version, policy, setting or number of rows, kUnimplemented as
  // SaveState(). Cost: O(bytes).
  absl::Status RestoreState(std::string_view bytes, uint64_t rows);

  // The same without envelope and number of rows, for policies that wrap another. ReadState()
  // reads to the reader's end before it changes anything.
  virtual absl::Status WriteState(StateWriter& writer) const;
  virtual absl::Status ReadState(StateReader& reader, uint64_t rows);

  // A deep copy, in the same state: the snapshot from which a lane goes on. A selector is shared,
  // as it cannot change. Cost: O(state).
  virtual std::unique_ptr<RetentionPolicy> Clone() const = 0;

  // Forgets the rows from `rows` on; plans already returned stand. REQUIRES: NextPlan is called
  // before the next query is computed: the sticky rows of the last table may name truncated rows,
  // and its until_row may be too late; if so that call returns the table that replaces it.
  // Errors: kFailedPrecondition below RollbackFloor() (names the floor), kOutOfRange above rows().
  virtual absl::Status Truncate(uint64_t rows) = 0;
};

}  // namespace kvasir

#endif  // KVASIR_POLICIES_RETENTION_POLICY_H_
