// kvasir_llama.h: a prefix that one process computes and another attaches, and what never meets.
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/llama_cpp/embedder_fixture.h"

namespace kvasir::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using PrefixCallsTest = EmbedderFixture;

constexpr int kPrompt = 161;  // 160 rows and the token whose logits are compared

struct Form {
  const char* flash;
  const char* type;
};
class PrefixForms : public PrefixCallsTest, public ::testing::WithParamInterface<Form> {};
INSTANTIATE_TEST_SUITE_P(All, PrefixForms,
                         ::testing::Values(Form{"on", "f16"}, Form{"off", "f16"}, Form{"on", "f32"},
                                           Form{"off", "f32"}, Form{"on", "q8_0"},
                                           Form{"on", "q4_0"}));

TEST_P(PrefixForms, AnotherProcessGoesOnBitForBit) {
  const std::vector<std::string> form = {std::string("fa=") + GetParam().flash,
                                         std::string("kv=") + GetParam().type};
  const auto with = [&form](std::vector<std::string> more) {
    more.insert(more.end(), form.begin(), form.end());
    return more;
  };
  for (const bool saved_direct : {false, true}) {
    const std::string salt = saved_direct ? "salt=direct" : "salt=copied";
    Said saved;
    const std::vector<float> computed = Logits(with({"do=save", salt}), saved_direct, &saved);
    EXPECT_EQ(saved.Of("rows"), std::to_string(kPrompt - 1));
    ASSERT_EQ(computed.size(), size_t{9} * 1536);
    // With and without the plug-in it is the same cache.
    for (const bool attached_direct : {false, true}) {
      Said attached;
      const std::vector<float> gone_on =
          Logits(with({"do=attach", salt}), attached_direct, &attached);
      EXPECT_EQ(attached.Of("rows"), std::to_string(kPrompt - 1));
      EXPECT_TRUE(gone_on == computed) << saved_direct << attached_direct;
    }
  }
}

TEST_F(PrefixCallsTest, CachesThatAreNotTheSameNeverMeet) {
  ASSERT_EQ(Run({"do=save", "fa=on", "kv=f16", "digest=0123456789abcdef"}, true).status, 0);
  const auto rows = [this](std::vector<std::string> options, bool direct = true) {
    options.insert(options.begin(), {"do=attach", "steps=0", "digest=0123456789abcdef"});
    const Said said = Run(options, direct);
    EXPECT_EQ(said.status, 0) << said.errors;
    return said.Of("rows");
  };
  EXPECT_EQ(rows({}), "160");
  EXPECT_EQ(rows({}, false), "160");
  EXPECT_EQ(rows({"fa=off"}), "0");  // V lies element by element, and attention rounds otherwise
  EXPECT_EQ(rows({"fa=off"}, false), "0");
  EXPECT_EQ(rows({"kv=f32"}), "0");
  EXPECT_EQ(rows({"kv=q8_0"}), "0");
  EXPECT_EQ(rows({"rope=5000"}), "0");  // in no file: seen by what the model makes of a token
  EXPECT_EQ(rows({"digest=0123456789abcdeF"}), "0");
  EXPECT_EQ(rows({"salt=x"}), "0");
  EXPECT_EQ(rows({"other=100"}), "96");  // up to the chunk of the first token that differs
  EXPECT_EQ(rows({"other=3"}), "0");

  // An engine of another kind, with the same weights and shapes.
  const std::unique_ptr<Session> session = Connect();
  ModelSpec spec;
  spec.name = "another engine";
  spec.layers.assign(4, LayerSpec{2, 64, 64, 0});
  spec.vocabulary_size = 1536;
  spec.weights_digest = "0123456789abcdef";
  const absl::StatusOr<ModelHandle> model = session->RegisterModel(spec);
  ASSERT_TRUE(model.ok());
  PrefixOptions prefix;
  for (uint32_t i = 0; i < kPrompt; ++i) {
    prefix.tokens.push_back((i * 7919 + i * i * 31 + 5) % spec.vocabulary_size);
  }
  const absl::StatusOr<std::vector<PrefixForm>> forms = session->MatchPrefix(*model, prefix);
  ASSERT_TRUE(forms.ok());
  EXPECT_TRUE(forms->empty());
}

TEST_F(PrefixCallsTest, WhatIsThereIsNotSavedTwice) {
  ASSERT_EQ(Run({"do=save"}, true).status, 0);
  const uint64_t held = HeldBytes();
  EXPECT_GT(held, 0U);
  EXPECT_EQ(Run({"do=save"}, false).Of("rows"), "160");
  EXPECT_EQ(HeldBytes(), held);
}

