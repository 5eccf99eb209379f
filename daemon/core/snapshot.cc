#include "daemon/core/snapshot.h"

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

BlockList::~BlockList() {
  for (const Group& group : groups_) allocator_->Free(group);
}

absl::Status BlockList::Add() {
  KVASIR_ASSIGN_OR_RETURN(const Group group, allocator_->Allocate());
  groups_.push_back(group);
  return absl::OkStatus();
}

uint64_t BlockList::bytes() const {
  return groups_.empty() ? 0 : groups_.size() * allocator_->group_bytes();
}

absl::Status Snapshot::CheckModel(const Model& other) const {
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

void Snapshot::AddSharedGroups(std::set<const KeptGroup*>* groups) const {
  AddGroups(table, groups);
  if (next) AddGroups(*next, groups);
}

uint64_t Snapshot::own_bytes() const {
  uint64_t bytes = 0;
  for (const Lane& lane : lanes) bytes += lane.recent.bytes();
  return bytes;
}

uint64_t Snapshot::held_bytes() const {
  std::set<const KeptGroup*> groups;
  AddSharedGroups(&groups);
  uint64_t bytes = own_bytes();
  for (const KeptGroup* group : groups) bytes += group->geometry().bytes;
  return bytes;
}

}  // namespace kvasir::core
