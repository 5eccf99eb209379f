// What views may ask of the engine beside attention: its mass, query rows, unrotated keys. On
// random block tables, against a masked forward pass in double over all rows.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

#include <gmock/gmock.h>

#include "engine/forwarding_store.h"
#include "tests/engine/double_llama.h"
#include "tests/engine/engine_support.h"
#include "tests/engine/scripted_store.h"

#include <nlohmann/json.hpp>

namespace kvasir::engine::testing {
namespace {

using kernels::RowType;

constexpr size_t kTokens = 200;
constexpr uint64_t kQueryFirst = 70;
constexpr uint32_t kQueryCount = 50;

std::vector<uint32_t> Prose() {
  std::ifstream in(kTinyFixture);
  const nlohmann::json fixture = nlohmann::json::parse(in);
  auto ids = fixture["policy_checks"][2]["ids"].get<std::vector<uint32_t>>();
  ids.resize(kTokens);
  return ids;
}

class RandomTables {
 public:
  RandomTables(uint32_t seed, const HyperParameters& p) : random_(seed), p_(p) {}

  // Two changes of tables. by_head: each kv head keeps rows of its own; in_cache: kept keys stand
  // at their index in the cache, in up to three runs of other query positions.
  Script Make(bool by_head, bool in_cache) {
    Script script;
    uint64_t before = 0;
    for (const uint64_t row : {Between(55, 70), Between(120, 150)}) {
      for (uint32_t layer = 0; layer < p_.layers; ++layer) {
        script[row].push_back(Table(before, row, by_head, in_cache));
      }
      before = row;
    }
    return script;
  }

 private:
  uint64_t Between(uint64_t low, uint64_t high) {
    return std::uniform_int_distribution<uint64_t>(low, high)(random_);
  }

  // `count` rows of [first, end), ascending.
  std::vector<uint64_t> Rows(uint64_t first, uint64_t end, size_t count) {
    std::vector<uint64_t> rows;
    for (uint64_t row = first; row < end; ++row) rows.push_back(row);
    std::shuffle(rows.begin(), rows.end(), random_);
    rows.resize(std::min(count, rows.size()));
    std::sort(rows.begin(), rows.end());
    return rows;
  }

  // Of row `row`; the table before it is gone with all that it left out below `before`.
  TableSpec Table(uint64_t before, uint64_t row, bool by_head, bool in_cache) {
    TableSpec table;
    table.recent_first = Between(before, row);
    const size_t kept = Between(0, table.recent_first);
    for (uint32_t head = 0; head < (by_head ? p_.kv_heads : 1); ++head) {
      table.kept.push_back(Rows(0, table.recent_first, kept));
    }
    if (Between(0, 2) > 0) {
      table.window = Between(1, 60);
      table.sticky = Rows(table.recent_first, row, Between(0, 12));
    }
    for (size_t done = 0; done < kept;) {
      KeptRunView span;
      span.rows = static_cast<uint32_t>(Between(1, kept - done));
      if (in_cache) {
        span.query_offset = static_cast<int64_t>(Between(0, table.recent_first - kept));
        if (Between(0, 1) == 0) span.query_max = row + Between(0, 20);
      }
      table.spans.push_back(span);
      done += span.rows;
    }
    for (size_t i = 0; in_cache && i < kept; ++i) table.rotated_at.push_back(i);
    return table;
  }

