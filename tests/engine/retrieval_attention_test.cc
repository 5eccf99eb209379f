// Retrieval in the engine: random small attentions over FarStore against the exact rule in double,
// and the tiny model through the generator.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>

#include "engine/generator.h"
#include "tests/engine/double_llama.h"
#include "tests/engine/engine_support.h"
#include "tests/engine/far_store.h"
#include "tests/engine/retrieval_oracle.h"

#include <fmt/format.h>
#include <ggml-cpp.h>
#include <ggml-cpu.h>
#include <nlohmann/json.hpp>

namespace kvasir::engine::testing {
namespace {

using kernels::RowType;
using ::testing::IsEmpty;

constexpr double kTheta = 10000.0;

// Rows of all layers, drawn at random, and the attention of them.
class RandomStream {
 public:
  explicit RandomStream(uint32_t seed) : random_(seed) {
    geometry_.layers = 2;
    geometry_.kv_heads = Between(1, 3);
    geometry_.heads = geometry_.kv_heads * Between(1, 3);
    geometry_.head_dim = 8 * Between(1, 4);
    geometry_.type = RowType::kF32;
    config_.n_init = Between(0, 7);
    config_.n_local = Between(2, 40);
    config_.block_size = Between(1, 20);
    config_.max_cached_block = Between(1, 6);
    config_.topk = Between(1, config_.max_cached_block);
    config_.repr_topk =
        Between(1, static_cast<uint32_t>(std::min<uint64_t>(config_.block_size, 4)));
    config_.exc_block_size = Between(1, static_cast<uint32_t>(config_.n_local));
    config_.cache_strategy = seed % 2 == 0 ? CacheStrategy::kLru : CacheStrategy::kLruS;
    for (uint32_t i = 0; i < geometry_.head_dim / 2; ++i) {
      frequencies_.push_back(std::pow(kTheta, -2.0 * i / geometry_.head_dim));
    }
    std::normal_distribution<float> normal;
    for (uint32_t layer = 0; layer < geometry_.layers; ++layer) {
      for (auto* rows : {&q_, &k_, &v_}) {
        auto& one = rows->emplace_back(kRows * Width(rows == &q_));
        for (float& x : one) x = normal(random_);
      }
    }
  }

  static constexpr uint64_t kRows = 170;

  std::string Describe() const {
    return fmt::format("heads={}/{} dim={} init={} local={} block={} topk={} repr={} exc={}",
                       geometry_.heads, geometry_.kv_heads, geometry_.head_dim, config_.n_init,
                       config_.n_local, config_.block_size, config_.topk, config_.repr_topk,
                       config_.exc_block_size);
  }
  const AttentionGeometry& geometry() const { return geometry_; }
  const InfLlmConfig& config() const { return config_; }

  // Attention of all rows, [layer][row][head][dim], in steps of what the store gives and, in
  // between, of one row.
  std::vector<std::vector<float>> Compute(KvStore& store, uint32_t threads) const {
    const Rope rope(frequencies_);
    AttentionOps ops(geometry_, rope, threads);
    FarBlocks far(store, geometry_.layers);
    std::vector<std::vector<float>> outputs(geometry_.layers);
    while (store.rows() < kRows) {
      const bool single = store.rows() / 30 % 2 == 1;
      const uint64_t want = single ? 1 : kRows - store.rows();
      const StepView step = ValueOrDie(store.Begin(static_cast<uint32_t>(want)));
      const absl::Status prepared = ops.Prepare(step, &far);
      if (!prepared.ok()) Die(prepared);
      ComputeStep(ops, step, threads, outputs);
      if (!ops.failure().ok()) Die(ops.failure());
      const std::vector<uint32_t> ids(step.count);
      const absl::Status committed = store.Commit(ids);
      if (!committed.ok()) Die(committed);
    }
    return outputs;
  }

  RetrievalOracle MakeOracle(const FarLookups& lookups) const {
    return {geometry_, config_, lookups, kRows,
            [this](int64_t position, std::vector<double>& heads) { Turn(position, heads); }};
  }

  // The same attention by the oracle's rule, in double; the largest difference from `outputs`.
  double Compare(RetrievalOracle& oracle, const std::vector<std::vector<float>>& outputs) const {
    double worst = 0.0;
    for (uint32_t layer = 0; layer < geometry_.layers; ++layer) {
      for (uint64_t row = 0; row < kRows; ++row) {
        oracle.AddRow(layer, row, RowOf(q_[layer], row, true), RowOf(k_[layer], row, false));
        const std::vector<double> expected = Attend(oracle, layer, row);
        for (size_t i = 0; i < expected.size(); ++i) {
          const float got = outputs[layer][row * expected.size() + i];
          const double gap = std::fabs(static_cast<double>(got) - expected[i]);
          worst = std::isnan(gap) ? HUGE_VAL : std::max(worst, gap);
        }
      }
    }
    oracle.Finish();
    return worst;
  }

