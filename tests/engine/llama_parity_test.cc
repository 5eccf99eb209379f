// The tiny model against libllama on all prompt rows and 64 greedy steps, and against the numbers
// that another framework computed.
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "engine/sampler.h"
#include "tests/engine/engine_support.h"

#include <nlohmann/json.hpp>

namespace kvasir::engine::testing {
namespace {

using kernels::RowType;

const nlohmann::json& Fixture() {
  static const nlohmann::json fixture = [] {
    std::ifstream in(kTinyFixture);
    return nlohmann::json::parse(in);
  }();
  return fixture;
}

// Long enough for many blocks, short of the context: texts of the fixture one after the other.
std::vector<uint32_t> LongPrompt(size_t tokens) {
  std::vector<uint32_t> prompt;
  for (const auto& text : Fixture()["policy_checks"]) {
    for (const auto& id : text["ids"]) prompt.push_back(id.get<uint32_t>());
  }
  prompt.resize(tokens);
  return prompt;
}

class LlamaParity : public ::testing::Test {
 protected:
  void SetUp() override {
    f32_path_ = ::testing::TempDir() + "kvasir_tinylm_f32_" + std::to_string(::getpid()) + ".gguf";
    WriteF32Copy(kTinyModel, f32_path_);
  }
  void TearDown() override { std::filesystem::remove(f32_path_); }

  Difference Compare(RowType type, uint32_t threads, std::span<const uint32_t> prompt,
                     uint32_t steps = 64) const {
    const GgufModel model = ValueOrDie(GgufModel::Load(kTinyModel, WeightsMode::kF32));
    const auto engine =
        ValueOrDie(LlamaEngine::Create(model, {.threads = threads, .kv_type = type}));
    const auto store = MakePrivateStore(model, type);
    LlamaReference reference(f32_path_, type, 2048);
    return CompareWithLibllama(*engine, *store, reference, prompt, steps);
  }

  std::string f32_path_;
};

TEST_F(LlamaParity, ShortPromptsWithF32Rows) {
  const nlohmann::json& prompts = Fixture()["prompts"];
  for (size_t i = 0; i < 8; ++i) {
    const auto difference =
        Compare(RowType::kF32, 1, prompts[i]["ids"].get<std::vector<uint32_t>>());
    EXPECT_LE(difference.logit, 0.05) << "prompt " << i;
    EXPECT_EQ(difference.argmax_changes, 0U) << "prompt " << i;
  }
}

TEST_F(LlamaParity, LongPromptWithF32Rows) {
  const auto difference = Compare(RowType::kF32, 1, LongPrompt(1000));
  EXPECT_LE(difference.logit, 0.05);
  EXPECT_EQ(difference.argmax_changes, 0U);
  RecordProperty("logit", std::to_string(difference.logit));
}

TEST_F(LlamaParity, PromptWithF32RowsOnTwoThreads) {
  const auto difference = Compare(RowType::kF32, 2, LongPrompt(100), 8);
  EXPECT_LE(difference.logit, 0.05);
  EXPECT_EQ(difference.argmax_changes, 0U);
}

TEST_F(LlamaParity, LongPromptWithF16Rows) {
  const auto difference = Compare(RowType::kF16, 1, LongPrompt(1000));
  EXPECT_LE(difference.logit, 0.12);
  RecordProperty("logit", std::to_string(difference.logit));
}

TEST_F(LlamaParity, ExpandedWeightsAreThoseOfTheF32File) {
  const std::vector<uint32_t> prompt = LongPrompt(40);
  std::vector<std::vector<float>> logits;
  for (const auto& [path, mode] :
       {std::pair<std::string, WeightsMode>{kTinyModel, WeightsMode::kF32},
        {f32_path_, WeightsMode::kAsStored}}) {
    const GgufModel model = ValueOrDie(GgufModel::Load(path, mode));
    const auto engine =
        ValueOrDie(LlamaEngine::Create(model, {.threads = 1, .kv_type = RowType::kF32}));
    logits.push_back(ComputeAll(*engine, *MakePrivateStore(model, RowType::kF32), prompt, 16));
  }
  EXPECT_EQ(logits[0], logits[1]);
}

TEST(TinyFixture, TopFiveOfEveryPromptAreThoseOfAnotherFramework) {
  const GgufModel model = ValueOrDie(GgufModel::Load(kTinyModel, WeightsMode::kF32));
  const auto engine =
      ValueOrDie(LlamaEngine::Create(model, {.threads = 1, .kv_type = RowType::kF32}));
  const size_t vocabulary = model.parameters().vocabulary;
  size_t compared = 0;
  for (const auto& prompt : Fixture()["prompts"]) {
    const auto ids = prompt["ids"].get<std::vector<uint32_t>>();
    const auto logits = ComputeAll(*engine, *MakePrivateStore(model, RowType::kF32), ids, 64);
    for (size_t row = 0; row < ids.size(); ++row) {
      const auto here = std::span(logits).subspan(row * vocabulary, vocabulary);
      EXPECT_EQ(ArgMax(here), prompt["top_ids"][row][0].get<uint32_t>());
      for (size_t rank = 0; rank < 5; ++rank) {
        const auto id = prompt["top_ids"][row][rank].get<uint32_t>();
        const double expected = prompt["top_logprobs"][row][rank].get<double>();
        ASSERT_NEAR(-NegativeLogLikelihood(here, id), expected, 2e-3) << "row " << row;
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 15000U);
}

TEST(TinyFixture, MeanLikelihoodOfFourTextsUnderFullAttention) {
  const GgufModel model = ValueOrDie(GgufModel::Load(kTinyModel, WeightsMode::kF32));
  const auto engine =
      ValueOrDie(LlamaEngine::Create(model, {.threads = 1, .kv_type = RowType::kF32}));
  const size_t vocabulary = model.parameters().vocabulary;
  for (const auto& text : Fixture()["policy_checks"]) {
    const auto ids = text["ids"].get<std::vector<uint32_t>>();
    ASSERT_EQ(text["policies"][0]["policy"], "full");
    const auto logits = ComputeAll(*engine, *MakePrivateStore(model, RowType::kF32), ids, 128);
    double sum = 0.0;
    for (size_t row = 0; row + 1 < ids.size(); ++row) {
      sum += NegativeLogLikelihood(std::span(logits).subspan(row * vocabulary, vocabulary),
                                   ids[row + 1]);
    }
    EXPECT_NEAR(sum / static_cast<double>(ids.size() - 1),
                text["policies"][0]["mean_nll"].get<double>(), 1e-4);
  }
}

TEST(TinyBatches, LogitsDoNotDependOnTheBatch) {
  const GgufModel model = ValueOrDie(GgufModel::Load(kTinyModel, WeightsMode::kF32));
  const auto engine =
      ValueOrDie(LlamaEngine::Create(model, {.threads = 1, .kv_type = RowType::kF32}));
  const std::vector<uint32_t> prompt = LongPrompt(150);
  const size_t vocabulary = model.parameters().vocabulary;
  const auto one = ComputeAll(*engine, *MakePrivateStore(model, RowType::kF32), prompt, 1);
  for (const uint32_t batch : {2U, 33U, 150U}) {
    Difference difference;
    difference.Add(one,
                   ComputeAll(*engine, *MakePrivateStore(model, RowType::kF32, 16), prompt, batch),
                   vocabulary);
    EXPECT_LE(difference.logit, 1e-3) << "batch " << batch;
  }
}

}  // namespace
}  // namespace kvasir::engine::testing
