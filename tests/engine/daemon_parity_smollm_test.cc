// SmolLM2-135M-Instruct on a daemon's memory: full retention against llama.cpp without flash
// attention, SepLLM and StreamingLLM against the same engine reading every row in place as the
// policy's state machine says, and against llama.cpp with the same positions removed. Weights and
// rows are F32.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "base/bytes.h"
#include "engine/sampler.h"
#include "tests/engine/daemon_parity_support.h"
#include "tests/engine/in_place_store.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace kvasir::engine::testing {
namespace {

using kernels::RowType;

constexpr uint32_t kLayers = 30;
constexpr uint32_t kBatch = 32;
constexpr size_t kTokens = 1120;
constexpr uint32_t kContext = 2304;
constexpr uint32_t kSteps = 64;

// Prose of the tiny model's fixture, then the licence: texts that do not change.
std::string Text() {
  std::ifstream fixture_file(kTinyFixture);
  const nlohmann::json fixture = nlohmann::json::parse(fixture_file);
  const Tokenizer tiny = ValueOrDie(Tokenizer::Load(kTinyModel));
  std::string text;
  for (const auto& part : fixture["policy_checks"]) {
    text += ValueOrDie(tiny.Decode(part["ids"].get<std::vector<uint32_t>>())) + "\n";
  }
  std::ifstream licence("LICENSE");
  text.append(std::istreambuf_iterator<char>(licence), std::istreambuf_iterator<char>());
  return text;
}

constexpr StreamSetting kCache{.init = 4, .separators = 32, .local = 128, .cache = 256};

// llama.cpp keeps the same positions in all layers.
std::vector<PolicyCase> UniformCases() {
  return {StaticCase(4, 128, 128, kLayers), StreamCase(kCache, kCache, kLayers, 200)};
}

std::vector<PolicyCase> OtherCases() {
  const StreamSetting other_cache{.init = 4, .separators = 24, .local = 96, .cache = 224};
  StreamSetting manager = kCache;
  manager.manager = manager.in_cache = true;
  StreamSetting other_manager = other_cache;
  other_manager.manager = other_manager.in_cache = true;
  return {StaticCase(4, 96, 160, kLayers), StreamCase(kCache, other_cache, kLayers, 200),
          StreamCase(manager, manager, kLayers, 0), StreamCase(manager, other_manager, kLayers, 0),
          StreamingLlmCase(4, 160, true)};
}

class DaemonParitySmolLm : public DaemonParity {
 protected:
  void SetUp() override {
    const std::optional<std::string> path = SmolLmPath();
    if (!path) GTEST_SKIP() << "no model: set KVASIR_MODEL or run ./dev setup";
    path_ = *path;
    StartDaemon(256 * kMiB);
    LoadModel(path_);
    ASSERT_EQ(layers(), kLayers);
  }

  std::vector<uint32_t> Tokens(size_t skip, size_t tokens) const {
    auto ids = ValueOrDie(tokenizer_->Encode(Text(), true, false));
    EXPECT_GE(ids.size(), skip + tokens);
    ids.erase(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(skip));
    ids.resize(tokens);
    return ids;
  }

  // A copy of the model with F32 weights, for llama.cpp.
  std::string F32Copy() const {
    const std::string path = folder_.path() + "/f32.gguf";
    WriteF32Copy(path_, path);
    return path;
  }

