// What prefix_calls_test holds, with a model that people use and a prompt of 4,096 tokens. Says how
// much sooner the first token comes.
#include <cstdlib>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "tests/engine/engine_support.h"
#include "tests/llama_cpp/embedder_fixture.h"

#include <fmt/format.h>

namespace kvasir::testing {
namespace {

class PrefixSmolLmTest : public EmbedderFixture {
 protected:
  void SetUp() override {
    const char* const model = std::getenv("KVASIR_MODEL");
    if (model == nullptr) GTEST_SKIP() << "KVASIR_MODEL is not set";
    model_ = model;
    Config config = MakeConfig();
    config.memory.pool_bytes = 768 * kMiB;
    config.memory.extent_bytes = 32 * kMiB;
    config.tenants[0].limit_bytes = config.memory.pool_bytes;
    StartServer(config);
  }
  void TearDown() override {
    if (server_) EmbedderFixture::TearDown();
  }
};

TEST_F(PrefixSmolLmTest, FourThousandTokensGoOnBitForBit) {
  const std::vector<std::string> common = {"prompt=4097", "context=4352", "batch=512"};
  const auto with = [&common](const std::string& what) {
    std::vector<std::string> all = common;
    all.push_back(what);
    return all;
  };
  Said saved;
  const std::vector<float> computed = Logits(with("do=save"), true, &saved);
  EXPECT_EQ(saved.Of("rows"), "4096");
  for (const bool direct : {true, false}) {
    Said attached;
    const std::vector<float> gone_on = Logits(with("do=attach"), direct, &attached);
    EXPECT_EQ(attached.Of("rows"), "4096");
    EXPECT_TRUE(gone_on == computed);
    const auto time = [](const Said& run, const std::string& name) {
      return std::stod(run.Of("time " + name)) / 1e6;
    };
    const double prefill = time(saved, "prefill") + time(saved, "first");
    const double attach = time(attached, "attach") + time(attached, "first");
    fmt::print("plug-in={} prefill_s={:.2f} attach_s={:.4f} sooner_by={:.0f}\n", direct, prefill,
               attach, prefill / attach);
  }
}

TEST_F(PrefixSmolLmTest, SepLlmIsWhatRemovingTheSamePositionsIs) {
  // As stored, weights are rounded with the activations, and a last bit grows to a whole logit.
  const std::string wide = folder_.path() + "/f32.gguf";
  engine::testing::WriteF32Copy(model_, wide);
  model_ = wide;
  const std::vector<std::string> common = {"fa=off",       "kv=f32",    "prompt=1025",
                                           "context=1280", "batch=512", "steps=16"};
  const auto with = [&common](std::vector<std::string> more) {
    more.insert(more.end(), common.begin(), common.end());
    return more;
  };
  Said said;
  const std::vector<float> compact = Logits(
      with({"do=compact", "retention=sepllm:init_cache_size=4,local_size=256"}), true, &said);
  const std::set<int> left = Numbers(said.Of("left"));
  EXPECT_GT(left.size(), 300U);  // 256, the first ones, and separators
  EXPECT_LT(left.size(), 512U);
  const std::vector<float> removed =
      Logits(with({"do=remove", "removed=" + Others(left, 1024)}), true);
  const double gap = Largest(compact, removed);
  fmt::print("rows_left={} largest_difference={:.5f}\n", left.size(), gap);
  EXPECT_LT(gap, 0.1);
  EXPECT_GT(Largest(compact, Logits(with({"do=remove"}), true)), 1.0);
}

}  // namespace
}  // namespace kvasir::testing
