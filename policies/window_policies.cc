#include "policies/window_policies.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/status_macros.h"
#include "policies/parameter_reader.h"
#include "policies/policy_state.h"

namespace kvasir {

std::optional<RetentionPlan> FullPolicy::NextPlan(const PlanHorizon&) {
  if (returned_) return std::nullopt;
  returned_ = true;
  return RetentionPlan{};
}

std::optional<RetentionPlan> FullPolicy::LastTable() const {
  return returned_ ? std::optional(RetentionPlan{}) : std::nullopt;
}

absl::Status FullPolicy::WriteState(StateWriter& writer) const {
  WriteIdentity({"full", {}}, writer);
  writer.Flag(returned_);
  return absl::OkStatus();
}

absl::Status FullPolicy::ReadState(StateReader& reader, uint64_t rows) {
  ExpectIdentity({"full", {}}, reader);
  const bool returned = reader.Flag("returned");
  KVASIR_RETURN_IF_ERROR(reader.Finish());
  rows_ = rows;
  returned_ = returned;
  return absl::OkStatus();
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

std::optional<RetentionPlan> StreamingLlmPolicy::LastTable() const {
  if (phase_ == Phase::kStart) return std::nullopt;
  RetentionPlan plan;
  if (phase_ == Phase::kAllVisible) {
    plan.until_row = FullRow();
    return plan;
  }
  plan.from_row = std::max(FullRow(), recent_first_ + config_.recent_size - 1);
  plan.recent_first = recent_first_;
  plan.window = config_.recent_size;
  if (config_.start_size > 0) {
    plan.spans.push_back({config_.start_size, 0, config_.in_cache ? FullRow() - 1 : kNoRow});
  }
  return plan;
}

RetentionPlan StreamingLlmPolicy::Windowed(uint64_t recent_first) {
  phase_ = Phase::kWindowed;
  recent_first_ = recent_first;
  RetentionPlan plan = *LastTable();
  ledger_.Returned(plan);
  return plan;
}

std::optional<RetentionPlan> StreamingLlmPolicy::NextPlan(const PlanHorizon& horizon) {
  if (phase_ == Phase::kStart) {
    phase_ = Phase::kAllVisible;
    ledger_.Returned(*LastTable());
    return LastTable();
  }
  if (phase_ == Phase::kAllVisible) {
    if (rows_ + horizon.lead_rows < FullRow() || rows_ < config_.start_size) return std::nullopt;
    RetentionPlan plan = Windowed(config_.start_size);
    for (uint64_t row = 0; row < config_.start_size; ++row) plan.append.push_back({row, row});
    return plan;
  }
  if (rows_ < FullRow()) return std::nullopt;
  const uint64_t first = RoundDown(rows_ + 1 - config_.recent_size, horizon.slots_per_block);
  if (first <= recent_first_) return std::nullopt;
  return Windowed(first);
}

StateIdentity StreamingLlmPolicy::Identity() const {
  return {"streamingllm",
          {{"start_size", config_.start_size},
           {"recent_size", config_.recent_size},
           {"in_cache", config_.in_cache ? 1U : 0U}}};
}

absl::Status StreamingLlmPolicy::WriteState(StateWriter& writer) const {
  WriteIdentity(Identity(), writer);
  writer.Number(static_cast<uint64_t>(phase_));
  writer.Number(recent_first_);
  return absl::OkStatus();
}

absl::Status StreamingLlmPolicy::ReadState(StateReader& reader, uint64_t rows) {
  ExpectIdentity(Identity(), reader);
  StreamingLlmPolicy read(config_);
  read.rows_ = rows;
  read.phase_ =
      static_cast<Phase>(reader.Number("phase", 0, static_cast<uint64_t>(Phase::kWindowed)));
  // The initial rows are kept from the first window on, which goes on where rows have left it.
  const bool windowed = read.phase_ == Phase::kWindowed;
  const uint64_t low =
      rows < FullRow() ? std::min(rows, config_.start_size) : rows + 1 - config_.recent_size;
  read.recent_first_ =
      reader.Number("recent_first", windowed ? config_.start_size : 0, windowed ? low : 0);
  KVASIR_RETURN_IF_ERROR(reader.Finish());
  // What was returned follows from the last table: before it, only the one that shows all rows
  // can still be in use.
  if (windowed) read.ledger_.Returned(RetentionPlan());
  if (const std::optional<RetentionPlan> table = read.LastTable()) read.ledger_.Returned(*table);
  read.ledger_.Reached(rows);
  *this = std::move(read);
  return absl::OkStatus();
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
