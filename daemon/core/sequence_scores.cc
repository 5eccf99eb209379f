// Lanes of a sequence: what their policies want to be told, and decisions by it.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/sequence.h"

namespace kvasir::core {
namespace {

// Of all lanes of a sequence; they are cleared under the core's lock when it opens.
constexpr uint64_t kReportBytesMax = 512 << 20;

uint32_t SumOfKvHeads(const Lane& lane) {
  uint32_t sum = 0;
  for (const HeadShape& layer : lane.heads) sum += layer.kv_heads;
  return sum;
}

shm::ReportShape ReportShapeOf(const Lane& lane, std::optional<uint32_t> filter_layer,
                               const std::optional<InfLlmConfig>& retrieval) {
  shm::ReportShape shape;
  if (filter_layer) {  // one query, summed over the query heads of each group
    shape.query_rows = 1;
    for (size_t i = 0; i < lane.layers.size(); ++i) {
      const HeadShape& layer = lane.heads[i];
      shape.query_floats.push_back(lane.layers[i] == *filter_layer ? layer.kv_heads * layer.k_dim
                                                                   : 0);
    }
    return shape;
  }
  if (lane.needs.source == ScoreSource::kAttentionMass) {
    shape.mass_sets = SumOfKvHeads(lane);
    shape.kept_rows_max = lane.needs.kept_rows_max;
  }
  if (retrieval) {  // mass by query head; one query, and the mass of the blocks behind it
    for (const HeadShape& layer : lane.heads) {
      shape.mass_sets += layer.query_heads;
      shape.query_floats.push_back(layer.query_heads * layer.k_dim + retrieval->topk);
    }
    shape.query_rows = 1;
  }
  if (lane.needs.source == ScoreSource::kWindowQueries) {
    shape.query_rows = lane.needs.window_size;
    for (const HeadShape& layer : lane.heads) {
      shape.query_floats.push_back(layer.query_heads * layer.k_dim);
    }
  }
  return shape;
}

}  // namespace

absl::Status Sequence::MakeLanes(PolicyLanes lanes) {
  uint64_t report_bytes = 0;
  const Model& model = *context_.model;
  const ModelDescription& description = model.description();
  positions_ = lanes.positions;
  lanes_.resize(lanes.lanes.size());
  for (uint32_t layer = 0; layer < model.layers(); ++layer) {
    lanes_[lanes.lane_of_layer[layer]].layers.push_back(layer);
  }
  for (size_t i = 0; i < lanes_.size(); ++i) {
    Lane& lane = lanes_[i];
    lane.policy = std::move(lanes.lanes[i]);
    lane.needs = lane.policy->Needs();
    std::vector<shm::LayerRowBytes> bytes;
    for (const uint32_t layer : lane.layers) {
      bytes.push_back(model.row_bytes()[layer]);
      const LayerShape& shape = description.layers[layer];
      lane.heads.push_back(
          {description.dtype, shape.kv_heads, shape.query_heads, shape.k_head_dim});
      lane.rope.layers.push_back({description.dtype, description.rope.pairing, shape.kv_heads,
                                  shape.k_head_dim, description.rope.rotated_dims,
                                  description.rope.theta});
    }
    const bool scored =
        lane.needs.source != ScoreSource::kNone && lane.needs.source != ScoreSource::kLocalMass;
    shm::TrailerShape recent;
    lane.report_geometry =
        shm::MakeReportGeometry(ReportShapeOf(lane, filter_layer(), lanes.retrieval));
    report_bytes += lane.report_geometry.bytes;
    if (report_bytes > kReportBytesMax) {
      return InvalidArgument(
          "retention asks for more reports than a sequence may have: bytes={} max={} retention={}",
          report_bytes, kReportBytesMax, identity_.retention);
    }
    recent.mass_sets = lane.report_geometry.shape.mass_sets;
    lane.rope.rotate = lanes.positions == PositionMode::kInCache;
    lane.rope.heads_keep_own = scored && !lane.needs.shared_across_heads;
    const uint32_t slots = model.slots_per_block();
    lane.recent_block = shm::MakeGroupGeometry(bytes, slots, recent);
    KVASIR_ASSIGN_OR_RETURN(KeptShapes shapes,
                            KeptShapesFor(model, lane.layers, *lane.policy, lanes.encoding));
    lane.kept_shapes = std::make_shared<const KeptShapes>(std::move(shapes));
    lane.recent_allocator = &context_.recent_rows->For(lane.recent_block);
    SetKeptSizes(lane);
  }
  return absl::OkStatus();
}

absl::Status Sequence::AllocateReports() {
  for (Lane& lane : lanes_) {
    const shm::ReportGeometry& geometry = lane.report_geometry;
    if (geometry.bytes == 0) continue;
    KVASIR_ASSIGN_OR_RETURN(lane.report, context_.recent->For(geometry.bytes).Allocate());
    KVASIR_ASSIGN_OR_RETURN(lane.report_extent, context_.extents->RefOf(*lane.report.extent));
    std::byte* const base = lane.report.data();
    std::memset(base, 0, geometry.bytes);
    // Not a number until the engine writes it: a missing query is an error and not a bad choice.
    for (size_t i = 0; i < geometry.query_off.size(); ++i) {
      std::memset(base + geometry.query_off[i], 0xFF,
                  size_t{4} * geometry.shape.query_floats[i] * geometry.shape.query_rows);
    }
  }
  return absl::OkStatus();
}

std::vector<LaneReport> Sequence::Reports() const {
  std::vector<LaneReport> reports;
  for (const Lane& lane : lanes_) reports.push_back({&lane, lane.report_extent});
  return reports;
}

LaneScoring Sequence::ScoringOf(size_t index) const {
  const Lane& lane = lanes_[index];
  const LaneTable& table = current_.lanes[index];
  LaneScoring scoring;
  scoring.lane = index;
  scoring.selector = lane.policy->Waiting();
  scoring.needs = lane.needs;
  scoring.layers = lane.heads;
  scoring.kept = table.kept.runs();
  scoring.kept_rows = table.kept.rows();
  for (const Group& group : lane.recent) scoring.recent.push_back(group.data());
  scoring.recent_geometry = &lane.recent_block;
  scoring.recent_base = lane.base_block * lane.recent_block.slots;
  scoring.recent_first = table.recent_first;
  scoring.end = lane.policy->DecisionRow();
  for (uint64_t row = scoring.recent_first; row < scoring.end; ++row) {
    scoring.ids.push_back(TokenOf(row));
  }
  if (lane.report) scoring.report = lane.report.data();
  scoring.report_geometry = &lane.report_geometry;
  scoring.base = table.base;
  scoring.tokens = scoring.end - table.from_row;
  scoring.abandoned = abandoned_;
  return scoring;
}

bool Sequence::StartScoring() {
  auto job = std::make_unique<SequenceJob>();
  job->sequence_id = identity_.id;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    // Plans that come before the decision have to be in use first: scores are of the table's rows.
    if (lanes_[i].pending.empty() && lanes_[i].policy->Waiting() != nullptr) {
      job->scorings.push_back(ScoringOf(i));
    }
  }
  if (job->scorings.empty()) return false;
  scoring_ = true;
  job_ = std::move(job);
  return true;
}

void Sequence::DecideByScores(SequenceJob& job) {
  scoring_ = false;
  for (LaneScoring& scoring : job.scorings) {
    if (!scoring.status.ok()) {
      failure_ = scoring.status;
      return;
    }
  }
  for (LaneScoring& scoring : job.scorings) {
    Lane& lane = lanes_[scoring.lane];
    if (lane.needs.source == ScoreSource::kAttentionMass) {
      lane.next_base = std::make_shared<std::vector<float>>(std::move(scoring.base_of_kept));
    }
    lane.policy->Decide(std::move(scoring.keep));
  }
}

}  // namespace kvasir::core
