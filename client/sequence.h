// Sequence: one token stream whose K and V rows live in the daemon's memory.
#ifndef KVASIR_CLIENT_SEQUENCE_H_
#define KVASIR_CLIENT_SEQUENCE_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "client/view.h"
#include "device/device.h"

namespace kvasir {

class SequenceState;

// A place in a stream of the engine's, as of a timeline semaphore: it has come once `word`, which
// only grows, has reached `value` (word - value, as a signed number, is not negative). The stream
// writes the word behind its kernels: cuStreamWriteValue64(), DeviceStream::WriteWord(). Word and
// stream are the engine's own; no other process looks at them. The word lives until the sequence is
// closed, or a call that waits for it has returned OK.
struct TimelinePoint {
  const device::DeviceWord* word = nullptr;
  uint64_t value = 0;
};

// A saved sequence. Whoever has the id and is of the tenant may open it.
struct Snapshot {
  std::string id;  // 16 bytes
  uint64_t rows = 0;
  uint64_t held_bytes = 0;  // kept groups may be shared with sequences
};

// What an engine knows of the request behind a sequence. It decides which of a tenant's sequences
// give their memory up first when that is short: the lowest priority, then those with most rows to
// go; old requests come last (docs/hints.md).
struct RequestHints {
  int32_t priority = 0;  // -100 to 100; larger: later
  // At most one of them: rows of the response in all, at most 2^32, or where it stands among the
  // tenant's (larger is longer, on any scale).
  std::optional<uint64_t> predicted_rows = {};
  std::optional<uint32_t> predicted_rank = {};
  std::chrono::milliseconds age{0};  // since the request came in
};

// Move-only; closes itself. Not thread-safe: one thread at a time, any thread.
class Sequence {
 public:
  Sequence();
  Sequence(Sequence&&) noexcept;
  Sequence& operator=(Sequence&&) noexcept;
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;
  ~Sequence();

  // The next 1 to `want_rows` rows and what their queries may see. Makes no call while the rows are
  // granted and the table is valid; else it asks the daemon and waits, up to the deadline. Fewer
  // rows than wanted come back at the border of a table or of the tenant's limit. Errors:
  // kResourceExhausted (with the figures), kUnavailable, kDeadlineExceeded, kInvalidArgument.
  absl::StatusOr<StepView> Begin(uint32_t want_rows);

  // The first ids.size() rows of the last Begin() are written in every layer and have these ids.
  // Makes a call at block borders only.
  // Errors: kInvalidArgument (more ids than rows, or an id beyond the vocabulary: nothing is
  // committed), kUnavailable (the session ended meanwhile: the step's results are void).
  absl::Status Commit(std::span<const uint32_t> ids);

  // Commit() before the rows are written: they are, and nothing reads any more what the step's view
  // showed, once `done` has come. The next Begin() may follow at once. The daemon is told what has
  // come when the sequence is committed next, or asks for something. Commit(), Save(),
  // PublishPrefix(), Truncate(), Close(), MeasureFootprint() and a Begin() that needs the next
  // table, or that is short of memory, wait for the points of this sequence, up to the session's
  // deadline (kDeadlineExceeded; Close() closes all the same), and then make their call. A step
  // that was begun and is not committed has to be through before the next call.
  // Errors: as Commit(); kInvalidArgument (word), kFailedPrecondition where the policy is told of
  // attention, which has to be known at the commit.
  absl::Status CommitAsync(std::span<const uint32_t> ids, const TimelinePoint& done);

  // A step of a batch. Begin(want_rows) of each sequence; `begun(i, view)` is called once for each,
  // in no order, in this thread. What the daemon has to be asked for is asked in one call for the
  // sequences of a session (one for 1,024 of them). Errors: as Begin(), each sequence its own.
  // Cost: where nothing has to be asked for, that of as many Begin().
  static void BeginMany(
      std::span<Sequence* const> sequences, uint32_t want_rows,
      absl::FunctionRef<void(size_t index, const absl::StatusOr<StepView>& view)> begun);
  // Commit() of one row of each, ids[i] of sequences[i], as BeginMany(). REQUIRES: as many ids.
  static void CommitMany(
      std::span<Sequence* const> sequences, std::span<const uint32_t> ids,
      absl::FunctionRef<void(size_t index, const absl::Status& status)> committed);
  // CommitAsync() of one row of each, all of which one stream writes.
  static void CommitManyAsync(
      std::span<Sequence* const> sequences, std::span<const uint32_t> ids,
      const TimelinePoint& done,
      absl::FunctionRef<void(size_t index, const absl::Status& status)> committed);

