// Retrieval policies: blocks are sealed out of the table, and looked up while a step is computed.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/sequence.h"

namespace kvasir::core {

absl::Status Sequence::MakeRetrieval(const std::optional<InfLlmConfig>& config) {
  if (!config) return absl::OkStatus();
  const ModelDescription& model = context_.model->description();
  std::vector<shm::GroupGeometry> slots;
  std::vector<GroupAllocator*> allocators;
  std::vector<uint64_t> representatives;
  uint64_t representative_bytes = 0;  // the bound on reports holds for queries, which are as long
  const auto block_rows = static_cast<uint32_t>(config->block_size);
  for (size_t layer = 0; layer < model.layers.size(); ++layer) {
    if (model.layers[layer].sliding_window > 0) {
      return InvalidArgument(
          "retrieval needs full attention in every layer: layer={} sliding_window={}", layer,
          model.layers[layer].sliding_window);
    }
    const std::vector<shm::LayerRowBytes> bytes = {context_.model->row_bytes()[layer]};
    slots.push_back(shm::MakeGroupGeometry(bytes, block_rows));
    allocators.push_back(&context_.tenant->kept.For(slots.back().bytes));
    representatives.push_back(representative_bytes);
    representative_bytes +=
        uint64_t{4} * model.layers[layer].query_heads * model.layers[layer].k_head_dim;
  }
  const auto sets = static_cast<uint32_t>(DivideUp(representative_bytes, uint64_t{4} * block_rows));
  block_geometry_ = shm::MakeGroupGeometry(context_.model->row_bytes(), block_rows, {1, sets});
  KVASIR_ASSIGN_OR_RETURN(
      retrieval_, Retrieval::Create(*config, slots, std::move(allocators), representatives));
  return absl::OkStatus();
}

absl::StatusOr<BlockSealing> Sequence::Seal(const Lane& lane, const RetentionPlan& plan,
                                            std::vector<GroupFill>* fills) {
  if (retrieval_ == nullptr || plan.seal_last - plan.seal_first != block_geometry_.slots) {
    return Internal("plan seals a block of the wrong size: rows={} expected={}",
                    plan.seal_last - plan.seal_first, block_geometry_.slots);
  }
  GroupAllocator& allocator = context_.tenant->outside.For(block_geometry_.bytes);
  KVASIR_ASSIGN_OR_RETURN(const Group group, allocator.Allocate());
  GroupFill fill{std::make_shared<KeptGroup>(group, block_geometry_, allocator), {}};
  for (uint64_t row = plan.seal_first; row < plan.seal_last; ++row) {
    KVASIR_ASSIGN_OR_RETURN(const IncomingRow incoming, Incoming(lane, {row, 0}));
    fill.group->slots.push_back(incoming.slot);
    fill.sources.push_back(incoming.source);
  }
  BlockSealing sealing;
  sealing.block = fill.group;
  sealing.layers = lane.heads;
  for (const Group& block : lane.recent) sealing.recent.push_back(block.data());
  sealing.recent_geometry = &lane.recent_block;
  sealing.recent_base = lane.base_block * lane.recent_block.slots;
  sealing.first = plan.seal_first;
  sealing.last = plan.seal_last;
  sealing.repr_topk = retrieval_->config().repr_topk;
  fills->push_back(std::move(fill));
  return sealing;
}

absl::StatusOr<std::optional<std::vector<Sequence::RetrievedBlock>>> Sequence::Retrieve(
    uint32_t layer, uint64_t mass_blocks, bool* asked) {
  if (retrieval_ == nullptr) {
    return FailedPrecondition("the sequence's policy retrieves no blocks: retention={}",
                              identity_.retention);
  }
  if (layer >= context_.model->layers()) {
    return InvalidArgument("layer is out of bounds: value={} max={}", layer,
                           context_.model->layers() - 1);
  }
  KVASIR_RETURN_IF_ERROR(failure_);
  if (retrieval_->blocks() == 0) return std::vector<RetrievedBlock>();
  if (!*asked || !found_ || found_->layer != layer) {
    found_.reset();
    KVASIR_RETURN_IF_ERROR(StartLookup(layer, mass_blocks));
    *asked = true;
    return std::nullopt;
  }
  const BlockLookup found = *std::exchange(found_, std::nullopt);
  KVASIR_RETURN_IF_ERROR(found.status);
  std::vector<RetrievedBlock> blocks;
  for (size_t i = 0; i < found.blocks.size(); ++i) {
    const Group& slot = retrieval_->Slot(layer, found.slots[i]);
    KVASIR_ASSIGN_OR_RETURN(const ExtentTable::Ref ref, context_.extents->RefOf(*slot.extent));
    blocks.push_back({found.blocks[i], ref, slot.offset});
  }
  return blocks;
}

absl::Status Sequence::StartLookup(uint32_t layer, uint64_t mass_blocks) {
  const size_t last = retrieval_->last(layer).size();
  if (mass_blocks != 0 && mass_blocks != last) {
    return InvalidArgument(
        "mass_blocks is not the number of blocks of the last lookup: value={} "
        "expected={}",
        mass_blocks, last);
  }
  KVASIR_RETURN_IF_ERROR(retrieval_->PrepareSlots(layer));
  const Lane& lane = lanes_.front();  // one lane: every layer, in order
  const HeadShape& heads = lane.heads[layer];
  BlockLookup lookup;
  lookup.retrieval = retrieval_.get();
  lookup.layer = layer;
  lookup.query.resize(size_t{heads.query_heads} * heads.k_dim);
  lookup.mass.resize(mass_blocks);
  const std::byte* const report = lane.report.data() + lane.report_geometry.query_off[layer];
  std::memcpy(lookup.query.data(), report, 4 * lookup.query.size());
  if (mass_blocks > 0) {
    std::memcpy(lookup.mass.data(), report + 4 * lookup.query.size(), 4 * mass_blocks);
  }
  auto job = std::make_unique<SequenceJob>();
  job->sequence_id = identity_.id;
  job->lookup = std::move(lookup);
  looking_up_ = true;
  job_ = std::move(job);
  return absl::OkStatus();
}

}  // namespace kvasir::core