TEST_F(PrefixCallsTest, ErrorsSayWhatIsWrong) {
  const auto error = [](const Said& said) {
    EXPECT_EQ(said.status, 6) << said.errors;
    return said.Of("error");
  };
  ASSERT_EQ(Run({"do=save", "prompt=513", "context=768"}, true).status, 0);
  EXPECT_THAT(error(Run({"do=attach", "prompt=513", "context=256"}, true)),
              StartsWith("8 llama.cpp does not take the rows"));
  EXPECT_THAT(error(Run({"do=attach", "digest=short"}, true)), HasSubstr("weights_digest"));
  EXPECT_THAT(error(Run({"do=save", "prompt=9"}, true)), StartsWith("9 "));
  EXPECT_THAT(error(Run({"do=compact",
                         "retention=streamingllm:start_size=4,recent_size=32,positions=original",
                         "save_too=1", "salt=x"},
                        true)),
              StartsWith("9 the sequence has no row at position 4"));
  EXPECT_THAT(error(Run({"do=compact", "retention=no-such-policy"}, true)), StartsWith("3 "));
  EXPECT_THAT(error(Run({"do=compact", "retention=sepllm:local_size=20/50x2/8"}, true)),
              StartsWith("12 llama.cpp keeps the same tokens in all layers"));
  EXPECT_THAT(error(Run({"do=compact", "retention=full:positions=unrotated"}, true)),
              StartsWith("12 llama.cpp cannot have rows as this retention leaves them"));
  EXPECT_FALSE(error(Run({"do=compact", "retention=full+int8"}, true)).empty());
}

TEST_F(PrefixCallsTest, WithoutADaemonOpenFails) {
  server_.reset();
  const Said said = Run({"do=probe"}, false);
  EXPECT_EQ(said.status, 6);
  EXPECT_THAT(said.Of("error"), HasSubstr("no session with kvasird: "));
  StartServer(MakeConfig());  // for the end of the test
}

// ---- compaction -------------------------------------------------------------------------------

class CompactionTest : public PrefixCallsTest,
                       public ::testing::WithParamInterface<std::pair<Form, const char*>> {};
INSTANTIATE_TEST_SUITE_P(
    All, CompactionTest,
    ::testing::Values(std::pair{Form{"off", "f32"},
                                "streamingllm:start_size=4,recent_size=32,positions=original"},
                      std::pair{Form{"on", "f16"},
                                "streamingllm:start_size=4,recent_size=32,positions=original"},
                      std::pair{Form{"off", "f32"}, "sepllm:init_cache_size=4,local_size=24"},
                      std::pair{Form{"on", "f16"}, "sepllm:init_cache_size=4,local_size=24"}));

// llama.cpp's own removal of the same positions, twice, leaves holes and the same text.
TEST_P(CompactionTest, IsWhatRemovingTheSamePositionsIs) {
  const auto [form, retention] = GetParam();
  const std::vector<std::string> common = {std::string("fa=") + form.flash,
                                           std::string("kv=") + form.type, "steps=48", "again=20"};
  const auto with = [&common](std::vector<std::string> more) {
    more.insert(more.end(), common.begin(), common.end());
    return more;
  };
  Said said;
  const std::vector<float> compact =
      Logits(with({"do=compact", std::string("retention=") + retention}), true, &said);
  const std::set<int> left = Numbers(said.Of("left")), again = Numbers(said.Of("left", 1));
  EXPECT_EQ(std::to_string(left.size()), said.Of("rows"));
  EXPECT_GT(left.size(), 24U);
  EXPECT_LT(left.size(), 100U);
  EXPECT_TRUE(left.contains(0) && left.contains(159)) << said.Of("left");
  EXPECT_TRUE(again.contains(0) && again.contains(180)) << said.Of("left", 1);
  EXPECT_LT(again.size(), left.size() + 20);

  const std::vector<float> removed = Logits(
      with({"do=remove", "removed=" + Others(left, 160), "removed_again=" + Others(again, 181)}),
      true);
  EXPECT_LT(Largest(compact, removed), 0.1);
  const std::vector<float> full = Logits(with({"do=remove"}), true);
  EXPECT_GT(Largest(compact, full), 0.5);
  // Without the plug-in it goes through copies of the state.
  const std::vector<float> copied =
      Logits(with({"do=compact", std::string("retention=") + retention}), false);
  EXPECT_TRUE(copied == compact);
}

}  // namespace
}  // namespace kvasir::testing
