#include "policies/window_policies.h"

#include "base/bytes.h"
#include "base/status_macros.h"
#include "policies/parameter_reader.h"

namespace kvasir {

std::optional<RetentionPlan> FullPolicy::NextPlan(const PlanHorizon&) {
  if (returned_) return std::nullopt;
  returned_ = true;
  return RetentionPlan{};
}

absl::Status FullPolicy::Truncate(uint64_t rows) {
  KVASIR_RETURN_IF_ERROR(PlanLedger().CheckTruncate(rows_, rows));
  rows_ = rows;
  return absl::OkStatus();
}

void StreamingLlmPolicy::Append(std::span<const TokenId> ids) {
  rows_ += ids.size();
  ledger_.Reached(rows_);
}

RetentionPlan StreamingLlmPolicy::Windowed(uint64_t from_row, uint64_t recent_first) {
  RetentionPlan plan;
  plan.from_row = from_row;
  plan.recent_first = recent_first_ = recent_first;
  plan.window = config_.recent_size;
  if (config_.start_size > 0) {
    const uint64_t last = config_.start_size + config_.recent_size - 1;
    plan.spans.push_back({config_.start_size, 0, config_.in_cache ? last : kNoRow});
  }
  ledger_.Returned(plan);
  return plan;
}

std::optional<RetentionPlan> StreamingLlmPolicy::NextPlan(const PlanHorizon& horizon) {
  const uint64_t full = config_.start_size + config_.recent_size;
  if (phase_ == Phase::kStart) {
    phase_ = Phase::kAllVisible;
    RetentionPlan plan;
    plan.until_row = full;
    ledger_.Returned(plan);
    return plan;
  }
  if (phase_ == Phase::kAllVisible) {
    if (rows_ + horizon.lead_rows < full || rows_ < config_.start_size) return std::nullopt;
    phase_ = Phase::kWindowed;
    RetentionPlan plan = Windowed(full, config_.start_size);
    for (uint64_t row = 0; row < config_.start_size; ++row) plan.append.push_back({row, row});
    return plan;
  }
  if (rows_ < full) return std::nullopt;
  const uint64_t first = RoundDown(rows_ + 1 - config_.recent_size, horizon.slots_per_block);
  if (first <= recent_first_) return std::nullopt;
  const uint64_t from_row = first + config_.recent_size - 1;
  return Windowed(from_row < full ? full : from_row, first);
}

absl::Status StreamingLlmPolicy::Truncate(uint64_t rows) {
  KVASIR_RETURN_IF_ERROR(ledger_.CheckTruncate(rows_, rows));
  rows_ = rows;
  return absl::OkStatus();
}

namespace {

absl::StatusOr<PolicyLanes> MakeFull(ParameterReader& reader) {
  // Nothing that is always so is written: "full" is the canonical text.
  PositionMode positions = PositionMode::kOriginal;
  if (reader.Value("positions") != "original") {
    KVASIR_ASSIGN_OR_RETURN(positions, reader.Positions(/*in_cache=*/false));
  }
  PolicyLanes lanes = GroupLayers({}, reader.context().layers, [](const LayerSettings&) {
    return std::make_unique<FullPolicy>();
  });
  lanes.positions = positions;
  return lanes;
}

absl::StatusOr<PolicyLanes> MakeStreamingLlm(ParameterReader& reader) {
  KVASIR_ASSIGN_OR_RETURN(LayerSettings start, reader.PerLayer("start_size", 0));
  KVASIR_ASSIGN_OR_RETURN(LayerSettings recent, reader.PerLayer("recent_size", 1));
  KVASIR_ASSIGN_OR_RETURN(const PositionMode positions, reader.Positions(/*in_cache=*/true));
  const bool in_cache = positions == PositionMode::kInCache;
  PolicyLanes lanes =
      GroupLayers({start, recent}, reader.context().layers, [&](const LayerSettings& s) {
        return std::make_unique<StreamingLlmPolicy>(StreamingLlmConfig{s[0], s[1], in_cache});
      });
  lanes.positions = positions;
  return lanes;
}

}  // namespace

PolicyDefinition FullDefinition() {
  return {{.name = "full",
           .summary = "every token stays",
           .source = "",
           .parameters = {PositionsParameter()},
           .needs = "nothing; positions=unrotated: rotation at each read",
           .shareable = true,
           .accepts_rules = false},
          MakeFull};
}

PolicyDefinition StreamingLlmDefinition() {
  return {
      {.name = "streamingllm",
       .summary = "the first tokens and the most recent ones",
       .source = "StreamingLLM, arXiv 2309.17453",
       .parameters =
           {{"start_size", "integer", "4", kCountFromZeroBounds, "initial tokens that stay", true},
            {"recent_size", "integer", "512", kCountBounds,
             "most recent tokens that are visible, the query's own included", true},
            {"positions", "choice", "in_cache", "original, in_cache, unrotated",
             "positions of keys: of the text, or indices in the cache; unrotated: of the text, "
             "rotated at each read",
             false}},
       .needs = "positions=in_cache: a second rotation of the query; positions=unrotated: "
                "rotation at each read",
       .shareable = true,
       .accepts_rules = false},
      MakeStreamingLlm};
}

}  // namespace kvasir
