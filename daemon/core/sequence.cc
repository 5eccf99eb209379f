#include "daemon/core/sequence.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir::core {
namespace {

// Ids of dropped rows that are remembered for people (InspectSequence); 4 bytes each.
constexpr uint64_t kRememberedRows = 1 << 16;

}  // namespace

Sequence::Sequence(const SequenceContext& context, Identity identity)
    : context_(context), identity_(std::move(identity)) {}

absl::StatusOr<std::unique_ptr<Sequence>> Sequence::Open(const SequenceContext& context,
                                                         Identity identity, PolicyLanes lanes) {
  std::unique_ptr<Sequence> sequence(new Sequence(context, std::move(identity)));
  KVASIR_RETURN_IF_ERROR(sequence->CheckDevice(lanes));
  KVASIR_RETURN_IF_ERROR(sequence->MakeSelection(lanes.selection));
  const std::optional<InfLlmConfig> retrieval = lanes.retrieval;
  const std::optional<EncodingSpec> encoding = lanes.encoding;
  KVASIR_RETURN_IF_ERROR(sequence->MakeLanes(std::move(lanes)));
  KVASIR_RETURN_IF_ERROR(sequence->MakeRecords(encoding));
  KVASIR_RETURN_IF_ERROR(sequence->MakeRetrieval(retrieval));
  KVASIR_RETURN_IF_ERROR(sequence->PrepareBoard());
  TableVersion first;
  first.version = 1;
  for (Lane& lane : sequence->lanes_) {
    const std::optional<RetentionPlan> plan = sequence->NextPlan(lane);
    if (!plan || !plan->append.empty() || !plan->drop.empty() || plan->from_row != 0) {
      return Internal("policy has no initial table: retention={}", sequence->identity_.retention);
    }
    LaneTable table;
    table.spans = plan->spans;
    table.recent_first = plan->recent_first;
    table.window = plan->window;
    table.sticky = plan->sticky;
    table.until_row = plan->until_row;
    first.until_row = std::min(first.until_row, plan->until_row);
    first.lanes.push_back(std::move(table));
  }
  KVASIR_RETURN_IF_ERROR(sequence->Start(std::move(first), std::nullopt));
  return sequence;
}

absl::Status Sequence::Start(TableVersion first, std::optional<TableVersion> next) {
  shm::SeqBoard& board = *context_.board;
  KVASIR_RETURN_IF_ERROR(AllocateReports());
  KVASIR_RETURN_IF_ERROR(WriteTable(first));
  current_ = std::move(first);
  if (next) {
    KVASIR_RETURN_IF_ERROR(WriteTable(*next));
    published_ = std::move(next);
  }
  board.published.store(published_version(), std::memory_order_release);
  KVASIR_RETURN_IF_ERROR(Grant(rows_ + 1));
  board.state.store(static_cast<uint32_t>(shm::BoardState::kOpen), std::memory_order_relaxed);
  board.uid.store(identity_.uid, std::memory_order_release);
  return absl::OkStatus();
}

Sequence::~Sequence() {
  KVASIR_CHECK(!job_out() || job_, "a job of the sequence is out: id={}", identity_.id);
  prefix_use_.set_tokens(rows_);
  trace_ticket_.set_rows(rows_);
  context_.board->uid.store(0);  // before blocks change hands: a step under way is discarded
  std::atomic_thread_fence(std::memory_order_seq_cst);
  context_.board->state.store(static_cast<uint32_t>(shm::BoardState::kFree));
  job_.reset();
  if (preparing_) FreeTable(*preparing_);
  if (published_) FreeTable(*published_);
  FreeTable(current_);
  if (dir_bytes_ > 0 && dir_off_ > 0) context_.arena->Free(dir_off_, dir_bytes_);
  for (Lane& lane : lanes_) {
    for (const Group& group : lane.recent) lane.recent_allocator->Free(group);
    if (lane.report) context_.recent->For(lane.report_geometry.bytes).Free(lane.report);
  }
}

