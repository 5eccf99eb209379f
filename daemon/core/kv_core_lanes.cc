// What a sequence's lanes are made of: its retention, resolved for its model.
#include <algorithm>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include <absl/strings/escaping.h>

#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/kv_core.h"
#include "policies/policy_registry.h"
#include "policies/policy_spec.h"

#include <fmt/format.h>

namespace kvasir::core {
namespace {

const char* NameOf(kernels::RowType type) {
  switch (type) {
    case kernels::RowType::kF16:
      return "f16";
    case kernels::RowType::kBF16:
      return "bf16";
    case kernels::RowType::kF32:
      return "f32";
    case kernels::RowType::kE4M3:
      break;
  }
  return "e4m3";
}

// Layers whose attention has a sliding window of its own see that window and nothing else, whatever
// the retention spec says: it is for the layers with full attention. One lane for each window.
absl::Status GiveSlidingLayersTheirWindow(const Model& model, const PolicyContext& context,
                                          PolicyLanes* lanes) {
  std::map<uint32_t, uint32_t> lane_of_window;
  for (uint32_t layer = 0; layer < model.layers(); ++layer) {
    const uint32_t window = model.description().layers[layer].sliding_window;
    if (window == 0) continue;
    const auto [place, added] =
        lane_of_window.emplace(window, static_cast<uint32_t>(lanes->lanes.size()));
    if (added) {
      PolicyContext one = context;
      one.layers = 1;
      KVASIR_ASSIGN_OR_RETURN(
          PolicyLanes made,
          MakeLanes(
              fmt::format("streamingllm:start_size=0,recent_size={},positions=original", window),
              one));
      lanes->lanes.push_back(std::move(made.lanes.front()));
    }
    lanes->lane_of_layer[layer] = place->second;
  }
  // Lanes that lost all their layers go.
  std::vector<uint32_t> renamed(lanes->lanes.size());
  std::vector<std::unique_ptr<RetentionPolicy>> used;
  for (uint32_t lane = 0; lane < lanes->lanes.size(); ++lane) {
    const auto& of_layer = lanes->lane_of_layer;
    renamed[lane] = static_cast<uint32_t>(used.size());
    if (std::find(of_layer.begin(), of_layer.end(), lane) == of_layer.end()) continue;
    used.push_back(std::move(lanes->lanes[lane]));
  }
  for (uint32_t& lane : lanes->lane_of_layer) lane = renamed[lane];
  lanes->lanes = std::move(used);
  return absl::OkStatus();
}

// The model says enough for what the policies want to be told.
absl::Status CheckNeeds(const Model& model, const PolicyLanes& lanes) {
  for (uint32_t layer = 0; layer < model.layers(); ++layer) {
    const ScoreNeeds needs = lanes.lanes[lanes.lane_of_layer[layer]]->Needs();
    if ((needs.source == ScoreSource::kWindowQueries || needs.source == ScoreSource::kLocalMass) &&
        model.description().layers[layer].query_heads == 0) {
      return InvalidArgument(
          "retention needs queries, so the model has to say layers[{}].query_heads: retention={}",
          layer, lanes.spec);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PolicyLanes> KvCore::LanesFor(const Tenant& tenant, const Model& model,
                                             const std::shared_ptr<const ModelProfile>& profile,
                                             const OpenRequest& request) const {
  const std::string& text = request.retention.empty() ? tenant.config.retention : request.retention;
  PolicyContext policy_context;
  policy_context.layers = model.layers();
  policy_context.separators = model.description().separators;
  policy_context.prompt_rows = request.prompt_rows;
  policy_context.dtype = NameOf(model.description().dtype);
  if (profile != nullptr) policy_context.profile = profile->digest;
  KVASIR_ASSIGN_OR_RETURN(PolicyLanes lanes, MakeLanes(text, policy_context));
  // Who asks for nothing must not be refused for what it was given.
  if (lanes.encoding && !request.reads_records && request.retention.empty()) {
    KVASIR_ASSIGN_OR_RETURN(lanes, MakeLanes(WithoutEncoding(text), policy_context));
  }
  KVASIR_RETURN_IF_ERROR(GiveSlidingLayersTheirWindow(model, policy_context, &lanes));
  KVASIR_RETURN_IF_ERROR(CheckNeeds(model, lanes));
  if (lanes.encoding && !request.reads_records) {
    return FailedPrecondition("the engine does not read encoded rows: retention={}", lanes.spec);
  }
  if (lanes.lanes.size() > config_.session_limits.lanes_max) {
    return ResourceExhausted("retention has too many lanes: lanes={} limits.lanes_max={}",
                             lanes.lanes.size(), config_.session_limits.lanes_max);
  }
  if (lanes.positions == PositionMode::kInCache && !model.description().rope.present) {
    return InvalidArgument("positions=in_cache needs the model's rope: retention={}", text);
  }
  return lanes;
}

absl::StatusOr<PolicyLanes> KvCore::LanesOf(const Tenant& tenant, const Model& model,
                                            const std::shared_ptr<const ModelProfile>& profile,
                                            const SnapshotFacts& facts) const {
  OpenRequest request;
  request.retention = facts.retention;
  request.prompt_rows = facts.prefill_rows;
  request.reads_records = true;
  return LanesFor(tenant, model, profile, request);
}

absl::StatusOr<std::shared_ptr<const ModelProfile>> KvCore::ProfileOf(const Model& model) const {
  const std::string digest = absl::BytesToHexString(model.description().weights_digest);
  for (const std::shared_ptr<const ModelProfile>& profile : config_.profiles) {
    if (profile->weights_digest != digest) continue;
    KVASIR_RETURN_IF_ERROR(CheckProfileFits(*profile, model.description()));
    return profile;
  }
  return nullptr;
}

}  // namespace kvasir::core