  // Selection policies (gemfilter): the layer whose keys the daemon scores.
  std::optional<uint32_t> filter_layer() const;
  // Chooses among the committed rows by their keys in the filter layer. `query`: [kv_head][dim],
  // the last row's query, rotated like its key, summed over the query heads of each group. Then the
  // sequence is empty again: run the tokens at the returned rows (ascending) as a new prompt.
  // Layers above the filter layer need not have been written, nor values in it.
  // Errors: kFailedPrecondition (no selection policy, no row, or called before),
  // kInvalidArgument (size of query, or a score that is not finite).
  absl::StatusOr<std::vector<uint32_t>> SelectRows(std::span<const float> query);

  // Retrieval policies (infllm): the blocks of the layer that the step's queries are to see beside
  // what its view shows. Called for every layer of every step, between Begin() and Commit(), by one
  // thread at a time. `query`: [query_head][k_head_dim], the mean over the step's queries, each
  // rotated at LayerView::far_position. `mass`: attention that the blocks of the layer's last call
  // drew in the last step, summed over query heads, queries and rows, in their order; empty where
  // it is not known. Valid until the layer's next call.
  // Errors: kFailedPrecondition (no retrieval policy, no step), kInvalidArgument (sizes, or what is
  // not finite), kResourceExhausted, kUnavailable, kDeadlineExceeded.
  bool retrieves() const;
  absl::StatusOr<std::span<const KeptRunView>> Retrieve(uint32_t layer,
                                                        std::span<const float> query,
                                                        std::span<const float> mass);

  // Saves the committed rows as a snapshot of the tenant, from which sequences are opened
  // (OpenOptions::snapshot), in this or another session, also after this sequence is gone.
  // Errors: kFailedPrecondition with the reason where such a sequence cannot be saved,
  // kResourceExhausted.
  absl::StatusOr<Snapshot> Save();

  // Offers the committed rows to all later sequences of the tenant that are opened with the same
  // tokens. Rows that all stay as written are sealed by it, as by Save(): they are shared in place,
  // and cannot be truncated any more. Errors: kFailedPrecondition (opened without
  // OpenOptions::prefix, under 16 rows, or as Save()), kResourceExhausted.
  struct Published {
    uint64_t rows = 0;
    uint64_t held_bytes = 0;  // of all that it names, shared or not
  };
  absl::StatusOr<Published> PublishPrefix();

  // Forgets the rows from `rows` on. Errors: kFailedPrecondition naming the rollback floor.
  absl::Status Truncate(uint64_t rows);

  // From now on; an age of 0: as it was. Errors: kInvalidArgument naming field and bound.
  absl::Status SetHints(const RequestHints& hints);
  // The tenant is short of memory and this sequence should be the one to be saved and closed, if
  // that can be. Cost: a load; meant to be looked at every step.
  bool suspend_wanted() const;

  // Gives everything back. Errors: kUnavailable; the sequence is closed all the same.
  absl::Status Close();

  uint64_t rows() const;                 // committed
  uint64_t id() const;                   // as kvasirctl shows it
  const std::string& retention() const;  // with every default
  // Form of which the daemon has made the rows that it goes on from; "": an engine has computed
  // them.
  const std::string& condensed_from() const;
  uint32_t slots_per_block() const;

  // What the newest table and the directory name, after a call that brings both up to date.
  struct Footprint {
    uint64_t held_bytes = 0;  // distinct groups, as counted from this side
    uint64_t kept_rows = 0;   // rows that the next query sees, in the layer that sees most
    uint64_t version = 0;
  };
  absl::StatusOr<Footprint> MeasureFootprint();

 private:
  friend class Session;
  explicit Sequence(std::unique_ptr<SequenceState> state);
  // Those of a batch for which something has changed since their last step, by index.
  static void BeginOthers(
      std::span<Sequence* const> sequences, std::span<const size_t> others, uint32_t want_rows,
      absl::FunctionRef<void(size_t index, const absl::StatusOr<StepView>& view)> begun);
  static void CommitOthers(
      std::span<Sequence* const> sequences, std::span<const size_t> others,
      std::span<const uint32_t> ids, const TimelinePoint* done,
      absl::FunctionRef<void(size_t index, const absl::Status& status)> committed);
  std::unique_ptr<SequenceState> state_;
};

}  // namespace kvasir

#endif  // KVASIR_CLIENT_SEQUENCE_H_
