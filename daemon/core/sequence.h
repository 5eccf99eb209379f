// Sequence: one token stream; its recent blocks, its kept rows, and the versions of its table.
//
// At most one published version is not adopted by the engine, so two descriptors on the board
// suffice and nobody retries. Nothing that an adopted or published version names is freed or
// changed.
#ifndef KVASIR_DAEMON_CORE_SEQUENCE_H_
#define KVASIR_DAEMON_CORE_SEQUENCE_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/bytes.h"
#include "daemon/core/copy_job.h"
#include "daemon/core/kept_list.h"
#include "daemon/core/lane_table.h"
#include "daemon/core/model.h"
#include "daemon/core/prefix_cache.h"
#include "daemon/core/retrieval.h"
#include "daemon/core/row_source.h"
#include "daemon/core/score_job.h"
#include "daemon/core/session_memory.h"
#include "daemon/core/snapshot.h"
#include "daemon/core/table_arena.h"
#include "daemon/core/tenant.h"
#include "daemon/core/trace_recorder.h"
#include "policies/policy_registry.h"
#include "policies/retention_policy.h"

namespace kvasir::core {

// Layers that share one retention plan.
struct Lane {
  std::vector<uint32_t> layers;
  std::vector<HeadShape> heads;                   // of those layers
  shm::GroupGeometry recent_block;                // what the engine writes
  std::shared_ptr<const KeptShapes> kept_shapes;  // shared with snapshots
  LaneRope rope;
  std::unique_ptr<RetentionPolicy> policy;
  std::deque<RetentionPlan> pending;  // returned by the policy, not applied yet, in order
  ScoreNeeds needs;
  std::shared_ptr<const std::vector<float>> next_base;  // of the decision that is not applied yet
  shm::ReportGeometry report_geometry;
  Group report;  // where the engine reports; none where bytes is 0
  ExtentTable::Ref report_extent;
  GroupAllocator* recent_allocator = nullptr;
  std::shared_ptr<const LaneRecords> records;  // null: rows stay as written
  GroupAllocator* record_allocator = nullptr;
  KeptGroupSizes kept_sizes;
  std::deque<Group> recent;  // blocks, from base_block on
  uint64_t base_block = 0;

  // Every row stays, in its place and as written: rows may move from recent to kept at any time,
  // and no query sees a difference.
  bool Seals() const { return records == nullptr && policy->encodable().KeepsAll(); }
};

// What a sequence needs from its session and tenant; all outlive it.
struct SequenceContext {
  const Model* model = nullptr;
  Tenant* tenant = nullptr;
  AllocatorSet* recent = nullptr;      // of what is reported
  GroupSource* recent_rows = nullptr;  // of what the engine writes
  GroupSource* kept_rows = nullptr;    // of what the daemon writes
  GroupSource* saved_rows = nullptr;   // of copies of recent blocks, which no engine gets
  DeviceMemory* device = nullptr;      // that they are of; null: host memory
  ExtentTable* extents = nullptr;
  TableArena* arena = nullptr;
  std::byte* d = nullptr;  // the D segment
  shm::SeqBoard* board = nullptr;
  const shm::SeqDesk* desk = nullptr;
  const SessionLimits* limits = nullptr;
  std::shared_ptr<const ModelProfile> profile;  // of the model; may be null
  uint64_t max_rows = kNoRow;                   // the sequence never grows beyond
};

// Work for a worker: score these lanes, fill these groups or copy these blocks, then give the job
// back to Sequence::Finish().
struct SequenceJob {
  uint64_t sequence_id = 0;
  size_t place = 0;  // of its tenant
  std::vector<LaneScoring> scorings;
  std::optional<RowSelecting> selecting;
  std::vector<BlockSealing> sealings;
  std::optional<BlockLookup> lookup;
  struct Item {
    GroupFill fill;
    const LaneRope* rope = nullptr;
  };
  std::vector<Item> items;
  std::vector<BlockCopy> copies;
  std::vector<RowWriting> writings;          // of a condensing
  std::shared_ptr<const Snapshot> snapshot;  // keeps the groups that are copied from or to
  // How many of each are done.
  size_t scored = 0, sealed = 0, filled = 0, copied = 0, written = 0;
  absl::Status status;  // of what a device did; the job ends with the first error
};

// Does a part of the job that is short beside a whole one: a layer that is scored, a block that is
// sealed, a group that is filled, a block that is copied. False when nothing is left.
bool RunPart(SequenceJob& job);
inline void Run(SequenceJob& job) {
  while (RunPart(job)) {
  }
}

// What the engine is told about a lane when a sequence is opened.
struct LaneReport {
  const Lane* lane = nullptr;
  ExtentTable::Ref extent;  // of the report group
};

struct SequenceSummary {
  uint64_t rows_seen = 0;
  uint64_t rows_kept = 0;  // visible to the next query, in the lane that keeps most
  uint64_t held_bytes = 0;
  uint64_t unseen_bytes = 0;  // of those, sealed blocks and their slots, which no table names
  uint64_t compactions = 0;
  uint64_t version = 0;
  uint64_t rollback_floor = 0;
};

// One row of the stream as people ask for it.
struct RowReport {
  uint64_t row = 0;
  TokenId token = 0;
  bool token_known = false;
  uint32_t kept_heads = 0;  // kv heads of the layer that keep it
};

// Not thread-safe: whoever calls holds the core's lock, or its tenant's share.
class Sequence {
 public:
  struct Identity {
    uint64_t id = 0;    // never reused
    uint32_t slot = 0;  // board and desk
    uint32_t uid = 0;   // of this life of the slot
    std::string label;
    std::string retention;            // canonical
    ChainKey form;                    // of a sequence with a chain
    std::string condensed_from = {};  // as in what it goes on from (snapshot.h)
    uint64_t prefill_rows = 0;        // that its policies were told of
  };

