// Calls by which a sequence asks for rows: a selection among a prompt, and retrieval of blocks.
#include <algorithm>
#include <cstring>

#include "base/status_macros.h"
#include "client/sequence_state.h"

namespace kvasir {

absl::StatusOr<std::vector<uint32_t>> SequenceState::SelectRows(std::span<const float> query) {
  if (closed_) return FailedPrecondition("the sequence is closed: id={}", id_);
  if (!filter_layer_) {
    return FailedPrecondition("the sequence's policy selects no rows: retention={}", retention_);
  }
  LaneViews& lane = lanes_[lane_of_layer_[*filter_layer_]];
  const auto in_lane = static_cast<size_t>(
      std::find(lane.layers.begin(), lane.layers.end(), *filter_layer_) - lane.layers.begin());
  const shm::ReportGeometry& geometry = lane.report_geometry;
  if (lane.report == nullptr || query.size() != geometry.shape.query_floats[in_lane]) {
    return InvalidArgument("query has the wrong size: floats={} expected={}", query.size(),
                           lane.report == nullptr ? 0 : geometry.shape.query_floats[in_lane]);
  }
  std::memcpy(lane.report + geometry.query_off[in_lane], query.data(), query.size_bytes());
  WriteDesk();  // the rows it chooses from
  v1::SelectRowsRequest request;
  request.set_sequence(slot_);
  request.set_uid(uid_);
  v1::SelectRowsResponse response;
  KVASIR_RETURN_IF_ERROR(
      session_->channel->Call(&v1::KvCache::Stub::SelectRows, request, &response));
  KVASIR_RETURN_IF_ERROR(StartOver(0, response.uid()));
  return std::vector<uint32_t>(response.rows().begin(), response.rows().end());
}

absl::StatusOr<std::span<const KeptRunView>> SequenceState::Retrieve(uint32_t layer,
                                                                     std::span<const float> query,
                                                                     std::span<const float> mass) {
  if (!retrieves()) {
    return FailedPrecondition("the sequence's policy retrieves no blocks: retention={}",
                              retention_);
  }
  if (begun_ == 0) return FailedPrecondition("no step is begun: id={}", id_);
  const uint32_t layers = static_cast<uint32_t>(layers_.size());
  if (layer >= layers) {
    return InvalidArgument("layer is out of bounds: value={} max={}", layer, layers - 1);
  }
  const size_t floats = size_t{model_.query_heads[layer]} * model_.k_head_dim[layer];
  std::vector<KeptRunView>& views = retrieved_[layer];
  if (query.size() != floats || (!mass.empty() && mass.size() != views.size())) {
    return InvalidArgument(
        "query or mass has the wrong size: query={} expected={} mass={} blocks_of_last={}",
        query.size(), floats, mass.size(), views.size());
  }
  LaneViews& lane = lanes_.front();
  const shm::ReportGeometry& geometry = lane.report_geometry;
  if (lane.report == nullptr || geometry.shape.query_floats[layer] < query.size() + mass.size()) {
    return DataLoss("the daemon gave no room for a query: layer={} floats={}", layer, floats);
  }
  std::byte* const report = lane.report + geometry.query_off[layer];
  std::memcpy(report, query.data(), query.size_bytes());
  if (!mass.empty()) std::memcpy(report + query.size_bytes(), mass.data(), mass.size_bytes());
  KVASIR_ASSIGN_OR_RETURN(const std::vector<shm::RetrievedBlockRecord> blocks,
                          CallRetrieve(layer, mass.size()));
  views.clear();
  const std::vector<shm::LayerRowBytes> bytes = {model_.row_bytes[layer]};
  const shm::GroupGeometry slot = shm::MakeGroupGeometry(bytes, retrieved_rows_);
  for (const shm::RetrievedBlockRecord& block : blocks) {
    KVASIR_ASSIGN_OR_RETURN(const std::byte* const base,
                            session_->extents->At(block.extent, block.generation, block.offset,
                                                  slot.bytes, session_->DeadlineFromNow()));
    KeptRunView view;
    view.k = base + slot.k_off[0];
    view.v = base + slot.v_off[0];
    view.rows = retrieved_rows_;
    view.k_stride = bytes[0].k;
    view.v_stride = bytes[0].v;
    view.query_max = far_position_;
    view.positions = reinterpret_cast<const uint32_t*>(base + slot.pos_off);
    view.tokens = reinterpret_cast<const uint32_t*>(base + slot.tok_off);
    views.push_back(view);
  }
  return std::span<const KeptRunView>(views);
}

}  // namespace kvasir
