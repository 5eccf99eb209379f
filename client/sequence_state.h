// The inside of a Sequence: reads boards and tables in place, keeps the views. Private to client/.
#ifndef KVASIR_CLIENT_SEQUENCE_STATE_H_
#define KVASIR_CLIENT_SEQUENCE_STATE_H_

#include <atomic>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/sequence.h"
#include "client/session_state.h"
#include "proto/shm/command_payload.h"
#include "proto/shm/report_geometry.h"
#include "ring/commands.h"

namespace kvasir {

void Fill(const RequestHints& hints, v1::SequenceHints* out);

// How long what is done together waits for streams, all in all: from the first wait on.
struct StreamPatience {
  std::optional<Instant> until = {};
};

class SequenceState {
 public:
  // Errors: kDataLoss where the daemon's answer does not fit the model; those of ExtentMap::At().
  static absl::StatusOr<std::unique_ptr<SequenceState>> Create(
      std::shared_ptr<SessionState> session, ClientModel model,
      const v1::OpenSequenceResponse& opened);

  absl::StatusOr<StepView> Begin(uint32_t want_rows);
  absl::Status Commit(std::span<const uint32_t> ids);
  absl::Status CommitAsync(std::span<const uint32_t> ids, const TimelinePoint& done);

  // ---- parts of them, so that sequences of one session ask the daemon together
  SessionState& session() const { return *session_; }
  // Begin() where nothing has changed since the last one and all rows are there: View() is the
  // step's. False: nothing was done. Cost: some loads.
  bool StepAtOnce(uint32_t want_rows) {
    // acquire: pairs with the release in core::Sequence::Publish(). The desk says what this side
    // has adopted.
    const bool there = rows_ + want_rows <= at_once_end_ && want_rows > 0 &&
                       board_.published.load(std::memory_order_acquire) ==
                           desk_.adopted.load(std::memory_order_relaxed) &&
                       board_.uid.load(std::memory_order_acquire) == uid_;
    if (there) begun_ = want_rows;
    return there;
  }
  // CommitUnasked() of one row of such a step. False: nothing was done, or the row does not count.
  bool CommitAtOnce(uint32_t id) {
    if (begun_ == 0 || next_token_ == nullptr || rows_left_ == 0 || id >= vocabulary_size_) {
      return false;
    }
    std::memcpy(next_token_, &id, sizeof(id));
    // acquire: as in SessionState::CheckOpen() and CheckAlive(), behind the row's last store
    std::atomic_thread_fence(std::memory_order_acquire);
    if (session_state_.load(std::memory_order_acquire) !=
            static_cast<uint32_t>(shm::SessionState::kOpen) ||
        board_.uid.load(std::memory_order_acquire) != uid_) {
      return false;
    }
    ++rows_;
    --rows_left_;
    begun_ = 0;
    next_token_ += sizeof(id);
    desk_.rows.store(rows_, std::memory_order_release);  // the rest of it is as it was
    return true;
  }
  // Ahead of StepAtOnce() or CommitAtOnce() in a batch: the sequence's own line; then, once that is
  // there, those that it names.
  void PrefetchOwn() const { __builtin_prefetch(&at_once_end_); }
  void PrefetchForStep() const {
    __builtin_prefetch(&layers_);
    __builtin_prefetch(&board_.published);
    __builtin_prefetch(&desk_);
  }
  void PrefetchForCommit() const {
    __builtin_prefetch(&board_.published);
    __builtin_prefetch(&desk_, /*rw=*/1);
    __builtin_prefetch(next_token_, /*rw=*/1);
  }
  StepView View() const { return {rows_, begun_, layers_, mass_decay_}; }
  // Begin(), but nothing where the daemon has to be asked; NeedOfStep() says for what.
  std::optional<absl::StatusOr<StepView>> BeginUnasked(uint32_t want_rows,
                                                       StreamPatience& patience);
  shm::SyncNeedRecord NeedOfStep(uint32_t want_rows) const;
  // Commit() without its call: sets `at_border` where a block border was crossed and the call is to
  // follow.
  absl::Status CommitUnasked(std::span<const uint32_t> ids, StreamPatience& patience,
                             bool* at_border);
  // Likewise; the border is one that the desk has crossed.
  absl::Status CommitAsyncUnasked(std::span<const uint32_t> ids, const TimelinePoint& done,
                                  bool* at_border);
  shm::SyncNeedRecord NeedOfCommit() const { return {slot_, uid_, 0, 0, 0, 0}; }
  void TakeAnswer(const shm::SyncResultRecord& answer) {
    unseen_bytes_ = answer.unseen_bytes;
    border_due_ = false;
  }
  // The call at a block border for this sequence alone.
  absl::Status SyncAfterCommit();
  // `failed`, or what has ended the sequence where that is why.
  absl::Status ErrorOf(const absl::Status& failed) const;

