// Snapshots of a sequence: saved at a row, and gone on from.
#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/sequence.h"

namespace kvasir::core {
namespace {

// A version as it stands, without its place in a session's arena.
TableVersion WithoutPlace(TableVersion table) {
  table.arena_off = table.arena_bytes = 0;
  return table;
}

// One block, of which rows and trailer lie apart on a device.
void AddCopies(const Group& from, const Group& to, const shm::GroupGeometry& geometry,
               std::vector<BlockCopy>& copies) {
  const DeviceRows* const rows = from.extent->device_rows();
  if (rows == nullptr) {
    copies.push_back({from.data(), to.data(), geometry.bytes});
    return;
  }
  const uint64_t planes = PlaneBytes(geometry);
  copies.push_back({from.data(), to.data(), planes, rows->device});
  copies.push_back({from.trailer(planes), to.trailer(planes), geometry.bytes - planes});
}

QualityClass QualityOf(const Lane& lane) {
  if (!lane.policy->KeepsAll()) return QualityClass::kCompacted;
  return lane.records != nullptr ? QualityClass::kQuantised : QualityClass::kFull;
}

}  // namespace

absl::Status Sequence::CheckSavable() const {
  if (!failure_.ok()) {
    return FailedPrecondition("a sequence that has failed cannot be saved: {}",
                              MessageOf(failure_));
  }
  if (retrieval_ != nullptr) {
    return FailedPrecondition("a sequence that retrieves blocks cannot be saved: retention={}",
                              identity_.retention);
  }
  for (const Lane& lane : lanes_) {
    if (lane.needs.source == ScoreSource::kAttentionMass ||
        lane.needs.source == ScoreSource::kWindowQueries) {
      return FailedPrecondition(
          "a sequence whose policy needs the engine's reports cannot be saved: retention={}",
          identity_.retention);
    }
  }
  if (selection_ && prompt_.empty()) {
    return FailedPrecondition(
        "a sequence cannot be saved before its rows are selected: retention={}",
        identity_.retention);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> Sequence::SealRows() {
  KVASIR_RETURN_IF_ERROR(CheckSavable());
  if (published_) return false;
  std::vector<Lane*> sealing;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    Lane& lane = lanes_[i];
    const uint64_t first = current_.lanes[i].recent_first;
    if (!lane.Seals() || !lane.pending.empty() || first == rows_) continue;
    RetentionPlan plan;
    plan.from_row = plan.recent_first = rows_;
    for (uint64_t row = first; row < rows_; ++row) plan.append.push_back({row, row});
    plan.spans = {{rows_, 0, kNoRow}};
    lane.pending.push_back(std::move(plan));
    sealing.push_back(&lane);
  }
  if (sealing.empty()) return false;
  if (absl::Status advanced = Advance(); !advanced.ok()) {
    for (Lane* const lane : sealing) lane->pending.clear();  // none was due but these
    return advanced;
  }
  return job_out();
}

absl::StatusOr<std::shared_ptr<const Snapshot>> Sequence::Save(bool* asked) {
  KVASIR_RETURN_IF_ERROR(CheckSavable());
  const absl::Status failed = std::exchange(save_status_, absl::OkStatus());
  if (*asked && saved_ != nullptr) return std::exchange(saved_, nullptr);
  if (*asked) KVASIR_RETURN_IF_ERROR(failed);
  saved_.reset();
  auto snapshot = std::make_shared<Snapshot>();
  snapshot->model = context_.model->description();
  snapshot->device = context_.device;
  snapshot->slots_per_block = context_.model->slots_per_block();
  snapshot->retention = identity_.retention;
  snapshot->positions = positions_;
  snapshot->lane_of_layer = LaneOfLayer();
  snapshot->label = identity_.label;
  snapshot->rows = rows_;
  snapshot->tokens_base = tokens_base_;
  snapshot->tokens = tokens_;
  snapshot->prompt = prompt_;
  snapshot->chosen = prompt_rows_;
  snapshot->chain = chain_;
  snapshot->form = identity_.form;
  snapshot->model_fingerprint = context_.model->fingerprint();
  snapshot->condensed_from = identity_.condensed_from;
  snapshot->prefill_rows = identity_.prefill_rows;
  // As an engine does: a published table is in use from its first row on.
  const bool due = published_ && published_->from_row <= rows_;
  snapshot->table = WithoutPlace(due ? *published_ : current_);
  if (published_ && !due) snapshot->next = WithoutPlace(*published_);
  auto job = std::make_unique<SequenceJob>();
  job->sequence_id = identity_.id;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    const Lane& lane = lanes_[i];
    const auto [first, last] =
        RecentBlocks(snapshot->table.lanes[i].recent_first, rows_, lane.recent_block.slots);
    std::shared_ptr<BlockList> recent;
    if (first < last) {
      recent = std::make_shared<BlockList>(context_.saved_rows->For(lane.recent_block));
    }
    for (uint64_t block = first; block < last; ++block) {
      KVASIR_RETURN_IF_ERROR(recent->Add());
      AddCopies(lane.recent[block - lane.base_block], recent->groups().back(), lane.recent_block,
                job->copies);
    }
    snapshot->encoded |= lane.records != nullptr || lane.kept_shapes->block.v_bits > 0;
    snapshot->quality = std::min(snapshot->quality, QualityOf(lane));
    snapshot->lanes.push_back({lane.kept_shapes,
                               lane.records,
                               lane.policy->Clone(),
                               lane.pending,
                               first,
                               std::move(recent),
                               {}});
  }
  const bool all_seal =
      std::all_of(lanes_.begin(), lanes_.end(), [](const Lane& lane) { return lane.Seals(); });
  snapshot->first_rows = all_seal && job->copies.empty() ? 0 : rows_;
  if (job->copies.empty()) return snapshot;
  saved_ = job->snapshot = std::move(snapshot);
  saving_ = true;
  job_ = std::move(job);
  *asked = true;
  return nullptr;
}

bool Sequence::NamesOthers(const TableVersion& version) const {
  const GroupAllocator* own = nullptr;  // of the group before: most are of one
  const auto is_others = [&](const KeptGroup& group) {
    if (&group.allocator() == own) return false;
    const Tenant& tenant = *context_.tenant;
    if (!tenant.kept.Owns(&group.allocator()) && !tenant.outside.Owns(&group.allocator())) {
      return true;
    }
    own = &group.allocator();
    return false;
  };
  return std::any_of(version.lanes.begin(), version.lanes.end(), [&](const LaneTable& lane) {
    const std::vector<KeptRun>& runs = lane.kept.runs();
    return std::any_of(runs.begin(), runs.end(),
                       [&](const KeptRun& run) { return is_others(*run.group); }) ||
           std::any_of(lane.records.begin(), lane.records.end(),
                       [&](const WindowRecord& record) { return is_others(*record.group); });
  });
}

absl::StatusOr<std::unique_ptr<Sequence>> Sequence::Resume(
    const SequenceContext& context, Identity identity,
    const std::shared_ptr<const Snapshot>& snapshot) {
  KVASIR_CHECK(snapshot->device == context.device, "rows of another memory: id={}", identity.id);
  identity.prefill_rows = snapshot->prefill_rows;
  std::unique_ptr<Sequence> sequence(new Sequence(context, std::move(identity)));
  PolicyLanes lanes;
  for (const Snapshot::Lane& lane : snapshot->lanes) lanes.lanes.push_back(lane.policy->Clone());
  lanes.lane_of_layer = snapshot->lane_of_layer;
  lanes.spec = snapshot->retention;
  lanes.positions = snapshot->positions;
  KVASIR_RETURN_IF_ERROR(sequence->MakeLanes(std::move(lanes)));
  for (size_t i = 0; i < sequence->lanes_.size(); ++i) {
    Lane& lane = sequence->lanes_[i];
    const Snapshot::Lane& saved = snapshot->lanes[i];
    lane.kept_shapes = saved.kept_shapes;
    lane.records = saved.records;
    sequence->SetKeptSizes(lane);
    lane.pending = saved.pending;
    lane.base_block = saved.base_block;
  }
  sequence->rows_ = snapshot->rows;
  sequence->tokens_base_ = snapshot->tokens_base;
  sequence->tokens_ = snapshot->tokens;
  sequence->chain_ = snapshot->chain;
  sequence->prompt_ = snapshot->prompt;
  sequence->prompt_rows_ = snapshot->chosen;
  sequence->names_others_ = sequence->NamesOthers(snapshot->table) ||
                            (snapshot->next && sequence->NamesOthers(*snapshot->next));
  KVASIR_RETURN_IF_ERROR(sequence->PrepareBoard());
  TableVersion first = snapshot->table;
  first.version = 1;
  std::optional<TableVersion> next = snapshot->next;
  if (next) next->version = 2;
  KVASIR_RETURN_IF_ERROR(sequence->Start(std::move(first), std::move(next)));

  auto job = std::make_unique<SequenceJob>();
  job->sequence_id = sequence->identity_.id;
  job->snapshot = snapshot;
  for (size_t i = 0; i < sequence->lanes_.size(); ++i) {
    const Lane& lane = sequence->lanes_[i];
    const std::span<const Group> saved = snapshot->lanes[i].recent_groups();
    for (size_t block = 0; block < saved.size(); ++block) {
      AddCopies(saved[block], lane.recent[block], lane.recent_block, job->copies);
    }
  }
  if (job->copies.empty()) return sequence;
  sequence->resumed_from_ = snapshot;
  sequence->resuming_ = true;
  sequence->job_ = std::move(job);
  return sequence;
}

}  // namespace kvasir::core