  // Publishes version 1 and grants the first rows.
  // Errors: kResourceExhausted; nothing is left behind.
  static absl::StatusOr<std::unique_ptr<Sequence>> Open(const SequenceContext& context,
                                                        Identity identity, PolicyLanes lanes);
  // A sequence that goes on from the snapshot, whose model and retention are the context's and the
  // identity's: checked by the caller. Where there are recent blocks to copy, a job is out until
  // they are, and nothing that the engine writes is looked at before. Errors: as Open().
  static absl::StatusOr<std::unique_ptr<Sequence>> Resume(
      const SequenceContext& context, Identity identity,
      const std::shared_ptr<const Snapshot>& snapshot);
  // REQUIRES: no job is out.
  ~Sequence();

  // Copies the desk once and judges it; takes new token ids; frees what the engine has left.
  // Errors: any error is a violation that ends the session.
  absl::Status Look();

  // Plans, prepares and publishes as far as that is possible now. A copy job comes out of
  // TakeJob().
  absl::Status Advance();

  // Grants at least `rows` rows (and, if memory allows, a block more than is in use).
  absl::Status Grant(uint64_t rows);

  // A table for the query of `row` is in use, or one that leads to it is published.
  bool HasTableFor(uint64_t row) const;

  std::unique_ptr<SequenceJob> TakeJob() {
    if (job_ != nullptr) job_->place = context_.tenant->place;
    return std::move(job_);
  }
  // The job that was taken is done: decides by its scores, or publishes the version that needs the
  // groups. Scores that decide nothing make the sequence useless: its calls get the reason.
  void Finish(SequenceJob& job);
  // The job that was taken will not be run: the sequence is about to be destroyed.
  void CancelJob();
  // The job that is out, which may take long, need not come to its end: the sequence goes with it.
  void Abandon() { *abandoned_ = true; }
  bool abandoned() const { return *abandoned_; }
  bool job_out() const {
    return preparing_.has_value() || scoring_ || selecting_ || looking_up_ || saving_ || resuming_;
  }

  // REQUIRES: Look() was called, no job is out. Gives the board a new uid.
  // The engine waits for the answer and reads its tables anew after it, so that a published version
  // that is due counts as adopted, and one that the truncated rows belied ends at once. Errors:
  // kFailedPrecondition naming the floor, kOutOfRange above rows.
  absl::Status Truncate(uint64_t rows, uint32_t new_uid);
  // What it uses of a cache would end with that.
  bool TruncationEndsUse(uint64_t rows) const {
    return chain_ && RoundDown(rows, kChunkTokens) < prefix_use_.rows();
  }

  // Selection policies. REQUIRES: Look() was called, no job is out. A call with *asked false makes
  // a job that chooses, sets *asked and returns nothing; one with it true empties the sequence,
  // gives the board a new uid and returns what was chosen. What a caller asked for and did not
  // fetch is forgotten by the next one who asks. Errors: kFailedPrecondition (other policies, no
  // rows, a second time), the selection's.
  absl::StatusOr<std::optional<std::vector<uint32_t>>> SelectRows(uint32_t new_uid, bool* asked);
  std::optional<uint32_t> filter_layer() const;
  // The prompt that rows were chosen from, kept_heads = all for those chosen. Empty where there was
  // none.
  std::vector<RowReport> InspectPrompt(uint64_t first_row, uint32_t max_rows) const;
  uint64_t prompt_rows() const { return prompt_.size(); }