  std::string path_;
};

class SmolLmPolicy : public DaemonParitySmolLm, public ::testing::WithParamInterface<PolicyCase> {};
class SmolLmUniformPolicy : public SmolLmPolicy {};

TEST_F(DaemonParitySmolLm, FullRetentionIsPrivateMemoryBitForBit) {
  const std::vector<uint32_t> tokens = Tokens(0, 400);
  const auto ours = MakeStore("full");
  const auto reference = ValueOrDie(PrivateKvStore::Create(
      GeometryOf(model_->parameters(), RowType::kF32, ours->sequence().slots_per_block()),
      tokens.size()));
  EXPECT_EQ(Compare(*ours, *reference, tokens, kBatch).logit, 0.0);
}

TEST_F(DaemonParitySmolLm, FullRetentionIsLlamaCpp) {
  const std::string f32_path = F32Copy();
  for (const RowType type : {RowType::kF32, RowType::kF16}) {
    const auto engine = ValueOrDie(LlamaEngine::Create(*model_, {.kv_type = type}));
    for (const auto& [skip, rows] : std::vector<std::pair<size_t, size_t>>{
             {0, 200}, {1500, 400}, {300, 800}, {2000, 1300}, {0, 2000}}) {
      LlamaReference reference(f32_path, type, kContext);
      const auto ours = MakeStore("full", 0, type);
      const Difference difference =
          CompareWithLibllama(*engine, *ours, reference, Tokens(skip, rows), kSteps);
      fmt::print(
          "  rows of {}, {} prompt tokens + {}: logits differ by {:.4f}, argmax in {} rows\n",
          type == RowType::kF32 ? "f32" : "f16", rows, kSteps, difference.logit,
          difference.argmax_changes);
      std::fflush(stdout);
      EXPECT_LE(difference.logit, type == RowType::kF32 ? 0.05 : 0.12);
      if (type == RowType::kF32) {  // f16 may turn near ties
        EXPECT_EQ(difference.argmax_changes, 0U);
      }
    }
  }
}

TEST_P(SmolLmPolicy, IsTheRunOverTheFullCache) {
  const PolicyCase& policy = GetParam();
  const std::vector<uint32_t> tokens = Tokens(100, kTokens);
  const auto ours = MakeStore(policy.retention, policy.prompt_rows);
  InPlaceStore reference(*model_, policy.oracle(kLayers, Separators(), tokens), kTokens);
  const Difference difference = Compare(*ours, reference, tokens, kBatch);
  fmt::print("  {}: logits differ by {:.5f}, argmax in {} rows; {} compactions\n", policy.name,
             difference.logit, difference.argmax_changes, ours->Compactions());
  std::fflush(stdout);
  EXPECT_LE(difference.logit, 0.1);
  EXPECT_EQ(difference.argmax_changes, 0U);
  EXPECT_GT(ours->Compactions(), 2U);
  // The last rows once more with nothing compacted: the comparison can fail.
  InPlaceStore everything(*model_, {}, kTokens);
  const std::span<const uint32_t> all(tokens);
  (void)ComputeAll(*engine_, everything, all.first(kTokens - 32), 512);
  ASSERT_TRUE(reference.Truncate(kTokens - 32).ok());
  Difference uncompacted;
  uncompacted.Add(ComputeAll(*engine_, reference, all.last(32), kBatch),
                  ComputeAll(*engine_, everything, all.last(32), kBatch),
                  model_->parameters().vocabulary);
  EXPECT_GT(uncompacted.logit, 1.0);
}

TEST_P(SmolLmUniformPolicy, IsLlamaCppWithTheSamePositionsRemoved) {
  const PolicyCase& policy = GetParam();
  const std::vector<uint32_t> tokens = Tokens(100, kTokens);
  const std::span<const uint32_t> all(tokens);
  const Oracle oracle = policy.oracle(kLayers, Separators(), tokens);
  const size_t vocabulary = model_->parameters().vocabulary;
  const auto ours = MakeStore(policy.retention, policy.prompt_rows);
  LlamaReference reference(F32Copy(), RowType::kF32, kContext);
  std::vector<uint64_t> present;
  Difference difference;
  for (uint64_t row = 0; row < kTokens; ++row) {
    const auto gone = std::stable_partition(present.begin(), present.end(), [&](uint64_t key) {
      return oracle[0]->Distance(row, key).has_value();
    });
    for (auto key = gone; key != present.end(); ++key) reference.Remove(*key);
    present.erase(gone, present.end());
    present.push_back(row);
    difference.Add(ComputeAll(*engine_, *ours, all.subspan(row, 1), 1),
                   reference.Compute(all.subspan(row, 1)), vocabulary);
  }
  fmt::print("  {}: logits differ by {:.4f}, argmax in {} rows; {} of {} rows left\n", policy.name,
             difference.logit, difference.argmax_changes, present.size(), kTokens);
  std::fflush(stdout);
  EXPECT_LE(difference.logit, 0.1);
  EXPECT_EQ(difference.argmax_changes, 0U);
  EXPECT_LT(present.size(), kTokens / 2);
  EXPECT_GT(ours->Compactions(), 2U);
}

std::string NameOf(const ::testing::TestParamInfo<PolicyCase>& one) { return one.param.name; }

INSTANTIATE_TEST_SUITE_P(Uniform, SmolLmPolicy, ::testing::ValuesIn(UniformCases()), NameOf);
INSTANTIATE_TEST_SUITE_P(Other, SmolLmPolicy, ::testing::ValuesIn(OtherCases()), NameOf);
INSTANTIATE_TEST_SUITE_P(Uniform, SmolLmUniformPolicy, ::testing::ValuesIn(UniformCases()), NameOf);

}  // namespace
}  // namespace kvasir::engine::testing
