#include "daemon/core/snapshot.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"

#include <fmt/format.h>

namespace kvasir::core {
namespace {

absl::Status Differs(const std::string& field) {
  return FailedPrecondition("the snapshot was made of another model: {} differs", field);
}

absl::Status CheckLayers(const std::vector<LayerShape>& mine,
                         const std::vector<LayerShape>& others) {
  if (mine.size() != others.size()) return Differs("layers count");
  for (size_t i = 0; i < mine.size(); ++i) {
    const LayerShape &a = mine[i], &b = others[i];
    const char* field = a.kv_heads != b.kv_heads               ? "kv_heads"
                        : a.k_head_dim != b.k_head_dim         ? "k_head_dim"
                        : a.v_head_dim != b.v_head_dim         ? "v_head_dim"
                        : a.sliding_window != b.sliding_window ? "sliding_window"
                        : a.query_heads != b.query_heads       ? "query_heads"
                                                               : nullptr;
    if (field != nullptr) return Differs(fmt::format("layers[{}].{}", i, field));
  }
  return absl::OkStatus();
}

}  // namespace

std::string FormName(const std::string& retention, const std::string& condensed_from) {
  return condensed_from.empty() ? retention : retention + " condensed from " + condensed_from;
}

BlockList::~BlockList() {
  for (const Group& group : groups_) allocator_.Free(group);
}

absl::Status BlockList::Add() {
  KVASIR_ASSIGN_OR_RETURN(const Group group, allocator_.Allocate());
  groups_.push_back(group);
  return absl::OkStatus();
}

absl::Status Snapshot::CheckModel(const Model& other) const {
  if (device != other.device()) {
    const auto name = [](const DeviceMemory* memory) {
      return memory == nullptr ? std::string("host memory") : memory->name();
    };
    return FailedPrecondition("the snapshot's rows lie in other memory: pool={} of_snapshot={}",
                              name(other.device()), name(device));
  }
  return CheckModelAnywhere(other);
}

absl::Status Snapshot::CheckModelAnywhere(const Model& other) const {
  const ModelDescription& theirs = other.description();
  if (model.weights_digest != theirs.weights_digest) return Differs("weights_digest");
  if (model.adapter_digests != theirs.adapter_digests) return Differs("adapter_digests");
  if (model.dtype != theirs.dtype) return Differs("dtype");
  if (slots_per_block != other.slots_per_block()) return Differs("slots_per_block");
  KVASIR_RETURN_IF_ERROR(CheckLayers(model.layers, theirs.layers));
  if (model.rope.present != theirs.rope.present) return Differs("rope");
  if (model.rope.present) {
    if (model.rope.pairing != theirs.rope.pairing) return Differs("rope.pairing");
    if (model.rope.theta != theirs.rope.theta) return Differs("rope.theta");
    if (model.rope.rotated_dims != theirs.rope.rotated_dims) return Differs("rope.rotated_dims");
  }
  if (model.separators != theirs.separators) return Differs("separator_token_ids");
  if (model.vocabulary_size != theirs.vocabulary_size) return Differs("vocabulary_size");
  return absl::OkStatus();
}

std::shared_ptr<const Snapshot> Snapshot::Cut(uint64_t at) const {
  KVASIR_CHECK(first_rows <= at && at <= rows, "a snapshot is cut where it cannot be: rows={}", at);
  auto cut = std::make_shared<Snapshot>();
  static_cast<SnapshotFacts&>(*cut) = *this;
  cut->next.reset();  // there is none where every row stays
  cut->rows = at;
  cut->tokens_base = std::min(at, tokens_base);
  cut->tokens.resize(at - cut->tokens_base);
  if (chain && at < rows) {
    if (at % kChunkTokens == 0) {
      cut->chain->Truncate(at, {});
    } else {
      cut->chain.reset();
    }
  }
  cut->table.from_row = std::min(table.from_row, at);
  for (size_t i = 0; i < lanes.size(); ++i) {
    std::unique_ptr<RetentionPolicy> policy = lanes[i].policy->Clone();
    const absl::Status truncated = policy->Truncate(at);
    KVASIR_CHECK(truncated.ok(), "rows that all stay are not given up: rows={}", at);
    LaneTable& lane = cut->table.lanes[i];
    lane.kept = lane.kept.First(at);
    lane.spans = {{at, 0, kNoRow}};
    lane.recent_first = at;
    cut->lanes.push_back({lanes[i].kept_shapes,
                          lanes[i].records,
                          std::move(policy),
                          {},
                          at / slots_per_block,
                          nullptr,
                          {}});
  }
  if (stored != nullptr) cut->stored = stored->First(at);
  return cut;
}

std::shared_ptr<const Snapshot> Snapshot::WithGroups(
    const std::map<const KeptGroup*, std::shared_ptr<KeptGroup>>& replaced) const {
  return CopyWith(replaced);
}

std::shared_ptr<const Snapshot> Snapshot::MovedTo(
    DeviceMemory* to, const std::map<const KeptGroup*, std::shared_ptr<KeptGroup>>& replaced,
    std::vector<std::shared_ptr<const BlockList>> recent) const {
  std::shared_ptr<Snapshot> moved = CopyWith(replaced);
  moved->device = to;
  for (size_t i = 0; i < moved->lanes.size(); ++i) {
    moved->lanes[i].recent = std::move(recent[i]);
    moved->lanes[i].recent_promised.clear();
  }
  return moved;
}

std::shared_ptr<Snapshot> Snapshot::CopyWith(
    const std::map<const KeptGroup*, std::shared_ptr<KeptGroup>>& replaced) const {
  auto copy = std::make_shared<Snapshot>();
  static_cast<SnapshotFacts&>(*copy) = *this;
  const auto replace = [&](std::shared_ptr<KeptGroup>& group) {
    if (const auto found = replaced.find(group.get()); found != replaced.end()) {
      group = found->second;
    }
  };
  const auto replace_all = [&](TableVersion& version) {
    for (LaneTable& lane : version.lanes) {
      std::vector<KeptRun> runs = lane.kept.runs();
      for (KeptRun& run : runs) replace(run.group);
      lane.kept = KeptList::Of(std::move(runs));
      for (WindowRecord& record : lane.records) replace(record.group);
    }
  };
  replace_all(copy->table);
  if (copy->next) replace_all(*copy->next);
  for (const Lane& lane : lanes) {
    copy->lanes.push_back({lane.kept_shapes, lane.records, lane.policy->Clone(), lane.pending,
                           lane.base_block, lane.recent, lane.recent_promised});
  }
  return copy;
}

void Snapshot::AddSharedGroups(GroupSet* groups) const {
  AddGroups(table, groups);
  if (next) AddGroups(*next, groups);
}

uint64_t Snapshot::own_bytes() const {
  return own_bytes([](const GroupAllocator*) { return true; });
}

uint64_t Snapshot::own_bytes(const std::function<bool(const GroupAllocator*)>& owns) const {
  uint64_t bytes = 0;
  for (const Lane& lane : lanes) {
    if (lane.recent == nullptr || !owns(&lane.recent->allocator())) continue;
    bytes += lane.recent->bytes();
  }
  return bytes;
}

uint64_t Snapshot::held_bytes() const {
  GroupSet groups;
  AddSharedGroups(&groups);
  uint64_t bytes = own_bytes();
  for (const KeptGroup* group : groups) bytes += group->geometry().bytes;
  return bytes;
}

}  // namespace kvasir::core