  // Retrieval policies. REQUIRES: no job is out; the desk is not read, so no Look() either
  // (KvCore's Retrieve() says why). A call with *asked false makes a job that looks up in `layer`,
  // with the query and the mass of `mass_blocks` blocks that the engine has reported, and sets
  // *asked; one with it true returns where the blocks lie, ascending. As SelectRows(). Errors:
  // kFailedPrecondition (other policies), kInvalidArgument (layer, mass_blocks, or what was
  // reported), kResourceExhausted.
  struct RetrievedBlock {
    uint32_t block = 0;
    ExtentTable::Ref extent;
    uint64_t offset = 0;
  };
  absl::StatusOr<std::optional<std::vector<RetrievedBlock>>> Retrieve(uint32_t layer,
                                                                      uint64_t mass_blocks,
                                                                      bool* asked);
  bool resuming() const { return resuming_; }  // the job of Resume() is out
  // Why it is of no use: copies of rows that failed, scores that decided nothing.
  const absl::Status& failure() const { return failure_; }
  // What it takes and gives back is its tenant's alone. Not so where it goes on from groups of
  // another tenant's, which it may be the last to name, or has its rows on a device, whose memory
  // all tenants' accounts share.
  bool is_tenants_alone() const { return !names_others_ && !on_device(); }
  // Its rows lie in the memory of a device.
  bool on_device() const { return context_.device != nullptr; }
  DeviceMemory* device() const { return context_.device; }  // null: host memory
  const Retrieval* retrieval() const { return retrieval_.get(); }

  // Moves all rows of lanes that seal from recent to kept, so that they can be shared; false where
  // there is nothing to move, or the engine has not adopted the last table. REQUIRES: Look() was
  // called, no job is out. Errors: kResourceExhausted; nothing has changed then.
  absl::StatusOr<bool> SealRows();

  // A snapshot at row rows(). REQUIRES: Look() was called, no job is out. A call with *asked false
  // makes a job that fills it and sets *asked; one with it true returns it. As SelectRows(). Where
  // there is nothing to copy the first call returns it.
  // Errors: kFailedPrecondition with the reason why such a sequence cannot be saved,
  // kResourceExhausted, and those of a device that could not copy; the sequence goes on.
  absl::StatusOr<std::shared_ptr<const Snapshot>> Save(bool* asked);

  // The keys of its rows, where they may be shared as a prefix. REQUIRES: rows() is 0, or the rows
  // that it was resumed with are those of the chain.
  void SetChain(PrefixChain chain) { chain_ = std::move(chain); }
  bool has_chain() const { return chain_.has_value(); }
  // What it uses of the tenant's cache, until it goes.
  void SetPrefixUse(PrefixUse use) { prefix_use_ = std::move(use); }
  PrefixUse& prefix_use() { return prefix_use_; }
  // Where its request is recorded; told of its end.
  void SetTraceTicket(TraceTicket ticket) { trace_ticket_ = std::move(ticket); }

  // Report groups of the lanes, in lane order.
  std::vector<LaneReport> Reports() const;
  PositionMode positions() const { return positions_; }

  uint64_t RollbackFloor() const;
  uint64_t granted() const { return granted_; }
  uint64_t rows() const { return rows_; }
  uint64_t published_version() const;
  const Identity& identity() const { return identity_; }
  const Model& model() const { return *context_.model; }
  Tenant& tenant() const { return *context_.tenant; }
  SequenceSummary Summary() const;
  // For the books: filled groups that it names, which others may name as well; snapshots that it
  // holds, as others may; bytes that are its own.
  void AddHoldings(GroupSet* groups, std::set<const Snapshot*>* snapshots) const;
  uint64_t own_bytes() const;
  uint64_t own_host_bytes() const;    // of those, such in host memory
  uint64_t own_device_bytes() const;  // and in a device's, where trailers are none
  std::vector<uint32_t> LaneOfLayer() const;
  // REQUIRES: layer < model().layers().
  std::vector<RowReport> Inspect(uint32_t layer, uint64_t first_row, uint32_t max_rows) const;

 private:
  Sequence(const SequenceContext& context, Identity identity);

