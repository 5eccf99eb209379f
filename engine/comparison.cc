#include "engine/comparison.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "engine/compare_score.h"
#include "engine/far_blocks.h"
#include "engine/held_bytes.h"

namespace kvasir::engine {
namespace {

constexpr char kBase[] = "full";

// Bytes are looked at before every so many rows: a prime that divides no size of a block or record,
// so that every place in them is seen as often.
constexpr size_t kBytesEvery = 5;

double Mean(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// What a policy asks to be told of the step's queries, the same of every row.
void ReportEvenly(const StepView& step, uint32_t kv_heads, uint32_t query_heads) {
  for (const LayerView& view : step.layers) {
    const MassView& mass = view.mass;
    const uint32_t heads = mass.by_query_head ? query_heads : kv_heads;
    const uint64_t recent = step.row + step.count - view.recent_base;
    const float even = 1.0F / static_cast<float>(mass.kept_rows + recent);
    if (mass.kept != nullptr) std::fill_n(mass.kept, heads * mass.kept_rows, even);
    for (uint32_t head = 0; mass.recent != nullptr && head < heads; ++head) {
      std::fill_n(mass.recent + head * mass.recent_rows, recent, even);
    }
    for (uint64_t row = step.row; row < step.row + step.count; ++row) {
      float* query = view.queries.Of(row);
      if (query != nullptr) std::fill_n(query, view.queries.row_floats, even);
    }
  }
}

}  // namespace

// One sequence and what was found of it so far.
struct Comparison::Runner {
  std::unique_ptr<KvStore> store;
  std::unique_ptr<FarBlocks> far;
  std::string retention;
  std::vector<Distribution> distributions;  // of the last batch's scored queries
  std::vector<double> nll, kl;
  uint64_t agreements = 0;
  double seconds = 0;
};

// Rows [first, first + count) of the text; rows from `scored` to `scored_last` - 1 are scored.
struct Comparison::Batch {
  size_t first = 0, count = 0;
  size_t scored = 0, scored_last = 0;
};

absl::StatusOr<std::unique_ptr<Comparison::Runner>> Comparison::Open(const std::string& retention) {
  auto runner = std::make_unique<Runner>();
  runner->retention = retention;
  KVASIR_ASSIGN_OR_RETURN(runner->store, make_store_(retention));
  if (runner->store->filter_layer()) {
    return InvalidArgument("a text is scored as a whole, without a selection: retention={}",
                           retention);
  }
  runner->far = std::make_unique<FarBlocks>(*runner->store, engine_.model().parameters().layers);
  return runner;
}

absl::Status Comparison::Advance(Runner& runner, std::span<const uint32_t> tokens,
                                 const Batch& batch, Runner* base) {
  const size_t vocabulary = engine_.model().parameters().vocabulary;
  runner.distributions.clear();
  for (size_t at = batch.first; at < batch.first + batch.count;) {
    const auto start = std::chrono::steady_clock::now();
    KVASIR_ASSIGN_OR_RETURN(
        const StepView step,
        runner.store->Begin(static_cast<uint32_t>(batch.first + batch.count - at)));
    const auto rows = tokens.subspan(at, step.count);
    KVASIR_ASSIGN_OR_RETURN(const std::span<const float> logits,
                            engine_.Compute(rows, step, LogitsWanted::kAll, runner.far.get()));
    KVASIR_RETURN_IF_ERROR(runner.store->Commit(rows));
    runner.seconds +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    for (size_t t = 0; t < rows.size(); ++t) {
      const size_t row = at + t;
      if (row < batch.scored || row >= batch.scored_last) continue;
      runner.distributions.push_back(DistributionOf(logits.subspan(t * vocabulary, vocabulary)));
      const Distribution& mine = runner.distributions.back();
      runner.nll.push_back(-mine.log_probability[tokens[row + 1]]);
      if (base == nullptr) continue;
      const Distribution& theirs = base->distributions[runner.distributions.size() - 1];
      runner.kl.push_back(Divergence(theirs, mine));
      runner.agreements += theirs.greedy == mine.greedy ? 1 : 0;
    }
    at += rows.size();
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TextResult>> Comparison::Run(std::span<const uint32_t> tokens,
                                                        std::span<const std::string> retentions,
                                                        const ProgressCallback& progress) {
  if (tokens.size() < kCompareTokensMin) {
    return InvalidArgument("text is too short to compare on: tokens={} min={}", tokens.size(),
                           kCompareTokensMin);
  }
  std::vector<std::unique_ptr<Runner>> runners;
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<Runner> opened, Open(kBase));
  runners.push_back(std::move(opened));
  for (const std::string& retention : retentions) {
    KVASIR_ASSIGN_OR_RETURN(opened, Open(retention));
    runners.push_back(std::move(opened));
  }
  for (size_t first = 0; first < tokens.size(); first += batch_) {
    const Batch batch{.first = first,
                      .count = std::min<size_t>(batch_, tokens.size() - first),
                      .scored = tokens.size() / 4,
                      .scored_last = tokens.size() - 1};
    for (const std::unique_ptr<Runner>& runner : runners) {
      Runner* const base = runner == runners.front() ? nullptr : runners.front().get();
      KVASIR_RETURN_IF_ERROR(Advance(*runner, tokens, batch, base));
    }
    if (progress) progress(first + batch.count, tokens.size());
  }
  const Runner& base = *runners.front();
  std::vector<TextResult> results;
  for (const std::unique_ptr<Runner>& runner : runners) {
    TextResult result;
    result.retention = runner->retention;
    result.nll = Mean(runner->nll);
    std::vector<double> above(runner->nll);
    for (size_t i = 0; i < above.size(); ++i) above[i] -= base.nll[i];
    result.mean_nll_above_base = Mean(above);
    result.nll_above_base = BlockMeans(above);
    const bool is_base = runner == runners.front();
    result.kl = is_base ? 0 : Mean(runner->kl);
    result.top1 =
        is_base ? 1
                : static_cast<double>(runner->agreements) / static_cast<double>(runner->nll.size());
    result.ms_per_token = 1000 * runner->seconds / static_cast<double>(tokens.size());
    results.push_back(std::move(result));
    KVASIR_RETURN_IF_ERROR(runner->store->Close());
  }
  for (TextResult& result : results) {
    KVASIR_ASSIGN_OR_RETURN(result.bytes, Measure(tokens, result.retention));
    result.base_bytes = results.front().bytes;
  }
  return results;
}

absl::StatusOr<std::string> Comparison::Canonical(const std::string& retention) {
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<KvStore> store, make_store_(retention));
  std::string canonical = store->retention();
  KVASIR_RETURN_IF_ERROR(store->Close());
  return canonical;
}

absl::StatusOr<MeanBytes> Comparison::Measure(std::span<const uint32_t> tokens,
                                              const std::string& retention) {
  const HyperParameters& parameters = engine_.model().parameters();
  const size_t scored = tokens.size() / 4;
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<Runner> runner, Open(retention));
  KvStore& store = *runner->store;
  std::vector<double> held, needed;
  for (size_t row = 0; row + 1 < tokens.size();) {
    // A row at a time from where bytes count on: what is held changes with every one.
    const size_t want = row < scored ? std::min<size_t>(batch_, scored - row) : 1;
    KVASIR_ASSIGN_OR_RETURN(const StepView step, store.Begin(static_cast<uint32_t>(want)));
    if (row >= scored && row % kBytesEvery == 0) {
      needed.push_back(VisibleBytes(step, parameters.kv_heads, row));
      KVASIR_ASSIGN_OR_RETURN(const KvUsage usage, store.Usage());
      held.push_back(static_cast<double>(usage.held_bytes));
    }
    ReportEvenly(step, parameters.kv_heads, parameters.heads);
    KVASIR_RETURN_IF_ERROR(store.Commit(tokens.subspan(row, step.count)));
    row += step.count;
  }
  KVASIR_RETURN_IF_ERROR(store.Close());
  return MeanBytes{.held = Mean(held), .needed = Mean(needed)};
}

}  // namespace kvasir::engine