absl::Status Sequence::Look() {
  if (resuming_) return absl::OkStatus();  // the engine does not know of it yet
  if (context_.desk->uid.load(std::memory_order_acquire) != identity_.uid) return absl::OkStatus();
  const uint64_t adopted = context_.desk->adopted.load(std::memory_order_acquire);
  const uint64_t rows = context_.desk->rows.load(std::memory_order_acquire);
  if (rows < rows_ || rows > granted_) {
    return InvalidArgument("desk rows out of bounds: sequence={} rows={} min={} max={}",
                           identity_.id, rows, rows_, granted_);
  }
  if (adopted != current_.version && (!published_ || adopted != published_->version)) {
    return InvalidArgument(
        "desk adopted a version that does not exist: sequence={} adopted={} "
        "current={} published={}",
        identity_.id, adopted, current_.version, published_version());
  }
  KVASIR_RETURN_IF_ERROR(TakeTokens(rows));
  if (published_ && adopted == published_->version) {
    // A job that saves the sequence reads its recent blocks to the end.
    adoption_waits_ = saving_;
    if (!saving_) Adopt();
  }
  return absl::OkStatus();
}

void Sequence::Adopt() {
  TableVersion old = std::move(current_);
  current_ = *std::move(published_);
  published_.reset();
  FreeTable(old);
  for (size_t i = 0; i < lanes_.size(); ++i) {
    Lane& lane = lanes_[i];
    const uint64_t first_block = current_.lanes[i].recent_first / lane.recent_block.slots;
    while (lane.base_block < first_block && !lane.recent.empty()) {
      lane.recent_allocator->Free(lane.recent.front());
      lane.recent.pop_front();
      ++lane.base_block;
    }
  }
  ForgetTokens();
}

void Sequence::ForgetTokens() {
  uint64_t needed = rows_;
  for (const Lane& lane : lanes_)
    needed = std::min(needed, lane.base_block * lane.recent_block.slots);
  if (rows_ > kRememberedRows)
    needed = std::min(needed, rows_ - kRememberedRows);
  else
    needed = 0;
  while (tokens_base_ < needed) {
    tokens_.pop_front();
    ++tokens_base_;
  }
}

absl::StatusOr<IncomingRow> Sequence::Incoming(const Lane& lane, const MovedRow& moved) const {
  const uint64_t slots = lane.recent_block.slots;
  // A plan is checked like foreign input: a wrong policy may be slow, never unsafe.
  if (moved.row >= rows_ || moved.row < lane.base_block * slots) {
    return Internal("plan moves a row that is not in recent: row={} min={} max={}", moved.row,
                    lane.base_block * slots, rows_);
  }
  const Group& group = lane.recent[moved.row / slots - lane.base_block];
  const int64_t turn =
      lane.rope.rotate ? static_cast<int64_t>(moved.rotated_at) - static_cast<int64_t>(moved.row)
                       : 0;
  return IncomingRow{
      {moved.row, moved.rotated_at, TokenOf(moved.row)},
      {group.data(), &lane.recent_block, static_cast<uint32_t>(moved.row % slots), turn}};
}

absl::StatusOr<LaneTable> Sequence::Apply(Lane& lane, const LaneTable& before,
                                          const RetentionPlan& plan,
                                          std::vector<GroupFill>* fills) {
  std::vector<IncomingRow> incoming;
  LaneTable after;
  if (plan.keep.empty()) {
    for (const MovedRow& moved : plan.append) {
      KVASIR_ASSIGN_OR_RETURN(IncomingRow row, Incoming(lane, moved));
      incoming.push_back(row);
    }
    KVASIR_ASSIGN_OR_RETURN(after.kept,
                            before.kept.Edit(plan.drop, incoming, lane.kept_sizes, fills));
  } else {
    for (uint64_t row = before.recent_first; row < plan.recent_first; ++row) {
      KVASIR_ASSIGN_OR_RETURN(IncomingRow in, Incoming(lane, {row, row}));
      incoming.push_back(in);
    }
    KVASIR_ASSIGN_OR_RETURN(after.kept,
                            before.kept.Rebuild(plan.keep, incoming, lane.kept_sizes, fills));
    after.base = lane.next_base;
  }
  uint64_t spanned = 0;
  for (const KeptSpan& span : plan.spans) spanned += span.count;
  if (spanned != after.kept.rows() || plan.recent_first < before.recent_first) {
    return Internal("plan does not fit the table: span_rows={} kept_rows={} recent_first={} min={}",
                    spanned, after.kept.rows(), plan.recent_first, before.recent_first);
  }
  KVASIR_ASSIGN_OR_RETURN(after.records, ApplyRecords(lane, before, plan, fills));
  after.records_from = plan.records_from;
  after.spans = plan.spans;
  after.from_row = plan.from_row;
  after.recent_first = plan.recent_first;
  after.window = plan.window;
  after.sticky = plan.sticky;
  after.until_row = plan.until_row;
  after.cut_row = plan.from_row == before.until_row ? plan.from_row : 0;
  return after;
}