  absl::Status Truncate(uint64_t rows);
  absl::StatusOr<std::vector<uint32_t>> SelectRows(std::span<const float> query);
  absl::StatusOr<std::span<const KeptRunView>> Retrieve(uint32_t layer,
                                                        std::span<const float> query,
                                                        std::span<const float> mass);
  absl::StatusOr<Snapshot> Save();
  absl::StatusOr<Sequence::Published> PublishPrefix();
  absl::Status SetHints(const RequestHints& hints);
  bool suspend_wanted() const {
    return board_.suspend_wanted.load(std::memory_order_relaxed) != 0 &&
           board_.uid.load(std::memory_order_relaxed) == uid_;
  }
  absl::Status Close();
  absl::StatusOr<Sequence::Footprint> MeasureFootprint();

  uint64_t rows() const { return rows_; }
  uint64_t id() const { return id_; }
  const std::string& retention() const { return retention_; }
  const std::string& condensed_from() const { return condensed_from_; }
  std::optional<uint32_t> filter_layer() const { return filter_layer_; }
  bool retrieves() const { return far_position_ != 0; }
  uint32_t slots_per_block() const { return model_.slots_per_block; }

 private:
  // One lane of the table in use.
  struct LaneViews {
    std::vector<uint32_t> layers;
    shm::GroupGeometry recent_block, block, small;
    shm::GroupGeometry record_block;           // slots 0: no records
    std::vector<RecordFormat> record_formats;  // [layer of the lane]; empty: no records
    uint64_t records_from = 0;
    std::vector<std::vector<RecordView>> records;  // [layer of the lane]
    std::vector<uint32_t> first_column;  // [layer of the lane]: position set of its first kv head
    bool heads_keep_own = false;
    shm::ReportGeometry report_geometry;
    std::byte* report = nullptr;
    double mass_decay = 1.0;
    uint64_t first_query_row = 0;
    std::vector<uint32_t> first_mass_set;              // [layer of the lane]
    std::vector<float> kept_mass, recent_mass;         // of the step: [mass set][row]
    uint64_t recent_mass_rows = 0;                     // from recent_base on
    std::vector<std::vector<KeptRunView>> kept;        // [layer of the lane]
    std::vector<std::vector<RecentBlockView>> recent;  // [layer of the lane]
    std::vector<std::byte*> trailers;                  // of the blocks, from first_block on
    uint64_t first_block = 0;
    uint64_t kept_rows = 0, window = 0, recent_first = 0;
    std::vector<uint64_t> sticky;
  };

  SequenceState(std::shared_ptr<SessionState> session, ClientModel model,
                const v1::OpenSequenceResponse& opened);
  absl::Status OpenLane(LaneViews& lane, const v1::LaneReport& opened);
  void ClearKeptMass(LaneViews& lane);
  void PrepareReports();
  void AddStepMass(LaneViews& lane, uint64_t rows);
  // After a call that gave the sequence a new uid: reads granted rows and tables anew.
  absl::Status StartOver(uint64_t rows, uint32_t uid);
  // The first rows are there already, as after a call that leaves them.
  absl::Status BeginAt(uint64_t rows);
  // Copies the descriptor of the published version if it is new; false if there is nothing newer.
  bool Refresh();
  absl::Status LoadTable();
  absl::Status LoadRuns(LaneViews& lane, const shm::LaneSpan& span);
  static void AddKept(LaneViews& lane, const shm::RunEntry& run, const shm::GroupGeometry& geometry,
                      const GroupPlace& place);
  static void AddRecord(LaneViews& lane, const shm::RunEntry& run, const GroupPlace& place);
  absl::Status OpenRecords(LaneViews& lane, const v1::LaneRecords& opened);
  // Makes the lane's `bytes` of rows those of kept groups.
  absl::Status OpenValueCodes(const LaneViews& lane, const v1::LaneValueCodes& opened,
                              std::vector<shm::LayerRowBytes>& bytes) const;
  // The geometry of a run's group. Errors: kDataLoss for a run that does not fit its group.
  absl::StatusOr<const shm::GroupGeometry*> GeometryOf(const LaneViews& lane,
                                                       const shm::RunEntry& run) const;
  absl::Status ExtendRecent();
  void ShiftRecent(LaneViews& lane, uint64_t first_block);
  void MakeLayerViews();
  absl::Status StartStep(uint32_t* want_rows);
  // Adopts a newer table; true where the rows are granted and the table is valid for them.
  absl::StatusOr<bool> CanStep(uint32_t want_rows, StreamPatience& patience);
  // A table is published that is newer than the one in use, and due.
  bool HasNewTable() const;
  absl::StatusOr<StepView> MakeStep(uint32_t want_rows);
  bool IsToldOfAttention() const;  // its policy, by what the engine reports
  // The first ids.size() rows of the step have these ids. Errors: Commit()'s; nothing has changed.
  absl::Status WriteIds(std::span<const uint32_t> ids);
  // What is committed, and the table in use. REQUIRES: no rows are under way.
  void WriteDesk();
  void WriteDesk(uint64_t rows, uint64_t adopted);
  // Writes to the desk what has come of the rows under way.
  void TellWhatHasCome();
  // Waits for all of them, and writes them to the desk. Errors: kDeadlineExceeded.
  absl::Status AwaitStream(StreamPatience& patience);
  absl::Status AwaitStream() {
    StreamPatience patience;
    return AwaitStream(patience);
  }
  // What StepAtOnce() and CommitAtOnce() go by, from what is there now; and that they may not.
  void AllowAtOnce();
  void ForbidAtOnce() {
    at_once_end_ = 0;
    next_token_ = nullptr;
  }
  absl::Status Sync(uint64_t granted_rows, std::optional<uint64_t> table_row);

