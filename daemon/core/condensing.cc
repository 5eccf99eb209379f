#include "daemon/core/condensing.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "policies/degrade_ladder.h"

namespace kvasir::core {
namespace {

// Of a job, and written ahead of what policies have seen: bounds memory, and how long others wait.
constexpr uint64_t kRowsAtOnce = 64;
constexpr uint32_t kUid = 1;

bool IsEncoded(const Snapshot& snapshot) {
  return std::any_of(snapshot.lanes.begin(), snapshot.lanes.end(),
                     [](const Snapshot::Lane& lane) { return lane.records != nullptr; });
}

}  // namespace

uint64_t BytesAlone(const Tenant& tenant, const Snapshot& snapshot, uint64_t rows_staying) {
  struct Names {
    long own = 0, all = 0;
  };
  std::map<const KeptGroup*, Names> names;
  const auto name = [&](const std::shared_ptr<KeptGroup>& group) {
    if (!tenant.kept.Owns(&group->allocator())) return;  // a public tenant's
    ++names[group.get()].own;
    names[group.get()].all = group.use_count();
  };
  const auto name_all = [&](const TableVersion& version) {
    for (const LaneTable& lane : version.lanes) {
      for (const KeptRun& run : lane.kept.runs()) name(run.group);
      for (const WindowRecord& record : lane.records) name(record.group);
    }
  };
  name_all(snapshot.table);
  if (snapshot.next) name_all(*snapshot.next);
  uint64_t bytes = 0;
  if (rows_staying == 0) {
    bytes = snapshot.own_bytes([&](const GroupAllocator* of) { return tenant.outside.Owns(of); });
  } else {
    for (const LaneTable& lane : snapshot.table.lanes) {
      const KeptList staying = lane.kept.First(std::min(rows_staying, lane.kept.rows()));
      for (const KeptRun& run : staying.runs()) names.erase(run.group.get());
    }
  }
  for (const auto& [group, of_it] : names) {
    if (of_it.own == of_it.all) bytes += group->geometry().bytes;
  }
  return bytes;
}

Condensing::Segment Condensing::MakeSegment(uint64_t bytes, uint64_t cleared) {
  auto* const data = static_cast<std::byte*>(std::aligned_alloc(kPageBytes, bytes));
  KVASIR_CHECK(data != nullptr, "no memory for the tables of a prefix: bytes={}", bytes);
  std::memset(data, 0, cleared);  // pages of the rest are taken when they are used
  return Segment(data);
}

Condensing::Condensing(CondensingWork work, Model model, std::shared_ptr<const RowSource> source,
                       const SessionLimits& limits, uint64_t first_extent_bytes,
                       uint64_t extent_bytes)
    : work_(std::move(work)), model_(std::move(model)), source_(std::move(source)) {
  const SegmentSizes sizes = SegmentSizesFor(limits);
  d_ = MakeSegment(sizes.d_bytes, sizes.arena_off);
  e_ = MakeSegment(sizes.e_bytes, sizes.e_bytes);
  session_ = std::make_unique<Session>(0, SessionToken(), Peer(), *work_.tenant,
                                       SessionMemory{d_.get(), e_.get()}, limits, *this,
                                       first_extent_bytes, extent_bytes);
}

Condensing::~Condensing() = default;

absl::StatusOr<std::unique_ptr<Condensing>> Condensing::Create(CondensingWork work,
                                                               SessionLimits limits,
                                                               uint64_t first_extent_bytes,
                                                               uint64_t extent_bytes) {
  std::shared_ptr<const Snapshot> from = work.cached;
  // Where it is found at borders alone, rows behind the last one are of no use to anybody.
  if (from->first_rows < from->rows) from = from->Cut(RoundDown(from->rows, kChunkTokens));
  KVASIR_ASSIGN_OR_RETURN(Model model, Model::Create(from->model));
  KVASIR_RETURN_IF_ERROR(from->CheckModel(model));
  KVASIR_ASSIGN_OR_RETURN(RowSource source, RowSource::Of(std::move(from)));
  limits.sequences_max = 1;
  limits.ring = {2, 2, 4096, 4096, 0, 0};  // nobody submits anything
  return std::unique_ptr<Condensing>(new Condensing(
      std::move(work), std::move(model), std::make_shared<const RowSource>(std::move(source)),
      limits, first_extent_bytes, extent_bytes));
}

absl::Status Condensing::SendExtent(const shm::ExtentNotice& notice, const Extent& extent) {
  extents_.resize(std::max<size_t>(extents_.size(), notice.slot + 1));
  extents_[notice.slot] = extent.data();
  return absl::OkStatus();
}

absl::Status Condensing::CheckBelow(const PolicyLanes& lanes) const {
  const Snapshot& from = source();
  KVASIR_RETURN_IF_ERROR(CheckCondenses(lanes));
  const bool encoded = IsEncoded(from);
  if (KeepsAllRows(lanes) && (encoded || !lanes.encoding)) {
    return FailedPrecondition("no less would be held: retention={} source={}", lanes.spec,
                              from.retention);
  }
  if (encoded && lanes.encoding) {
    return FailedPrecondition("rows are encoded once: retention={} source={}", lanes.spec,
                              from.retention);
  }
  const bool unrotated = from.positions == PositionMode::kUnrotated;
  if (unrotated != (lanes.positions == PositionMode::kUnrotated)) {
    return FailedPrecondition(
        "keys are rotated in one and not in the other: retention={} source={}", lanes.spec,
        from.retention);
  }
  return absl::OkStatus();
}

absl::Status Condensing::Open(uint64_t sequence_id, const ChainKey& form, PolicyLanes lanes,
                              std::shared_ptr<const ModelProfile> profile) {
  const Snapshot& from = source();
  Sequence::Identity identity;
  identity.id = sequence_id;
  identity.uid = kUid;
  identity.label = from.label;
  identity.retention = lanes.spec;
  identity.form = form;
  identity.condensed_from = FormName(from.retention, from.condensed_from);
  SequenceContext context;
  context.model = &model_;
  context.tenant = work_.tenant;
  context.recent = &work_.tenant->outside;  // no engine maps it
  context.recent_rows = &work_.tenant->outside;
  context.kept_rows = &work_.tenant->kept;
  context.saved_rows = &work_.tenant->outside;
  context.extents = &session_->extents;
  context.arena = &session_->arena;
  context.d = d_.get();
  context.board = &board();
  context.desk = &desk();
  context.limits = &session_->limits;
  context.profile = std::move(profile);
  context.max_rows = from.rows;
  KVASIR_ASSIGN_OR_RETURN(sequence_,
                          Sequence::Open(context, std::move(identity), std::move(lanes)));
  PrefixChain chain = *from.chain;
  chain.Truncate(0, {});
  sequence_->SetChain(std::move(chain));
  return absl::OkStatus();
}

shm::SeqDesk& Condensing::desk() const {
  return *reinterpret_cast<shm::SeqDesk*>(e_.get() + session_->sizes.e_desk_off);
}

void Condensing::Adopt() {
  const uint64_t published = board().published.load(std::memory_order_acquire);
  adopted_ = rows_ >= board().v[published & 1].from_row ? published : published - 1;
  desk().rows.store(rows_, std::memory_order_release);
  desk().adopted.store(adopted_, std::memory_order_release);
  desk().uid.store(kUid, std::memory_order_release);
}

uint64_t Condensing::Writable() const {
  const uint64_t end =
      std::min({board().granted.load(std::memory_order_acquire), table().until_row, source().rows});
  return end > rows_ ? end - rows_ : 0;
}

std::byte* Condensing::BlockOf(size_t lane, uint64_t row) const {
  const uint64_t block = row / board().slots_per_block;
  shm::RecentRef ref;
  std::memcpy(
      &ref,
      d_.get() + board().dir_off + sizeof(ref) * (lane * board().dir_cap + block % board().dir_cap),
      sizeof(ref));
  return extents_[ref.extent] + ref.group_off;
}

std::unique_ptr<SequenceJob> Condensing::MakeWriting(uint64_t rows_max) {
  uint64_t last = rows_ + std::min(rows_max, kRowsAtOnce);
  // What is encoded is decoded once, where that can be.
  const RowSource::Stretch end = source_->StretchOf(last - 1);
  if (end.encoded && end.last > last && end.first > rows_) last = end.first;
  auto job = std::make_unique<SequenceJob>();
  job->sequence_id = sequence_->identity().id;
  const std::vector<LaneReport> lanes = sequence_->Reports();
  for (size_t i = 0; i < lanes.size(); ++i) {
    const Lane& lane = *lanes[i].lane;
    const uint64_t slots = lane.recent_block.slots;
    for (uint64_t row = rows_; row < last;) {
      const uint64_t stop = std::min(last, source_->StretchOf(row).last);
      RowWriting writing{
          source_, row, stop, {&lane.recent_block, &lane.layers, {}, row / slots, i == 0}};
      for (uint64_t block = row / slots; block * slots < stop; ++block) {
        writing.to.blocks.push_back(BlockOf(i, block * slots));
      }
      job->writings.push_back(std::move(writing));
      row = stop;
    }
  }
  return job;
}

absl::Status Condensing::CheckSmaller() const {
  uint64_t bytes = 0;
  if (result_ != nullptr) {
    bytes = result_->held_bytes();
  } else {
    GroupSet groups;
    std::set<const Snapshot*> snapshots;
    sequence_->AddHoldings(&groups, &snapshots);
    for (const KeptGroup* group : groups) bytes += group->geometry().bytes;
  }
  if (bytes < work_.freed_bytes) return absl::OkStatus();
  return FailedPrecondition("it would not become smaller: bytes={} freed_bytes={} rows={} of={}",
                            bytes, work_.freed_bytes, rows_, source().rows);
}

absl::StatusOr<std::unique_ptr<SequenceJob>> Condensing::Advance() {
  for (;;) {
    Adopt();
    const uint64_t adopted = adopted_;
    KVASIR_RETURN_IF_ERROR(sequence_->Look());
    KVASIR_RETURN_IF_ERROR(CheckSmaller());
    KVASIR_RETURN_IF_ERROR(sequence_->Advance());
    if (std::unique_ptr<SequenceJob> job = sequence_->TakeJob()) return job;
    KVASIR_RETURN_IF_ERROR(sequence_->Grant(std::min(rows_ + kRowsAtOnce, source().rows)));
    Adopt();
    if (Writable() > 0) return MakeWriting(Writable());
    if (adopted_ != adopted) continue;
    if (rows_ < source().rows) {
      return Internal("no table for this row follows from the rows written: row={} retention={}",
                      rows_, sequence_->identity().retention);
    }
    KVASIR_ASSIGN_OR_RETURN(result_, sequence_->Save(&asked_to_save_));
    if (result_ == nullptr) return sequence_->TakeJob();
    KVASIR_RETURN_IF_ERROR(CheckSmaller());
    return nullptr;
  }
}

void Condensing::Finish(SequenceJob& job) {
  if (job.writings.empty()) {
    sequence_->Finish(job);
  } else {
    rows_ = job.writings.back().last;
  }
}

void Condensing::CancelJob() {
  if (sequence_ != nullptr) sequence_->CancelJob();
}

void Condensing::AddHoldings(GroupSet* groups, std::set<const Snapshot*>* snapshots) const {
  snapshots->insert(work_.cached.get());
  snapshots->insert(&source());
  if (result_ != nullptr) snapshots->insert(result_.get());
  if (sequence_ != nullptr) sequence_->AddHoldings(groups, snapshots);
}

}  // namespace kvasir::core