 private:
  uint32_t Between(uint32_t low, uint32_t high) {
    return std::uniform_int_distribution<uint32_t>(low, high)(random_);
  }
  size_t Width(bool query) const {
    return size_t{query ? geometry_.heads : geometry_.kv_heads} * geometry_.head_dim;
  }
  std::vector<double> RowOf(const std::vector<float>& rows, uint64_t row, bool query) const {
    const auto first = rows.begin() + static_cast<ptrdiff_t>(row * Width(query));
    return {first, first + static_cast<ptrdiff_t>(Width(query))};
  }

  void Turn(int64_t position, std::vector<double>& heads) const {
    for (size_t at = 0; at < heads.size(); at += 2) {
      const double angle =
          static_cast<double>(position) * frequencies_[at / 2 % frequencies_.size()];
      const double x = heads[at];
      heads[at] = x * std::cos(angle) - heads[at + 1] * std::sin(angle);
      heads[at + 1] = x * std::sin(angle) + heads[at + 1] * std::cos(angle);
    }
  }

  std::vector<double> Attend(RetrievalOracle& oracle, uint32_t layer, uint64_t row) const {
    const size_t dim = geometry_.head_dim;
    std::vector<double> out(Width(true));
    std::vector<std::pair<uint64_t, std::vector<double>>> seen;  // key, turned query
    for (uint64_t key = 0; key <= row; ++key) {
      const std::optional<int64_t> distance = oracle.Distance(layer, row, key);
      if (!distance) continue;
      seen.emplace_back(key, RowOf(q_[layer], row, true));
      Turn(*distance, seen.back().second);
    }
    for (uint32_t head = 0; head < geometry_.heads; ++head) {
      const size_t kv_at = head / (geometry_.heads / geometry_.kv_heads) * dim;
      std::vector<double> weights;
      double sum = 0.0;
      for (const auto& [key, query] : seen) {
        double score = 0.0;
        for (size_t i = 0; i < dim; ++i) {
          score += query[head * dim + i] *
                   static_cast<double>(k_[layer][key * Width(false) + kv_at + i]);
        }
        weights.push_back(std::exp(score / std::sqrt(static_cast<double>(dim))));
        sum += weights.back();
      }
      for (size_t a = 0; a < seen.size(); ++a) {
        oracle.AddShare(layer, head, row, seen[a].first, weights[a] / sum);
        for (size_t i = 0; i < dim; ++i) {
          out[head * dim + i] +=
              weights[a] / sum *
              static_cast<double>(v_[layer][seen[a].first * Width(false) + kv_at + i]);
        }
      }
    }
    return out;
  }

  void ComputeStep(AttentionOps& ops, const StepView& step, uint32_t threads,
                   std::vector<std::vector<float>>& outputs) const {
    const ggml_context_ptr ctx(
        ggml_init({.mem_size = 16U << 20U, .mem_buffer = nullptr, .no_alloc = false}));
    ggml_cgraph* graph = ggml_new_graph(ctx.get());
    std::vector<ggml_tensor*> attended;
    for (uint32_t layer = 0; layer < geometry_.layers; ++layer) {
      const auto input = [&](const std::vector<float>& rows, bool query) {
        ggml_tensor* x = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32,
                                            static_cast<int64_t>(Width(query)), step.count);
        std::copy_n(rows.begin() + static_cast<ptrdiff_t>(step.row * Width(query)),
                    step.count * Width(query), ggml_get_data_f32(x));
        return x;
      };
      ggml_tensor* stored =
          ops.Store(ctx.get(), layer, input(k_[layer], false), input(v_[layer], false));
      ggml_tensor* q = ops.Retrieve(ctx.get(), layer, input(q_[layer], true), stored);
      attended.push_back(ops.Attend(ctx.get(), layer, q, stored, ops.asks_mass()));
      ggml_build_forward_expand(graph, attended.back());
    }
    if (ggml_graph_compute_with_ctx(ctx.get(), graph, static_cast<int>(threads)) !=
        GGML_STATUS_SUCCESS) {
      Die(absl::InternalError("ggml"));
    }
    for (uint32_t layer = 0; layer < geometry_.layers; ++layer) {
      const float* out = ggml_get_data_f32(attended[layer]);
      outputs[layer].insert(outputs[layer].end(), out, out + step.count * Width(true));
    }
  }