std::optional<RetentionPlan> Sequence::NextPlan(Lane& lane) const {
  const uint64_t slots = context_.model->slots_per_block();
  return lane.policy->NextPlan({static_cast<uint32_t>(slots), 2 * slots});
}

absl::Status Sequence::Advance() {
  if (published_ || job_out()) return absl::OkStatus();
  KVASIR_RETURN_IF_ERROR(failure_);
  uint64_t from = kNoRow;
  for (Lane& lane : lanes_) {
    while (std::optional<RetentionPlan> plan = NextPlan(lane)) {
      lane.pending.push_back(*std::move(plan));
    }
    if (!lane.pending.empty()) from = std::min(from, lane.pending.front().from_row);
  }
  if (StartScoring() || from == kNoRow) return absl::OkStatus();
  // The table of another lane ends before the first plan begins, and what follows it is not known
  // yet: a version that is published now would stand in its way.
  if (from > current_.until_row) return absl::OkStatus();
  from = std::max(from, std::min(rows_, current_.until_row));  // all that are due already, at once
  TableVersion next;
  next.version = current_.version + 1;
  std::vector<std::vector<GroupFill>> fills(lanes_.size());
  std::vector<BlockSealing> sealings;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    Lane& lane = lanes_[i];
    LaneTable table = current_.lanes[i];
    uint64_t cut_row = 0;
    for (const RetentionPlan& plan : lane.pending) {
      if (plan.from_row > from) break;
      next.from_row = std::max(next.from_row, plan.from_row);
      // A fill may read the groups of the one before it: a job runs them in this order.
      KVASIR_ASSIGN_OR_RETURN(table, Apply(lane, LaneTable(table), plan, &fills[i]));
      cut_row = table.cut_row = std::max(cut_row, table.cut_row);
      if (plan.seal_first < plan.seal_last) {
        KVASIR_ASSIGN_OR_RETURN(BlockSealing sealing, Seal(lane, plan, &fills[i]));
        sealings.push_back(std::move(sealing));
      }
    }
    next.until_row = std::min(next.until_row, table.until_row);
    next.lanes.push_back(std::move(table));
  }
  KVASIR_RETURN_IF_ERROR(WriteTable(next));  // the last step that can fail: nothing is lost before
  auto job = std::make_unique<SequenceJob>();
  job->sequence_id = identity_.id;
  job->sealings = std::move(sealings);
  for (size_t i = 0; i < lanes_.size(); ++i) {
    std::deque<RetentionPlan>& pending = lanes_[i].pending;
    while (!pending.empty() && pending.front().from_row <= from) pending.pop_front();
    for (GroupFill& fill : fills[i]) {
      next.filling.push_back(fill.group);
      job->items.push_back({std::move(fill), &lanes_[i].rope});
    }
  }
  if (job->items.empty()) {
    Publish(std::move(next));
  } else {
    preparing_ = std::move(next);
    job_ = std::move(job);
  }
  return absl::OkStatus();
}

