#include "engine/generator.h"

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "base/error.h"
#include "tests/engine/engine_support.h"

namespace kvasir::engine::testing {
namespace {

using kernels::RowType;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Utf8Gate, HoldsUnfinishedCharactersBack) {
  Utf8Gate gate;
  EXPECT_EQ(gate.Push("a\xE2\x82"), "a");
  EXPECT_EQ(gate.Push("\xAC"
                      "b"),
            "\xE2\x82\xAC"
            "b");
  EXPECT_EQ(gate.Push("\xF0"), "");
  EXPECT_EQ(gate.Push("\x9F"), "");
  EXPECT_EQ(gate.Push("\x98"), "");
  EXPECT_EQ(gate.Push("\x80"), "\xF0\x9F\x98\x80");
  EXPECT_EQ(gate.Push("x\xC3"), "x");
  EXPECT_EQ(gate.Flush(), "\xC3");
  EXPECT_EQ(gate.Flush(), "");
}

TEST(Utf8Gate, BytesThatAreNoUtf8Pass) {
  Utf8Gate gate;
  EXPECT_EQ(gate.Push("\xFF\xFE"), "\xFF\xFE");
  EXPECT_EQ(gate.Push("\x80\x80\x80\x80"), "\x80\x80\x80\x80");
  EXPECT_EQ(gate.Push("\xC0"), "\xC0");
}

TEST(Sampler, GreedyTakesTheFirstOfTheLargest) {
  Sampler sampler({});
  EXPECT_EQ(sampler.Next(std::vector<float>{0.0F, 2.0F, 2.0F, -1.0F}), 1U);
}

TEST(Sampler, SameSeedSameTokensOtherSeedOthers) {
  std::vector<float> logits(100);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i));
  std::vector<std::vector<uint32_t>> runs;
  for (const uint64_t seed : {1U, 1U, 2U}) {
    Sampler sampler({.temperature = 1.0, .seed = seed});
    auto& run = runs.emplace_back();
    for (int i = 0; i < 50; ++i) run.push_back(sampler.Next(logits));
  }
  EXPECT_EQ(runs[0], runs[1]);
  EXPECT_NE(runs[0], runs[2]);
}

TEST(Sampler, FrequenciesAreThoseOfTheSoftmax) {
  const std::vector<float> logits = {std::log(6.0F), std::log(3.0F), std::log(1.0F)};
  Sampler sampler({.temperature = 1.0, .seed = 7});
  std::vector<int> counts(3);
  for (int i = 0; i < 20000; ++i) ++counts[sampler.Next(logits)];
  EXPECT_NEAR(counts[0], 12000, 400);
  EXPECT_NEAR(counts[1], 6000, 400);
  EXPECT_NEAR(counts[2], 2000, 300);
}

TEST(Sampler, TopKAndTopPLeaveTheUnlikelyOut) {
  const std::vector<float> logits = {std::log(5.0F), std::log(3.0F), std::log(1.0F),
                                     std::log(1.0F)};
  const auto picks = [&](const SamplerOptions& options) {
    Sampler sampler(options);
    std::set<uint32_t> seen;
    for (int i = 0; i < 500; ++i) seen.insert(sampler.Next(logits));
    return seen;
  };
  EXPECT_THAT(picks({.temperature = 1.0, .top_k = 2}), ElementsAre(0U, 1U));
  EXPECT_THAT(picks({.temperature = 1.0, .top_p = 0.45}), ElementsAre(0U));
  EXPECT_THAT(picks({.temperature = 1.0, .top_p = 0.7}), ElementsAre(0U, 1U));
  EXPECT_THAT(picks({.temperature = 1.0}), ElementsAre(0U, 1U, 2U, 3U));
}

TEST(Sampler, OptionsOutOfBoundsNameTheBound) {
  EXPECT_THAT(MessageOf(CheckOptions({.temperature = -1.0})), HasSubstr("temperature=-1 min=0"));
  EXPECT_THAT(MessageOf(CheckOptions({.temperature = NAN})), HasSubstr("temperature"));
  EXPECT_THAT(MessageOf(CheckOptions({.top_p = 0.0})), HasSubstr("top_p=0"));
  EXPECT_TRUE(CheckOptions({}).ok());
}

TEST(Likelihood, OfUniformLogits) {
  EXPECT_NEAR(NegativeLogLikelihood(std::vector<float>(8, 100.0F), 3), std::log(8.0), 1e-12);
}

class GeneratorTest : public ::testing::Test {
 protected:
  absl::StatusOr<GenerateResult> Generate(const std::string& text, const GenerateOptions& options,
                                          uint32_t batch = 256) {
    streamed_.clear();
    Generator generator(*engine_, tokenizer_, *store_, batch);
    const auto prompt = ValueOrDie(tokenizer_.Encode(text, true, false));
    return generator.Generate(
        prompt, options,
        [this](uint64_t done, uint64_t total) {
          progress_ = {done, total};
        },
        [this](const std::string& part) { streamed_ += part; });
  }