  // ---- calls, through the ring or by gRPC (sequence_calls.cc). Errors: the daemon's.
  ring::SequenceRef ref() const { return {slot_, uid_}; }
  absl::StatusOr<uint64_t> CallSync(uint64_t granted_rows, std::optional<uint64_t> table_row);
  // The commit check for this sequence: its blocks change hands only after its uid is gone.
  absl::Status CheckAlive() const;
  absl::StatusOr<uint32_t> CallTruncate(uint64_t rows);  // the new uid
  absl::StatusOr<std::vector<shm::RetrievedBlockRecord>> CallRetrieve(uint32_t layer,
                                                                      uint64_t mass_blocks);
  absl::StatusOr<Sequence::Published> CallPublishPrefix();
  absl::Status CallClose();

  const std::shared_ptr<SessionState> session_;  // shared with the Session and other sequences
  const ClientModel model_;
  const uint32_t slot_;
  const uint64_t id_;
  const std::string retention_;
  const std::string condensed_from_;
  const bool unrotated_;
  const std::optional<uint32_t> filter_layer_;
  const uint64_t far_position_;  // 0: no retrieval
  const uint32_t step_rows_max_, retrieved_rows_, retrieved_blocks_max_;
  const std::vector<uint32_t> lane_of_layer_;

  // What every step touches: one line, and the views in the next one.
  alignas(128) const shm::SeqBoard& board_;
  shm::SeqDesk& desk_;
  const std::atomic<uint32_t>& session_state_;
  uint64_t rows_ = 0;
  uint64_t at_once_end_ = 0;         // rows below it need no look at anything else; 0: all do
  std::byte* next_token_ = nullptr;  // of row rows_; null: to be found
  uint32_t rows_left_ = 0;           // that it is right for, until a border is crossed
  uint32_t begun_ = 0;               // rows of the last Begin()
  const uint32_t vocabulary_size_;
  uint32_t uid_;

  std::vector<LayerView> layers_;
  double mass_decay_ = 1.0;

  // Committed, and not written before `done`: the desk does not say so yet. In order.
  struct RowsUnderWay {
    uint64_t rows = 0;     // once they have come
    uint64_t adopted = 0;  // version of their step: nothing before it reads an older one
    TimelinePoint done;
  };
  std::deque<RowsUnderWay> under_way_;
  uint64_t told_rows_ = 0;   // what the desk says, where any are
  bool border_due_ = false;  // what it says has crossed a block border, and no call came behind it

  shm::VersionDesc table_{};  // in use
  bool table_loaded_ = false;
  bool views_are_old_ = false;
  uint64_t granted_ = 0;
  bool reports_mass_ = false;
  bool closed_ = false;
  std::vector<LaneViews> lanes_;
  std::vector<std::vector<KeptRunView>> retrieved_;  // [layer]: of its last call
  uint64_t unseen_bytes_ = 0;                        // by the daemon's last answer
};

}  // namespace kvasir

#endif  // KVASIR_CLIENT_SEQUENCE_STATE_H_