  std::mt19937 random_;
  const HyperParameters& p_;
};

// What the forward pass in double says of a script.
struct OracleRun {
  std::vector<float> logits;
  // [layer][kv_head][query][key]: probability, summed over the query heads of the group.
  std::vector<std::vector<std::vector<std::map<uint64_t, double>>>> shares;
  std::vector<std::vector<std::vector<double>>> queries;  // [layer][row], rotated
};

class AskedViews : public ::testing::Test {
 protected:
  OracleRun RunOracle(const Script& script) const {
    const HyperParameters& p = model_.parameters();
    const DoubleLlama llama(model_);
    OracleRun run;
    run.shares.assign(p.layers, {p.kv_heads, std::vector<std::map<uint64_t, double>>(kTokens)});
    run.queries.resize(p.layers);
    DoubleLlama::Probe probe;
    probe.probability = [&](uint32_t layer, uint32_t head, uint64_t query, uint64_t key,
                            double share) {
      run.shares[layer][head / (p.heads / p.kv_heads)][query][key] += share;
    };
    probe.rows = [&](uint32_t layer, uint64_t row, std::vector<double> q,
                     const std::vector<double>&) {
      llama.Turn(static_cast<int64_t>(row), q);
      run.queries[layer].push_back(std::move(q));
    };
    run.logits = llama.ForwardByHead(
        tokens_,
        [&script](uint32_t layer, uint32_t kv_head, uint64_t query, uint64_t key) {
          return SeesByScript(script, layer, kv_head, query, key);
        },
        probe);
    return run;
  }

  // In batches and one by one; returns the logits where they are wanted.
  std::vector<float> Compute(ScriptedStore& store, uint32_t threads, LogitsWanted wanted) const {
    const auto engine =
        ValueOrDie(LlamaEngine::Create(model_, {.threads = threads, .kv_type = RowType::kF32}));
    const std::span<const uint32_t> all(tokens_);
    std::vector<float> logits;
    for (const auto& [end, batch] :
         std::vector<std::pair<size_t, uint32_t>>{{80, 37}, {92, 1}, {162, 70}, {kTokens, 1}}) {
      while (store.rows() < end) {
        const auto want = static_cast<uint32_t>(std::min<size_t>(batch, end - store.rows()));
        const StepView step = ValueOrDie(store.Begin(want));
        const auto rows = all.subspan(step.row, step.count);
        const auto part = ValueOrDie(engine->Compute(rows, step, wanted));
        logits.insert(logits.end(), part.begin(), part.end());
        EXPECT_TRUE(store.Commit(rows).ok());
      }
    }
    return logits;
  }

  // Largest difference of any mass, and of the sum over a step's rows from heads * weights.
  std::pair<double, double> CompareMass(const ScriptedStore& store, const OracleRun& oracle,
                                        double decay) const {
    const HyperParameters& p = model_.parameters();
    double worst = 0.0;
    double worst_sum = 0.0;
    for (const MassRecord& step : store.masses()) {
      double weights = 0.0;
      for (uint32_t t = 0; t < step.count; ++t) weights += std::pow(decay, step.count - 1 - t);
      for (uint32_t layer = 0; layer < p.layers; ++layer) {
        for (uint32_t head = 0; head < p.kv_heads; ++head) {
          std::vector<double> expected(step.row + step.count);
          for (uint32_t t = 0; t < step.count; ++t) {
            for (const auto& [key, share] : oracle.shares[layer][head][step.row + t]) {
              expected[key] += std::pow(decay, step.count - 1 - t) * share;
            }
          }
          double sum = 0.0;
          for (size_t row = 0; row < expected.size(); ++row) {
            const double got = step.mass[layer][head][row];
            worst = std::max(worst, std::fabs(got - expected[row]));
            if (expected[row] == 0.0) {  // no query sees it: not even a trace
              EXPECT_EQ(got, 0.0);
            }
            sum += got;
          }
          worst_sum = std::max(worst_sum, std::fabs(sum - weights * (p.heads / p.kv_heads)));
        }
      }
    }
    return {worst, worst_sum};
  }

  void ExpectQueries(const ScriptedStore& store, const OracleRun& oracle) const {
    for (uint32_t layer = 0; layer < model_.parameters().layers; ++layer) {
      const std::vector<float>& got = store.queries(layer);
      double worst = 0.0;
      size_t at = 0;
      for (uint64_t row = kQueryFirst; row < kQueryFirst + kQueryCount; ++row) {
        for (const double expected : oracle.queries[layer][row]) {
          const double gap = std::fabs(static_cast<double>(got[at++]) - expected);
          worst = std::isnan(gap) ? HUGE_VAL : std::max(worst, gap);
        }
      }
      EXPECT_EQ(at, got.size());
      EXPECT_LE(worst, 2e-3) << "layer=" << layer;
    }
  }

