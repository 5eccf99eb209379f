// SmolLM2-135M-Instruct against libllama without flash attention: weights as F32 (4-bit products
// round the activations, which hides errors of 1 to 2 in the logits), then the greedy texts of the
// 4-bit file.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "engine/sampler.h"
#include "engine/tokenizer.h"
#include "tests/engine/engine_support.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace kvasir::engine::testing {
namespace {

using kernels::RowType;

constexpr uint32_t kContext = 2304;
constexpr uint32_t kSteps = 64;

std::string ReadFile(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// All prose of the tiny model's fixture.
std::string Prose() {
  std::ifstream in(kTinyFixture);
  const nlohmann::json fixture = nlohmann::json::parse(in);
  const Tokenizer tiny = ValueOrDie(Tokenizer::Load(kTinyModel));
  std::string text;
  for (const auto& part : fixture["policy_checks"]) {
    text += ValueOrDie(tiny.Decode(part["ids"].get<std::vector<uint32_t>>())) + "\n";
  }
  for (const auto& prompt : fixture["prompts"]) text += prompt["text"].get<std::string>() + "\n";
  return text;
}

class SmolLm : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::optional<std::string> path = SmolLmPath();
    if (!path) GTEST_SKIP() << "no model: set KVASIR_MODEL or run ./dev setup";
    path_ = *path;
  }

  // Prose, code, a chat, and prose again, of 200 to 2,000 tokens.
  std::vector<std::vector<uint32_t>> Prompts() const {
    const Tokenizer tokenizer = ValueOrDie(Tokenizer::Load(path_));
    const std::string prose = Prose();
    const std::string chat = ValueOrDie(
        tokenizer.ApplyTemplate({{"user", "Go on with this text:\n" + prose.substr(9000, 3000)}}));
    const std::string code = ReadFile("engine/gguf_file.cc");
    std::vector<std::vector<uint32_t>> prompts;
    for (const auto& [text, tokens] : std::vector<std::pair<std::string, size_t>>{
             {prose, 200}, {code, 500}, {chat, 0}, {prose.substr(3000), 1400}, {prose, 2000}}) {
      prompts.push_back(ValueOrDie(tokenizer.Encode(text, true, true)));
      if (tokens != 0) {
        EXPECT_GE(prompts.back().size(), tokens);
        prompts.back().resize(tokens);
      }
    }
    return prompts;
  }

  // Largest difference over all prompts with F32 weights and rows of `type`.
  Difference CompareF32Weights(RowType type) const {
    const std::string f32_path =
        ::testing::TempDir() + "kvasir_smollm_f32_" + std::to_string(::getpid()) + ".gguf";
    WriteF32Copy(path_, f32_path);
    const GgufModel model = ValueOrDie(GgufModel::Load(path_, WeightsMode::kF32));
    const auto engine = ValueOrDie(LlamaEngine::Create(model, {.threads = 1, .kv_type = type}));
    Difference worst;
    for (const std::vector<uint32_t>& prompt : Prompts()) {
      LlamaReference reference(f32_path, type, kContext);
      const auto store = MakePrivateStore(model, type);
      const Difference one = CompareWithLibllama(*engine, *store, reference, prompt, kSteps);
      fmt::print("  {} prompt tokens + {}: logits differ by {:.4f}, argmax in {} rows\n",
                 prompt.size(), kSteps, one.logit, one.argmax_changes);
      std::fflush(stdout);
      worst.logit = std::max(worst.logit, one.logit);
      worst.argmax_changes += one.argmax_changes;
    }
    std::filesystem::remove(f32_path);
    return worst;
  }

  std::string path_;
};

TEST_F(SmolLm, F32WeightsF32Rows) {
  const Difference worst = CompareF32Weights(RowType::kF32);
  EXPECT_LE(worst.logit, 0.05);
  EXPECT_EQ(worst.argmax_changes, 0U);
}

TEST_F(SmolLm, F32WeightsF16Rows) {
  const Difference worst = CompareF32Weights(RowType::kF16);
  EXPECT_LE(worst.logit, 0.12);
}

// The 4-bit file rounds activations to 8 bits, so a last-bit difference may change the text:
// reported.
TEST_F(SmolLm, GreedyTextsOfTheStoredWeights) {
  const GgufModel model = ValueOrDie(GgufModel::Load(path_, WeightsMode::kAsStored));
  const auto engine = ValueOrDie(LlamaEngine::Create(model, {}));
  const size_t vocabulary = model.parameters().vocabulary;
  for (const std::vector<uint32_t>& prompt : Prompts()) {
    LlamaReference reference(path_, RowType::kF16, kContext);
    const auto store = MakePrivateStore(model, RowType::kF16);
    Difference difference;
    std::vector<float> ours;
    std::vector<float> theirs;
    for (size_t at = 0; at < prompt.size(); at += 256) {
      const auto part = std::span(prompt).subspan(at, std::min<size_t>(256, prompt.size() - at));
      ours = ComputeAll(*engine, *store, part, 256);
      theirs = reference.Compute(part);
      difference.Add(ours, theirs, vocabulary);
    }
    uint32_t same = 0;
    for (; same < kSteps; ++same) {
      const uint32_t our_pick = ArgMax(std::span(ours).last(vocabulary));
      if (our_pick != ArgMax(std::span(theirs).last(vocabulary))) break;
      ours = ComputeAll(*engine, *store, std::span(&our_pick, 1), 1);
      theirs = reference.Compute(std::span(&our_pick, 1));
    }
    fmt::print(
        "  {} prompt tokens: {} of {} greedy tokens equal before the first difference; "
        "prompt logits differ by {:.3f}, argmax in {} rows\n",
        prompt.size(), same, kSteps, difference.logit, difference.argmax_changes);
    std::fflush(stdout);
    EXPECT_LE(difference.logit, 5.0);  // rounding, not another text
    EXPECT_LE(difference.argmax_changes, prompt.size() / 10);
  }
}

}  // namespace
}  // namespace kvasir::engine::testing
