// GemFilter on llama.cpp: chooses the tokens that the reference engine chooses.
#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/generator.h"
#include "engine/kvasir_kv_store.h"
#include "tests/engine/engine_support.h"
#include "tests/llama_cpp/embedder_fixture.h"

namespace kvasir::testing {
namespace {

using engine::testing::ValueOrDie;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr uint32_t kPrompt = 161, kSteps = 12;
constexpr char kRetention[] = "gemfilter:filter_layer=2,topk=40,n_tail=4";

class SelectionCallsTest : public EmbedderFixture {
 protected:
  std::vector<std::string> Options(std::vector<std::string> more) const {
    more.insert(more.end(),
                {"do=select", "listen=2", "fa=off", "kv=f32",
                 std::string("retention=") + kRetention, "steps=" + std::to_string(kSteps)});
    return more;
  }
};

TEST_F(SelectionCallsTest, ChoosesAndGoesOnAsTheReferenceEngine) {
  const engine::GgufModel model =
      ValueOrDie(engine::GgufModel::Load(model_, engine::WeightsMode::kAsStored));
  const engine::Tokenizer tokenizer = ValueOrDie(engine::Tokenizer::Load(model_));
  auto engine = ValueOrDie(
      engine::LlamaEngine::Create(model, {.threads = 1, .kv_type = kernels::RowType::kF32}));
  engine::KvasirStoreOptions store_options;
  store_options.connect = MakeConnectOptions();
  store_options.kv_type = kernels::RowType::kF32;
  store_options.retention = kRetention;
  auto store = ValueOrDie(engine::KvasirKvStore::Create(model, tokenizer, store_options));
  std::vector<uint32_t> prompt;
  for (uint32_t i = 0; i < kPrompt; ++i) prompt.push_back((i * 7919 + i * i * 31 + 5) % 1536);
  engine::GenerateOptions options;
  options.tokens_max = kSteps;
  options.stop_at_end = false;
  engine::Generator generator(*engine, tokenizer, *store, 64);
  const engine::GenerateResult wanted =
      ValueOrDie(generator.Generate(prompt, options, nullptr, nullptr));
  ASSERT_EQ(wanted.selected_rows.size(), 40U);

  for (const bool direct : {true, false}) {
    Said said;
    const std::vector<float> logits = Logits(Options({}), direct, &said);
    const std::set<int> chosen = Numbers(said.Of("left"));
    EXPECT_EQ(std::vector<uint32_t>(chosen.begin(), chosen.end()), wanted.selected_rows);
    ASSERT_EQ(logits.size(), size_t{kSteps + 1} * 1536);
    for (size_t step = 0; step < kSteps; ++step) {
      const auto row = logits.begin() + static_cast<std::ptrdiff_t>(step * 1536);
      EXPECT_EQ(std::max_element(row, row + 1536) - row, wanted.tokens[step]) << step;
    }
  }
  EXPECT_EQ(store->Close().code(), absl::StatusCode::kOk);
}

TEST_F(SelectionCallsTest, TheLastQueryDecidesInWhateverBatch) {
  const auto left = [this](const std::string& batch) {
    const Said said = Run(Options({batch}), true);
    EXPECT_EQ(said.status, 0) << said.errors;
    return said.Of("left");
  };
  const std::string whole = left("batch=256");
  EXPECT_EQ(Numbers(whole).size(), 40U);
  EXPECT_EQ(left("batch=160"), whole);
  EXPECT_EQ(left("batch=7"), whole);
}

TEST_F(SelectionCallsTest, ErrorsSayWhatIsWrong) {
  const auto error = [this](std::vector<std::string> options) {
    std::vector<std::string> all = Options({});
    all.insert(all.end(), options.begin(), options.end());  // the last of a name counts
    const Said said = Run(all, true);
    EXPECT_EQ(said.status, 6) << said.errors;
    return said.Of("error");
  };
  EXPECT_THAT(error({"listen=1"}), StartsWith("9 no query of this layer was heard: layer=2"));
  EXPECT_THAT(error({"listen=-1"}), HasSubstr("listened_to=-1"));
  EXPECT_THAT(error({"retention=full"}), StartsWith("3 this retention selects nothing"));
  EXPECT_THAT(error({"retention=gemfilter:filter_layer=9,topk=8"}), HasSubstr("filter_layer"));
  EXPECT_THAT(error({"kv=q8_0", "fa=on"}), StartsWith("12 keys are not as queries are"));
}

}  // namespace
}  // namespace kvasir::testing
