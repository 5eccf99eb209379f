// The engine on a daemon's memory, with the tiny model at F32: full retention against private
// memory, every other policy against a forward pass in double that asks the policy's state machine
// what each query sees. Rows are computed in batches and one by one, over many compactions.
#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "base/bytes.h"
#include "base/error.h"
#include "tests/engine/daemon_parity_support.h"
#include "tests/engine/double_llama.h"
#include "tests/engine/in_place_store.h"

#include <fmt/format.h>

namespace kvasir::engine::testing {
namespace {

using kernels::RowType;

constexpr uint32_t kLayers = 4;
constexpr uint32_t kBatch = 24;
constexpr size_t kTokens = 1088;

std::vector<PolicyCase> Cases() {
  const StreamSetting cache{.init = 3, .separators = 12, .local = 40, .cache = 96};
  const StreamSetting other_cache{.init = 2, .separators = 6, .local = 70, .cache = 120};
  StreamSetting manager = cache;
  manager.manager = manager.in_cache = true;
  StreamSetting other_manager = other_cache;
  other_manager.manager = other_manager.in_cache = true;
  StreamSetting manager_original = manager;
  manager_original.in_cache = false;
  StreamSetting cache_in_cache = cache;
  cache_in_cache.in_cache = true;
  // Keys as before rotation: the engine turns them where it reads them.
  PolicyCase static_unrotated = StaticCase(4, 64, 64, kLayers);
  PolicyCase streaming_unrotated = StreamingLlmCase(4, 60, false);
  static_unrotated.name += "Unrotated";
  static_unrotated.retention += ",positions=unrotated";
  streaming_unrotated.name += "Unrotated";
  streaming_unrotated.retention = "streamingllm:start_size=4,recent_size=60,positions=unrotated";
  return {StaticCase(4, 64, 64, kLayers),
          static_unrotated,
          streaming_unrotated,
          StaticCase(3, 30, 100, kLayers),
          StreamCase(cache, cache, kLayers, 150),
          StreamCase(cache, other_cache, kLayers, 20),
          StreamCase(cache_in_cache, cache_in_cache, kLayers, 40),
          StreamCase(manager, manager, kLayers, 0),
          StreamCase(manager, other_manager, kLayers, 0),
          StreamCase(manager_original, manager_original, kLayers, 0),
          StreamingLlmCase(4, 60, true),
          StreamingLlmCase(4, 60, false)};
}

class DaemonParityTiny : public DaemonParity {
 protected:
  void SetUp() override {
    StartDaemon(64 * kMiB);
    LoadModel(kTinyModel);
    ASSERT_EQ(layers(), kLayers);
  }
};

class PolicyParity : public DaemonParityTiny, public ::testing::WithParamInterface<PolicyCase> {};

TEST_F(DaemonParityTiny, FullRetentionIsPrivateMemoryBitForBit) {
  const std::vector<uint32_t> tokens = Prose(kTokens);
  const auto ours = MakeStore("full");
  const auto reference = ValueOrDie(PrivateKvStore::Create(
      GeometryOf(model_->parameters(), RowType::kF32, ours->sequence().slots_per_block()),
      kTokens));
  const Difference difference = Compare(*ours, *reference, tokens, kBatch);
  EXPECT_EQ(difference.logit, 0.0);
  EXPECT_EQ(difference.argmax_changes, 0U);
}

TEST_F(DaemonParityTiny, FullRetentionIsLibllama) {
  const std::vector<uint32_t> tokens = Prose(400);
  const std::string f32_path = folder_.path() + "/f32.gguf";
  WriteF32Copy(kTinyModel, f32_path);
  for (const auto& [type, bound] : {std::pair{RowType::kF32, 0.05}, {RowType::kF16, 0.12}}) {
    LlamaReference reference(f32_path, type, 512);
    const auto engine = ValueOrDie(LlamaEngine::Create(*model_, {.kv_type = type}));
    const auto ours = MakeStore("full", 0, type);
    const Difference difference = CompareWithLibllama(*engine, *ours, reference, tokens, 64);
    fmt::print("  rows of {}: logits differ by {:.5f}\n", type == RowType::kF32 ? "f32" : "f16",
               difference.logit);
    EXPECT_LE(difference.logit, bound);
    if (type == RowType::kF32) {  // f16 may turn near ties
      EXPECT_EQ(difference.argmax_changes, 0U);
    }
  }
}

TEST_P(PolicyParity, SeesWhatTheOracleSees) {
  const PolicyCase& policy = GetParam();
  const std::vector<uint32_t> tokens = Prose(kTokens);
  const Oracle oracle = policy.oracle(kLayers, Separators(), tokens);
  const size_t vocabulary = model_->parameters().vocabulary;
  const auto ours = MakeStore(policy.retention, policy.prompt_rows);
  std::vector<float> logits = ComputeAll(*engine_, *ours, std::span(tokens).first(500), kBatch);
  for (const uint32_t batch : {1U, kBatch}) {
    const auto part = std::span(tokens).subspan(batch == 1 ? 500 : 800, batch == 1 ? 300 : 288);
    const std::vector<float> more = ComputeAll(*engine_, *ours, part, batch);
    logits.insert(logits.end(), more.begin(), more.end());
  }
  const auto expected =
      DoubleLlama(*model_).Forward(tokens, [&oracle](uint32_t layer, uint64_t query, uint64_t key) {
        return oracle[layer]->Distance(query, key);
      });
  Difference difference;
  difference.Add(logits, expected, vocabulary);
  InPlaceStore everything(*model_, {}, kTokens);
  Difference uncompacted;
  uncompacted.Add(logits, ComputeAll(*engine_, everything, tokens, kBatch), vocabulary);
  fmt::print("  {}: logits differ by {:.5f}, without the policy by {:.2f}; {} compactions\n",
             policy.name, difference.logit, uncompacted.logit, ours->Compactions());
  EXPECT_LE(difference.logit, 0.01);
  EXPECT_EQ(difference.argmax_changes, 0U);
  EXPECT_GT(uncompacted.logit, 1.0);
  EXPECT_GT(ours->Compactions(), 2U);
}

// The yardstick of the big model's test, measured itself.
TEST_P(PolicyParity, RowsReadInPlaceAreTheSame) {
  const PolicyCase& policy = GetParam();
  const std::vector<uint32_t> tokens = Prose(kTokens);
  const auto ours = MakeStore(policy.retention, policy.prompt_rows);
  InPlaceStore reference(*model_, policy.oracle(kLayers, Separators(), tokens), kTokens);
  const Difference difference = Compare(*ours, reference, tokens, kBatch);
  EXPECT_LE(difference.logit, 0.01);
  EXPECT_EQ(difference.argmax_changes, 0U);
}

// Goes on with other tokens, comes back, and goes on as if nothing had been.
TEST_P(PolicyParity, TruncationLeavesNoTrace) {
  const PolicyCase& policy = GetParam();
  const std::vector<uint32_t> tokens = Prose(700);
  const std::span<const uint32_t> all(tokens);
  const size_t vocabulary = model_->parameters().vocabulary;
  const auto straight = MakeStore(policy.retention, policy.prompt_rows);
  const std::vector<float> expected = ComputeAll(*engine_, *straight, all, kBatch);
  uint32_t truncations = 0;
  for (uint64_t end = 290; end < 660; end += 31) {
    const auto ours = MakeStore(policy.retention, policy.prompt_rows);
    (void)ComputeAll(*engine_, *ours, all.first(end), kBatch);
    (void)ComputeAll(*engine_, *ours, all.first(5), 3);  // another text
    EXPECT_EQ(ours->Truncate(end + 6).code(), absl::StatusCode::kOutOfRange);
    for (const uint64_t share : {0U, 1U, 2U}) {  // from the end down to the floor
      const absl::Status below = ours->Truncate(0);
      ASSERT_EQ(below.code(), absl::StatusCode::kFailedPrecondition) << MessageOf(below);
      const uint64_t floor = FloorNamedIn(below);
      ASSERT_GT(floor, 0U);
      EXPECT_EQ(FloorNamedIn(ours->Truncate(floor - 1)), floor);
      if (floor > end) break;  // the other text has been compacted already
      const uint64_t back = end - (end - floor) * share / 2;
      const absl::Status truncated = ours->Truncate(back);
      ASSERT_TRUE(truncated.ok()) << MessageOf(truncated);
      ASSERT_EQ(ours->rows(), back);
      // The rows up to the end again, and some more where they do not matter to the next turn.
      const uint64_t until = share == 2 ? end + 30 : end;
      const std::vector<float> again =
          ComputeAll(*engine_, *ours, all.subspan(back, until - back), 5);
      ++truncations;
      if (again.empty()) continue;
      Difference difference;
      difference.Add(again, std::span(expected).subspan(back * vocabulary, again.size()),
                     vocabulary);
      EXPECT_LE(difference.logit, 1e-3) << "back=" << back << " end=" << end << " floor=" << floor;
    }
  }
  EXPECT_GE(truncations, 15U);
}

// A compaction that is due between the new end and the old one must not be in force too early.
TEST_P(PolicyParity, TruncationJustBeforeACompaction) {
  const PolicyCase& policy = GetParam();
  const std::vector<uint32_t> tokens = Prose(260);
  const std::span<const uint32_t> all(tokens);
  const size_t vocabulary = model_->parameters().vocabulary;
  const auto straight = MakeStore(policy.retention, policy.prompt_rows);
  const std::vector<float> expected = ComputeAll(*engine_, *straight, all, kBatch);
  uint32_t truncations = 0;
  for (uint64_t end = 184; end < 236; ++end) {
    const auto ours = MakeStore(policy.retention, policy.prompt_rows);
    (void)ComputeAll(*engine_, *ours, all.first(end), 64);
    (void)ComputeAll(*engine_, *ours, all.first(5), 5);  // another text
    if (!ours->Truncate(end).ok()) continue;             // compacted with the other text already
    const std::vector<float> again = ComputeAll(*engine_, *ours, all.subspan(end, 8), 1);
    Difference difference;
    difference.Add(again, std::span(expected).subspan(end * vocabulary, again.size()), vocabulary);
    EXPECT_LE(difference.logit, 1e-3) << "end=" << end;
    ++truncations;
  }
  EXPECT_GE(truncations, 20U);
}

INSTANTIATE_TEST_SUITE_P(Policies, PolicyParity, ::testing::ValuesIn(Cases()),
                         [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace kvasir::engine::testing