void Sequence::Finish(SequenceJob& job) {
  KVASIR_CHECK(job_out(), "no job of the sequence is out: id={}", identity_.id);
  if (scoring_) return DecideByScores(job);
  if (selecting_) {
    selecting_ = false;
    chosen_ = std::move(job.selecting);
    return;
  }
  if (looking_up_) {
    looking_up_ = false;
    found_ = std::move(job.lookup);
    retrieval_->Finish(*found_);
    return;
  }
  if (saving_ || resuming_) {
    if (saving_ && !job.status.ok()) {
      save_status_ = job.status;
      saved_.reset();  // not filled
    } else if (!job.status.ok()) {
      failure_ = job.status;
    }
    saving_ = resuming_ = false;
    resumed_from_.reset();
    return;
  }
  if (!job.status.ok()) {  // rows that were to be kept are not there
    failure_ = job.status;
    return CancelJob();
  }
  for (BlockSealing& sealing : job.sealings) {
    if (!sealing.status.ok()) {
      failure_ = sealing.status;
      CancelJob();
      return;
    }
    retrieval_->Add(std::move(sealing.block));
  }
  TableVersion next = *std::move(preparing_);
  preparing_.reset();
  next.filling.clear();
  ++compactions_;
  ++context_.tenant->counters.compactions;
  Publish(std::move(next));
}

void Sequence::CancelJob() {
  scoring_ = selecting_ = looking_up_ = saving_ = resuming_ = false;
  saved_.reset();  // not filled
  resumed_from_.reset();
  if (preparing_) FreeTable(*preparing_);
  preparing_.reset();
}

absl::Status Sequence::Truncate(uint64_t rows, uint32_t new_uid) {
  if (rows > rows_) {
    return OutOfRange("rows is above the sequence's rows: rows={} max={}", rows, rows_);
  }
  const uint64_t floor = RollbackFloor();
  if (rows < floor) {
    return FailedPrecondition("rows below were dropped or compacted: rows={} rollback_floor={}",
                              rows, floor);
  }
  for (Lane& lane : lanes_) KVASIR_RETURN_IF_ERROR(lane.policy->Truncate(rows));
  tokens_.resize(rows - tokens_base_);
  if (chain_) CutChain(rows);
  chosen_.reset();  // among rows that may be others now
  ReturnBlocksBehind(rows);
  const uint64_t before = rows_;
  rows_ = rows;
  identity_.uid = new_uid;
  context_.board->consumed = rows;
  // Due before the truncation, so also right for every row from the floor on.
  if (published_ && published_->from_row <= before) Adopt();
  // The policy's next tables undo what it said about the truncated rows. Where they need time or
  // memory, the engine has to ask for them before its next row.
  (void)Advance();  // where it fails, the plans it could not carry out are pending
  if (PlanIsDue() || (preparing_ && preparing_->from_row <= rows)) {
    current_.until_row = rows;
    context_.board->v[current_.version & 1].until_row = rows;
  }
  context_.board->uid.store(new_uid, std::memory_order_release);
  return absl::OkStatus();
}

void Sequence::CutChain(uint64_t rows) {
  const uint64_t first = RoundDown(rows, kChunkTokens);
  if (first < prefix_use_.rows()) prefix_use_ = {};  // its blocks are not the sequence's any more
  if (first < tokens_base_) {                        // ids that it would need are forgotten
    chain_.reset();
    return;
  }
  std::vector<TokenId> rest;
  for (uint64_t row = first; row < rows; ++row) rest.push_back(TokenOf(row));
  chain_->Truncate(rows, rest);
}

bool Sequence::PlanIsDue() const {
  return std::any_of(lanes_.begin(), lanes_.end(), [this](const Lane& lane) {
    return !lane.pending.empty() && lane.pending.front().from_row <= rows_;
  });
}

uint64_t Sequence::RollbackFloor() const {
  uint64_t floor = tokens_base_;
  const TableVersion& newest = published_ ? *published_ : current_;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    floor = std::max({floor, lanes_[i].policy->RollbackFloor(), current_.lanes[i].cut_row});
    if (lanes_[i].Seals()) floor = std::max(floor, newest.lanes[i].recent_first);
  }
  return floor;
}

uint64_t Sequence::published_version() const {
  return published_ ? published_->version : current_.version;
}

bool Sequence::HasTableFor(uint64_t row) const {
  if (row < current_.until_row) return true;
  // Even one that ends before the row: it has to be adopted before the next can be prepared.
  return published_ && !adoption_waits_ && published_->from_row <= row;
}

}  // namespace kvasir::core