  const GgufModel model_ = ValueOrDie(GgufModel::Load(kTinyModel, WeightsMode::kAsStored));
  const Tokenizer tokenizer_ = ValueOrDie(Tokenizer::Load(kTinyModel));
  const std::unique_ptr<LlamaEngine> engine_ = ValueOrDie(LlamaEngine::Create(model_, {}));
  std::unique_ptr<PrivateKvStore> store_ = MakePrivateStore(model_, RowType::kF16);
  std::string streamed_;
  std::pair<uint64_t, uint64_t> progress_;
};

TEST_F(GeneratorTest, StreamsTheTextItReturns) {
  const GenerateResult result = ValueOrDie(Generate("O Lord GOD: thou art", {.tokens_max = 24}));
  EXPECT_EQ(result.tokens.size(), 24U);
  EXPECT_EQ(result.text, streamed_);
  EXPECT_EQ(result.text, ValueOrDie(tokenizer_.Decode(result.tokens)));
  EXPECT_EQ(result.token_ms.size(), 23U);
  EXPECT_EQ(store_->rows(), result.prompt_tokens + 23);
}

TEST_F(GeneratorTest, BatchesDoNotChangeTheText) {
  const GenerateResult one = ValueOrDie(Generate("In the beginning", {.tokens_max = 16}, 1));
  store_ = MakePrivateStore(model_, RowType::kF16);
  const GenerateResult many = ValueOrDie(Generate("In the beginning", {.tokens_max = 16}, 3));
  EXPECT_EQ(one.tokens, many.tokens);
  EXPECT_EQ(progress_.first, progress_.second);
}

TEST_F(GeneratorTest, RegeneratesTheSameAfterTruncate) {
  const GenerateResult first = ValueOrDie(Generate("And the king", {.tokens_max = 40}));
  ASSERT_TRUE(store_->Truncate(0).ok());
  EXPECT_EQ(ValueOrDie(Generate("And the king", {.tokens_max = 40})).tokens, first.tokens);
}

TEST_F(GeneratorTest, PerplexityScoresEveryTokenButTheFirst) {
  Generator generator(*engine_, tokenizer_, *store_, 16);
  const auto tokens =
      ValueOrDie(tokenizer_.Encode("In the beginning God created the heaven", true, false));
  const PerplexityResult result = ValueOrDie(generator.Perplexity(tokens, nullptr));
  EXPECT_EQ(result.nll.size(), tokens.size() - 1);
  EXPECT_GT(result.Perplexity(), 1.0);
  EXPECT_LT(result.Perplexity(), 100.0);
  EXPECT_NEAR(std::log(result.Perplexity()), result.Mean(), 1e-9);
}

TEST_F(GeneratorTest, BadInputIsAnError) {
  Generator generator(*engine_, tokenizer_, *store_, 16);
  EXPECT_THAT(MessageOf(generator.Generate({}, {}, nullptr, nullptr).status()), HasSubstr("empty"));
  const std::vector<uint32_t> beyond = {5, 1536};
  EXPECT_THAT(MessageOf(generator.Generate(beyond, {}, nullptr, nullptr).status()),
              HasSubstr("row=1 token_id=1536 vocabulary=1536"));
  EXPECT_EQ(store_->rows(), 0U);
  const std::vector<uint32_t> one = {5};
  EXPECT_THAT(MessageOf(generator.Perplexity(one, nullptr).status()), HasSubstr("min=2"));
}

TEST_F(GeneratorTest, AFullContextIsAnError) {
  const HyperParameters& p = model_.parameters();
  store_ = ValueOrDie(PrivateKvStore::Create(GeometryOf(p, RowType::kF16, 16), 20));
  const absl::Status status =
      Generate("O Lord GOD: thou art", {.tokens_max = 64, .stop_at_end = false}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(MessageOf(status), HasSubstr("max_rows=20"));
}

TEST(EngineOptions, OutOfBounds) {
  const GgufModel model = ValueOrDie(GgufModel::Load(kTinyModel, WeightsMode::kAsStored));
  for (const uint32_t threads : {0U, 257U}) {
    EXPECT_THAT(MessageOf(LlamaEngine::Create(model, {.threads = threads}).status()),
                HasSubstr("threads out of bounds"));
  }
  EXPECT_FALSE(LlamaEngine::Create(model, {.threads = 1, .kv_type = RowType::kBF16}).ok());
}

}  // namespace
}  // namespace kvasir::engine::testing