  std::mt19937 random_;
  AttentionGeometry geometry_;
  InfLlmConfig config_;
  std::vector<double> frequencies_;
  std::vector<std::vector<float>> q_, k_, v_;  // [layer][row][head][dim]
};

class RandomRetrieval : public ::testing::TestWithParam<uint32_t> {};

TEST_P(RandomRetrieval, AttentionAndMassAreThoseOfTheExactRule) {
  uint64_t judged = 0, doubtful = 0, blocks = 0;
  for (uint32_t seed = GetParam() * 100; seed < GetParam() * 100 + 12; ++seed) {
    const uint32_t threads = seed % 4 == 3 ? 2 : 1;  // ggml's threads spin: slow on a busy machine
    const RandomStream stream(seed);
    SCOPED_TRACE(fmt::format("seed={} {}", seed, stream.Describe()));
    FarStore store(stream.geometry(), stream.config());
    FarRecorder recorder(store, stream.config());
    const auto outputs = stream.Compute(recorder, threads);
    RetrievalOracle oracle = stream.MakeOracle(recorder.lookups());
    EXPECT_LE(stream.Compare(oracle, outputs), 1e-4);
    EXPECT_THAT(oracle.faults(), IsEmpty());
    EXPECT_LE(oracle.query_error(), 1e-5);
    EXPECT_LE(oracle.mass_error(), 1e-3);
    for (uint32_t layer = 0; layer < stream.geometry().layers; ++layer) {
      for (size_t head = 0; head < stream.geometry().heads; ++head) {
        const std::vector<double>& got = store.mass(layer)[head];
        const std::vector<double>& expected = oracle.mass(layer)[head];
        ASSERT_EQ(got.size(), expected.size());
        for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], expected[i], 1e-4);
      }
      blocks += oracle.blocks(layer);
    }
    judged += oracle.judged();
    doubtful += oracle.doubtful();
  }
  EXPECT_GE(blocks, 100U);
  EXPECT_GE(judged, 200U);  // lookups that had more blocks than they could take
  EXPECT_LE(doubtful, judged / 50);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomRetrieval, ::testing::Values(1, 2, 3, 4));

TEST(RandomRetrievalOfOthers, OtherBlocksGiveAnotherAttention) {  // the comparison can fail
  const RandomStream stream(204);
  FarStore store(stream.geometry(), stream.config());
  FarRecorder recorder(store, stream.config());
  const auto outputs = stream.Compute(recorder, 1);
  FarLookups lookups = recorder.lookups();
  for (auto& [row, layers] : lookups) {
    for (FarLookup& lookup : layers) {
      for (uint32_t& block : lookup.blocks) block += 1000;
    }
  }
  RetrievalOracle oracle = stream.MakeOracle(lookups);
  EXPECT_GE(stream.Compare(oracle, outputs), 1e-2);
}

std::vector<uint32_t> Prose(size_t tokens) {
  std::ifstream in(kTinyFixture);
  const nlohmann::json fixture = nlohmann::json::parse(in);
  auto ids = fixture["policy_checks"][2]["ids"].get<std::vector<uint32_t>>();
  ids.resize(tokens);
  return ids;
}

class TinyModelRetrieval : public ::testing::Test {
 protected:
  static InfLlmConfig Config() {
    InfLlmConfig config;
    config.n_init = 4;
    config.n_local = 48;
    config.block_size = 16;
    config.topk = 2;
    config.repr_topk = 2;
    config.max_cached_block = 3;
    config.exc_block_size = 32;
    return config;
  }
  AttentionGeometry Geometry() const { return testing::GeometryOf(model_); }
  std::unique_ptr<LlamaEngine> Engine(uint32_t threads) const {
    return ValueOrDie(LlamaEngine::Create(model_, {.threads = threads, .kv_type = RowType::kF32}));
  }

  const GgufModel model_ = ValueOrDie(GgufModel::Load(kTinyModel, WeightsMode::kF32));
};