  const GgufModel model_ = ValueOrDie(GgufModel::Load(kTinyModel, WeightsMode::kF32));
  const std::vector<uint32_t> tokens_ = Prose();
};

using TableKind = std::tuple<uint32_t, bool, bool, bool>;  // seed, by head, in cache, unrotated

class AskedTables : public AskedViews, public ::testing::WithParamInterface<TableKind> {};

TEST_P(AskedTables, MassAndQueriesAreTheOracles) {
  const auto [seed, by_head, in_cache, unrotated] = GetParam();
  const Script script = RandomTables(seed, model_.parameters()).Make(by_head, in_cache);
  const OracleRun oracle = RunOracle(script);
  for (const uint32_t threads : {1U, 2U}) {
    const double decay = threads == 1 ? 0.9 : 1.0;
    ScriptedStore store(model_, script,
                        {.mass = true,
                         .mass_decay = decay,
                         .unrotated = unrotated,
                         .query_first = kQueryFirst,
                         .query_count = kQueryCount});
    const std::vector<float> logits = Compute(store, threads, LogitsWanted::kAll);
    Difference difference;
    difference.Add(logits, oracle.logits, model_.parameters().vocabulary);
    EXPECT_LE(difference.logit, 3e-3);
    EXPECT_EQ(difference.argmax_changes, 0U);
    const auto [worst, worst_sum] = CompareMass(store, oracle, decay);
    EXPECT_LE(worst, 1e-3);
    EXPECT_LE(worst_sum, 2e-4);
    ExpectQueries(store, oracle);
    if (threads == 1) {  // other weights give another mass: the comparison can fail
      EXPECT_GT(CompareMass(store, oracle, 1.0).first, 0.1);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, AskedTables,
    ::testing::Values(TableKind{1, false, false, false}, TableKind{2, true, false, false},
                      TableKind{3, false, true, false}, TableKind{4, false, false, true},
                      TableKind{5, true, false, true}, TableKind{6, true, false, true}));

// The last layer's attention is computed for its mass alone, and asking changes nothing else.
TEST_F(AskedViews, MassIsTheSameWithoutLogitsAndLogitsWithoutMass) {
  const Script script = RandomTables(7, model_.parameters()).Make(true, false);
  const Asks asks = {.mass = true, .query_first = kQueryFirst, .query_count = kQueryCount};
  ScriptedStore with_logits(model_, script, asks);
  ScriptedStore without_logits(model_, script, asks);
  ScriptedStore not_asking(model_, script, {});
  const std::vector<float> logits = Compute(with_logits, 1, LogitsWanted::kAll);
  EXPECT_TRUE(Compute(without_logits, 1, LogitsWanted::kNone).empty());
  EXPECT_EQ(Compute(not_asking, 1, LogitsWanted::kAll), logits);
  ASSERT_EQ(with_logits.masses().size(), without_logits.masses().size());
  for (size_t i = 0; i < with_logits.masses().size(); ++i) {
    EXPECT_EQ(with_logits.masses()[i].mass, without_logits.masses()[i].mass);
  }
  for (uint32_t layer = 0; layer < model_.parameters().layers; ++layer) {
    EXPECT_EQ(with_logits.queries(layer), without_logits.queries(layer));
  }
}

// Several threads share the rows, never the sums: a batch's mass does not depend on their number.
TEST_F(AskedViews, MassOfABatchDoesNotDependOnThreads) {
  const std::span<const uint32_t> all(tokens_);
  std::vector<std::vector<std::vector<std::vector<double>>>> masses;
  for (const uint32_t threads : {1U, 2U, 3U}) {
    const auto engine =
        ValueOrDie(LlamaEngine::Create(model_, {.threads = threads, .kv_type = RowType::kF32}));
    ScriptedStore store(model_, {}, {.mass = true, .mass_decay = 0.99});
    (void)ComputeAll(*engine, store, all.first(100), 100);
    ASSERT_EQ(store.masses().size(), 1U);
    masses.push_back(store.masses()[0].mass);
  }
  EXPECT_EQ(masses[0], masses[1]);
  EXPECT_EQ(masses[0], masses[2]);
}

// A private store whose keys are written without rotation.
class UnrotatedStore final : public OwningStore {
 public:
  explicit UnrotatedStore(std::unique_ptr<PrivateKvStore> store) : OwningStore(std::move(store)) {}
  absl::StatusOr<StepView> Begin(uint32_t want) override {
    absl::StatusOr<StepView> step = OwningStore::Begin(want);
    if (!step.ok()) return step;
    views_.assign(step->layers.begin(), step->layers.end());
    for (LayerView& view : views_) view.unrotated = true;
    step->layers = views_;
    return step;
  }

 private:
  std::vector<LayerView> views_;
};

TEST_F(AskedViews, UnrotatedKeysGiveTheSameLogits) {
  for (const auto& [type, bound] : {std::pair{RowType::kF32, 2e-3}, {RowType::kF16, 0.12}}) {
    const auto engine = ValueOrDie(LlamaEngine::Create(model_, {.kv_type = type}));
    const auto rotated = MakePrivateStore(model_, type);
    UnrotatedStore unrotated(MakePrivateStore(model_, type));
    Difference difference;
    for (const auto& [first, count, batch] :
         std::vector<std::tuple<size_t, size_t, uint32_t>>{{0, 150, 40}, {150, 50, 1}}) {
      const auto part = std::span(tokens_).subspan(first, count);
      difference.Add(ComputeAll(*engine, unrotated, part, batch),
                     ComputeAll(*engine, *rotated, part, batch), model_.parameters().vocabulary);
    }
    EXPECT_LE(difference.logit, bound);
    ASSERT_TRUE(unrotated.Truncate(100).ok());
    ASSERT_TRUE(rotated->Truncate(100).ok());
    const StepView ours = ValueOrDie(unrotated.Begin(1));
    const StepView theirs = ValueOrDie(rotated->Begin(1));
    const auto* key = ours.layers[1].KeyOf(90);
    EXPECT_FALSE(std::equal(key, key + ours.layers[1].k_stride, theirs.layers[1].KeyOf(90)));
  }
}

TEST_F(AskedViews, BadAsksAreErrors) {
  const auto engine = ValueOrDie(LlamaEngine::Create(model_, {.kv_type = RowType::kF32}));
  const std::vector<uint32_t> token = {1};
  const auto code = [&](const auto& spoil) {
    ScriptedStore store(model_, {}, {.mass = true, .query_count = 1});
    StepView step = ValueOrDie(store.Begin(1));
    std::vector<LayerView> layers(step.layers.begin(), step.layers.end());
    spoil(layers[2]);
    step.layers = layers;
    return engine->Compute(token, step, LogitsWanted::kLast).status().code();
  };
  const std::vector<KeptRunView> kept = {{.rows = 3}};
  EXPECT_EQ(code([](LayerView&) {}), absl::StatusCode::kOk);
  EXPECT_EQ(code([](LayerView& view) { view.mass.recent_rows = 0; }), absl::StatusCode::kInternal);
  EXPECT_EQ(code([](LayerView& view) { view.queries.row_floats -= 1; }),
            absl::StatusCode::kInternal);
  EXPECT_EQ(code([&](LayerView& view) {
              view.kept = kept;
              view.mass.kept = view.mass.recent;
              view.mass.kept_rows = 2;
            }),
            absl::StatusCode::kInternal);
  EXPECT_EQ(code([&](LayerView& view) {
              view.kept = kept;
              view.unrotated = true;
            }),
            absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace kvasir::engine::testing
