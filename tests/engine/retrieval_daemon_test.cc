// InfLLM through the reference engine and a daemon, with the tiny model at F32: logits against a
// forward pass in double that follows the paper's rule and judges every lookup of the daemon.
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>

#include "base/bytes.h"
#include "engine/generator.h"
#include "tests/engine/daemon_parity_support.h"
#include "tests/engine/double_llama.h"
#include "tests/engine/far_store.h"
#include "tests/engine/retrieval_oracle.h"

#include <nlohmann/json.hpp>

namespace kvasir::engine::testing {
namespace {

using kernels::RowType;
using ::testing::IsEmpty;

constexpr char kRetention[] =
    "infllm:n_init=4,n_local=64,block_size=16,topk=2,repr_topk=2,max_cached_block=3,"
    "exc_block_size=32,cache_strategy=";
constexpr size_t kTokens = 240;

std::vector<uint32_t> Prose(size_t tokens) {
  std::ifstream in(kTinyFixture);
  const nlohmann::json fixture = nlohmann::json::parse(in);
  auto ids = fixture["policy_checks"][2]["ids"].get<std::vector<uint32_t>>();
  ids.resize(tokens);
  return ids;
}

InfLlmConfig Config() {
  InfLlmConfig config;
  config.n_init = 4;
  config.n_local = 64;
  config.block_size = 16;
  config.topk = 2;
  config.repr_topk = 2;
  config.max_cached_block = 3;
  config.exc_block_size = 32;
  return config;
}

class DaemonRetrieval : public DaemonParity, public ::testing::WithParamInterface<std::string> {
 protected:
  void SetUp() override {
    StartDaemon(64 * kMiB);
    LoadModel(kTinyModel);
  }

  // In batches, one by one, and in batches again.
  std::vector<float> Compute(KvStore& store, FarBlocks& far, std::span<const uint32_t> tokens) {
    std::vector<float> logits;
    for (const auto& [end, batch] :
         std::vector<std::pair<size_t, uint32_t>>{{140, 64}, {190, 1}, {kTokens, 25}}) {
      const auto part = tokens.subspan(store.rows(), end - store.rows());
      const std::vector<float> more = ComputeAll(*engine_, store, part, batch, &far);
      logits.insert(logits.end(), more.begin(), more.end());
    }
    return logits;
  }
};

TEST_P(DaemonRetrieval, LogitsAndLookupsAreThoseOfTheRule) {
  const std::vector<uint32_t> tokens = Prose(kTokens);
  const auto ours = MakeStore(kRetention + GetParam());
  FarRecorder recorder(*ours, Config());
  FarBlocks far(recorder, layers());
  const std::vector<float> logits = Compute(recorder, far, tokens);
  const DoubleLlama llama(*model_);
  RetrievalOracle oracle(
      testing::GeometryOf(*model_), Config(), recorder.lookups(), tokens.size(),
      [&llama](int64_t position, std::vector<double>& heads) { llama.Turn(position, heads); });
  const std::vector<float> expected = ForwardByOracle(llama, tokens, oracle);
  Difference difference;
  difference.Add(logits, expected, model_->parameters().vocabulary);
  EXPECT_LE(difference.logit, 1e-3);
  EXPECT_EQ(difference.argmax_changes, 0U);
  EXPECT_THAT(oracle.faults(), IsEmpty());
  EXPECT_LE(oracle.mass_error(), 1e-2);
  EXPECT_EQ(oracle.blocks(0), (kTokens - 4 - 64) / 16);
  EXPECT_GE(oracle.judged(), 150U);
  EXPECT_LE(oracle.doubtful(), oracle.judged() / 20);
  EXPECT_EQ(ValueOrDie(ours->Usage()).held_bytes, HeldBytes());

  const auto full = MakeStore("full");  // what is not looked up is missed
  Difference from_full;
  from_full.Add(logits, ComputeAll(*engine_, *full, tokens, 64), model_->parameters().vocabulary);
  EXPECT_GE(from_full.logit, 0.1);
}

TEST_P(DaemonRetrieval, TheDaemonAnswersAsAStoreOfPureParts) {
  InfLlmConfig config = Config();
  config.cache_strategy = GetParam() == "lru" ? CacheStrategy::kLru : CacheStrategy::kLruS;
  const std::vector<uint32_t> prompt = Prose(152);
  const GenerateOptions options = {.tokens_max = 20, .stop_at_end = false};
  const auto generate = [&](KvStore& store) {
    Generator generator(*engine_, *tokenizer_, store, 4);  // steps end where blocks are sealed
    return ValueOrDie(generator.Generate(prompt, options, nullptr, nullptr)).tokens;
  };
  const auto ours = MakeStore(kRetention + GetParam());
  FarStore pure(testing::GeometryOf(*model_), config);
  const std::vector<uint32_t> text = generate(*ours);
  EXPECT_EQ(text.size(), 20U);
  EXPECT_EQ(text, generate(pure));
  const auto again = MakeStore(kRetention + GetParam());
  EXPECT_EQ(text, generate(*again));
}

INSTANTIATE_TEST_SUITE_P(Strategies, DaemonRetrieval, ::testing::Values("lru", "lru-s"),
                         [](const auto& one) { return one.param == "lru" ? "Lru" : "LruS"; });

}  // namespace
}  // namespace kvasir::engine::testing