TEST_F(TinyModelRetrieval, LogitsAreThoseOfTheExactRule) {
  const std::vector<uint32_t> tokens = Prose(220);
  const auto engine = Engine(1);
  FarStore store(Geometry(), Config());
  FarRecorder recorder(store, Config());
  FarBlocks far(recorder, model_.parameters().layers);
  std::vector<float> logits;
  for (const auto& [end, batch] :
       std::vector<std::pair<size_t, uint32_t>>{{130, 64}, {170, 1}, {220, 64}}) {
    const auto part = std::span(tokens).subspan(store.rows(), end - store.rows());
    const std::vector<float> more = ComputeAll(*engine, recorder, part, batch, &far);
    logits.insert(logits.end(), more.begin(), more.end());
  }
  const DoubleLlama llama(model_);
  RetrievalOracle oracle(
      Geometry(), Config(), recorder.lookups(), tokens.size(),
      [&llama](int64_t position, std::vector<double>& heads) { llama.Turn(position, heads); });
  const std::vector<float> expected = ForwardByOracle(llama, tokens, oracle);
  Difference difference;
  difference.Add(logits, expected, model_.parameters().vocabulary);
  EXPECT_LE(difference.logit, 2e-3);
  EXPECT_EQ(difference.argmax_changes, 0U);
  EXPECT_THAT(oracle.faults(), IsEmpty());
  EXPECT_LE(oracle.mass_error(), 1e-2);
  EXPECT_EQ(oracle.blocks(0), (220U - 4 - 48) / 16);
  EXPECT_GE(oracle.judged(), 150U);
  EXPECT_LE(oracle.doubtful(), oracle.judged() / 20);
}

TEST_F(TinyModelRetrieval, GeneratesTheSameEveryTime) {
  const Tokenizer tokenizer = ValueOrDie(Tokenizer::Load(kTinyModel));
  const std::vector<uint32_t> prompt = Prose(150);
  std::vector<std::vector<uint32_t>> texts;
  for (const uint32_t threads : {1U, 1U, 2U}) {
    const auto engine = Engine(threads);
    FarStore store(Geometry(), Config());
    Generator generator(*engine, tokenizer, store, 64);
    texts.push_back(ValueOrDie(generator.Generate(prompt, {.tokens_max = 10, .stop_at_end = false},
                                                  nullptr, nullptr))
                        .tokens);
    EXPECT_EQ(store.rows(), 150U + 9);
  }
  EXPECT_EQ(texts[0].size(), 10U);
  EXPECT_EQ(texts[1], texts[0]);
  EXPECT_EQ(texts[2], texts[0]);
}

TEST_F(TinyModelRetrieval, AFailedLookupIsTheErrorOfTheStep) {
  const std::vector<uint32_t> tokens = Prose(140);
  const auto engine = Engine(1);
  FarStore store(Geometry(), Config()), untroubled(Geometry(), Config());
  FarBlocks far(store, model_.parameters().layers);
  FarBlocks far_too(untroubled, model_.parameters().layers);
  const auto first = std::span(tokens).first(120);
  EXPECT_EQ(ComputeAll(*engine, store, first, 32, &far),
            ComputeAll(*engine, untroubled, first, 32, &far_too));
  const auto rest = std::span(tokens).last(20);
  store.FailAt(2);
  const StepView step = ValueOrDie(store.Begin(20));
  for (const LogitsWanted wanted : {LogitsWanted::kNone, LogitsWanted::kAll}) {
    const auto result = engine->Compute(rest, step, wanted, &far);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted);
  }
  store.FailAt(std::nullopt);
  EXPECT_EQ(ComputeAll(*engine, store, rest, 32, &far),
            ComputeAll(*engine, untroubled, rest, 32, &far_too));
}

TEST_F(TinyModelRetrieval, BadStepsAreErrors) {
  const auto engine = Engine(1);
  const std::vector<uint32_t> token = {1};
  const auto code = [&](const auto& spoil, bool with_far = true) {
    FarStore store(Geometry(), Config());
    FarBlocks far(store, model_.parameters().layers);
    StepView step = ValueOrDie(store.Begin(1));
    std::vector<LayerView> layers(step.layers.begin(), step.layers.end());
    spoil(layers[2]);
    step.layers = layers;
    return engine->Compute(token, step, LogitsWanted::kLast, with_far ? &far : nullptr)
        .status()
        .code();
  };
  const auto nothing = [](LayerView&) {};
  EXPECT_EQ(code(nothing), absl::StatusCode::kOk);
  EXPECT_EQ(code(nothing, false), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(code([](LayerView& view) { view.unrotated = false; }), absl::StatusCode::kInternal);
  EXPECT_EQ(code([](LayerView& view) { view.far_position = 0; }), absl::StatusCode::kInternal);
  EXPECT_EQ(code([](LayerView& view) { view.mass.by_query_head = false; }),
            absl::StatusCode::kInternal);
  EXPECT_EQ(code([](LayerView& view) { view.mass.recent_rows = 0; }), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace kvasir::engine::testing