  absl::Status MakeSelection(const std::optional<GemFilterSpec>& selection);
  // Errors: kInvalidArgument where the policy asks for more reports than a sequence may have.
  absl::Status MakeLanes(PolicyLanes lanes);
  // Whether all that the lanes need can be done where the rows lie. Errors: kFailedPrecondition
  // naming what a device cannot do.
  absl::Status CheckDevice(const PolicyLanes& lanes) const;
  absl::Status MakeRecords(const std::optional<EncodingSpec>& encoding);
  // Where kept rows of the lane go, by its shapes and records.
  void SetKeptSizes(Lane& lane) const;
  // Makes the directory and fills the board, for a sequence that nobody knows of yet.
  absl::Status PrepareBoard();
  // Publishes the first table and the one that follows it, where there is one; grants the rows that
  // come next. Errors: as Open().
  absl::Status Start(TableVersion first, std::optional<TableVersion> next);
  // Why it cannot be saved now. Errors: kFailedPrecondition.
  absl::Status CheckSavable() const;
  bool NamesOthers(const TableVersion& version) const;
  absl::Status AllocateReports();
  // A job that scores the lanes that wait for it; false if none does.
  bool StartScoring();
  LaneScoring ScoringOf(size_t lane) const;
  void DecideByScores(SequenceJob& job);
  void StartSelecting();
  absl::Status MakeRetrieval(const std::optional<InfLlmConfig>& config);
  // A block of the rows that `plan` seals: what fills it goes to `fills`.
  absl::StatusOr<BlockSealing> Seal(const Lane& lane, const RetentionPlan& plan,
                                    std::vector<GroupFill>* fills);
  absl::Status StartLookup(uint32_t layer, uint64_t mass_blocks);
  absl::Status TakeTokens(uint64_t rows);
  void Adopt();
  std::optional<RetentionPlan> NextPlan(Lane& lane) const;
  absl::StatusOr<LaneTable> Apply(Lane& lane, const LaneTable& before, const RetentionPlan& plan,
                                  std::vector<GroupFill>* fills);
  // The records of the table after `plan`.
  absl::StatusOr<std::vector<WindowRecord>> ApplyRecords(const Lane& lane, const LaneTable& before,
                                                         const RetentionPlan& plan,
                                                         std::vector<GroupFill>* fills);
  // A plan of some lane is due for the query of row rows() and not in the table in use.
  bool PlanIsDue() const;
  absl::StatusOr<IncomingRow> Incoming(const Lane& lane, const MovedRow& moved) const;
  absl::Status WriteTable(TableVersion& table);
  void Publish(TableVersion table);
  absl::Status AddBlock(size_t lane_index);
  // Rows that are granted when `rows` are written and nothing more is asked for.
  uint64_t GrantedAhead(uint64_t rows) const;
  void ReturnBlocksBehind(uint64_t rows);
  void ForgetTokens();
  void CutChain(uint64_t rows);
  void FreeTable(const TableVersion& table);
  TokenId TokenOf(uint64_t row) const { return tokens_[row - tokens_base_]; }

  const SequenceContext context_;
  Identity identity_;
  std::vector<Lane> lanes_;
  uint64_t dir_off_ = 0, dir_bytes_ = 0;
  uint32_t dir_cap_ = 0;
  TableVersion current_;                                 // adopted by the engine
  std::optional<TableVersion> published_;                // not adopted yet
  std::optional<TableVersion> preparing_;                // waits for its copies
  std::unique_ptr<SequenceJob> job_;                     // to be taken
  bool scoring_ = false;                                 // a job that scores is out or to be taken
  const std::shared_ptr<std::atomic<bool>> abandoned_ =  // shared with jobs
      std::make_shared<std::atomic<bool>>(false);
  absl::Status failure_;  // rows or decisions that it lacks for good
  // Selection policies: from StartSelecting() to Finish(); then the choice until it is fetched.
  std::optional<GemFilterSpec> selection_;
  std::shared_ptr<const GemFilter> filter_;  // shared with the job
  bool selecting_ = false;
  std::optional<RowSelecting> chosen_;
  // Retrieval policies: from StartLookup() to Finish(); then the result until it is fetched.
  shm::GroupGeometry block_geometry_;  // of sealed blocks; before retrieval_, which refers to it
  std::unique_ptr<Retrieval> retrieval_;
  bool looking_up_ = false;
  std::optional<BlockLookup> found_;
  // From Save() to Finish(); then the snapshot until it is fetched.
  bool saving_ = false;
  bool adoption_waits_ = false;            // for that job: the engine has left current_
  std::shared_ptr<const Snapshot> saved_;  // shared with the job
  absl::Status save_status_;               // of the last one, until it is fetched
  // From Resume() to Finish(): what its blocks are copied from.
  bool resuming_ = false;
  std::shared_ptr<const Snapshot> resumed_from_;  // shared with the tenant and the job
  bool names_others_ = false;
  std::vector<TokenId> prompt_;        // what was chosen from, for people
  std::vector<uint32_t> prompt_rows_;  // chosen
  PositionMode positions_ = PositionMode::kOriginal;
  uint64_t rows_ = 0;
  uint64_t granted_ = 0;
  uint64_t compactions_ = 0;
  std::optional<PrefixChain> chain_;  // of rows [0, rows_); none: they are not shared
  PrefixUse prefix_use_;
  TraceTicket trace_ticket_;
  std::deque<TokenId> tokens_;  // ids of rows [tokens_base_, rows_)
  uint64_t tokens_base_ = 0;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_SEQUENCE_H_
