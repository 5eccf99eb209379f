#include "policies/infllm.h"

#include <limits>

#include "base/error.h"
#include "base/status_macros.h"
#include "policies/parameter_reader.h"

namespace kvasir {
namespace {

absl::StatusOr<PolicyLanes> MakeInfLlm(ParameterReader& reader) {
  constexpr uint64_t kNarrow = std::numeric_limits<uint32_t>::max();
  InfLlmConfig config;
  KVASIR_ASSIGN_OR_RETURN(config.n_init, reader.Integer("n_init", 0, kRowsMax));
  KVASIR_ASSIGN_OR_RETURN(config.n_local, reader.Integer("n_local", 2, kRowsMax));
  KVASIR_ASSIGN_OR_RETURN(config.block_size, reader.Integer("block_size", 1, kRowsMax));
  KVASIR_ASSIGN_OR_RETURN(const uint64_t topk, reader.Integer("topk", 1, kNarrow));
  KVASIR_ASSIGN_OR_RETURN(const uint64_t repr, reader.Integer("repr_topk", 1, kNarrow));
  KVASIR_ASSIGN_OR_RETURN(const uint64_t cached, reader.Integer("max_cached_block", 1, kNarrow));
  KVASIR_ASSIGN_OR_RETURN(config.exc_block_size, reader.Integer("exc_block_size", 1, kRowsMax));
  KVASIR_ASSIGN_OR_RETURN(const std::string strategy,
                          reader.Choice("cache_strategy", {"lru", "lru-s"}));
  KVASIR_ASSIGN_OR_RETURN(config.score_decay, reader.Fraction("score_decay"));
  config.topk = static_cast<uint32_t>(topk);
  config.repr_topk = static_cast<uint32_t>(repr);
  config.max_cached_block = static_cast<uint32_t>(cached);
  config.cache_strategy = strategy == "lru" ? CacheStrategy::kLru : CacheStrategy::kLruS;
  KVASIR_RETURN_IF_ERROR(CheckInfLlmConfig(config));
  PolicyLanes lanes = GroupLayers({}, reader.context().layers, [&](const LayerSettings&) {
    return std::make_unique<InfLlmPolicy>(config);
  });
  lanes.positions = PositionMode::kUnrotated;
  lanes.retrieval = config;
  return lanes;
}

}  // namespace

std::optional<RetentionPlan> InfLlmPolicy::LastTable() const {
  if (!started_) return std::nullopt;
  RetentionPlan plan;
  plan.window = config_.n_local;
  plan.far_position = config_.n_local - 1;
  plan.until_row = SealRow(sealed_);
  if (sealed_ == 0) return plan;
  plan.from_row = SealRow(sealed_ - 1);
  plan.recent_first = config_.n_init + sealed_ * config_.block_size;
  if (config_.n_init > 0) plan.spans.push_back({config_.n_init, 0, plan.far_position});
  return plan;
}

std::optional<RetentionPlan> InfLlmPolicy::NextPlan(const PlanHorizon&) {
  if (!started_) {
    started_ = true;
    return LastTable();
  }
  if (rows_ < SealRow(sealed_)) return std::nullopt;
  ++sealed_;
  RetentionPlan plan = *LastTable();
  plan.seal_last = plan.recent_first;
  plan.seal_first = plan.seal_last - config_.block_size;
  for (uint64_t row = 0; sealed_ == 1 && row < config_.n_init; ++row)
    plan.append.push_back({row, 0});
  return plan;
}

absl::Status InfLlmPolicy::Truncate(uint64_t rows) {
  if (rows > rows_) {
    return OutOfRange("truncation to a row not appended yet: rows={} max={}", rows, rows_);
  }
  if (rows < rows_) {
    return FailedPrecondition("truncation below the rollback floor: rows={} rollback_floor={}",
                              rows, rows_);
  }
  return absl::OkStatus();
}

ScoreNeeds InfLlmPolicy::Needs() const {
  ScoreNeeds needs;
  needs.source = ScoreSource::kLocalMass;
  return needs;
}

PolicyDefinition InfLlmDefinition() {
  return {
      {.name = "infllm",
       .summary = "the first tokens, a window, and blocks of the rest that queries look up",
       .source = "InfLLM, arXiv 2402.04617",
       .parameters =
           {{"n_init", "integer", "128", "0..1048576", "first tokens that stay in view", false},
            {"n_local", "integer", "4096", "2..16777216",
             "tokens of the window, the query's own included", false},
            {"block_size", "integer", "128", "1..65536", "tokens of a sealed block", false},
            {"topk", "integer", "16", "1..max_cached_block", "blocks that a lookup brings", false},
            {"repr_topk", "integer", "4", "1..block_size",
             "keys of a block, for each query head, of which its representative is the mean",
             false},
            {"max_cached_block", "integer", "32", "1..65536", "slots for blocks, in each layer",
             false},
            {"exc_block_size", "integer", "512", "1..n_local",
             "most queries that share a lookup: rows of a step", false},
            {"cache_strategy", "choice", "lru", "lru, lru-s",
             "which block leaves its slot: the least recently used, or the least attended", false},
            {"score_decay", "real", "0.1", "above 0, at most 1",
             "factor of a block's attention, for each step that follows (lru-s)", false}},
       .needs =
           "keys without rotation, attention mass of the window by query head, and a lookup in "
           "each layer of each step",
       .shareable = false,
       .accepts_rules = false},
      MakeInfLlm};
}

}  // namespace kvasir
