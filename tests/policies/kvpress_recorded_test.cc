// Our scores and selectors keep what NVIDIA's kvpress keeps of the same tensors.
//
// tests/peers/kvpress_agreement.py wrote the record and says how its tensors are made; here they
// are made again. Sets are compared where kvpress's scores at the cut differ by more than 1e-6: a
// smaller gap is a matter of rounding.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <functional>
#include <map>
#include <numeric>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/scores.h"
#include "policies/policy_registry.h"
#include "policies/selection/budget_selector.h"
#include "tests/policies/golden_compare.h"
#include "tests/policies/policy_simulator.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace kvasir::testing {
namespace {

using Json = nlohmann::json;
using kernels::KeyRun;
using kernels::KeyShape;

constexpr double kGapMin = 1e-6;

class SplitMix64 {
 public:
  explicit SplitMix64(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15ULL;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
  }
  // In [-1, 1), a multiple of 2^-15.
  float NextValue() {
    return static_cast<float>(static_cast<int16_t>(static_cast<uint16_t>(Next() >> 48))) / 32768;
  }

 private:
  uint64_t state_;
};

// Queries and keys of one case of the record.
class Tensors {
 public:
  explicit Tensors(const Json& test)
      : tokens(test.at("tokens").get<uint32_t>()),
        heads(test.at("query_heads").get<uint32_t>()),
        kv_heads(test.at("kv_heads").get<uint32_t>()),
        dim(test.at("dim").get<uint32_t>()),
        q_(size_t{heads} * tokens * dim),
        k_(size_t{kv_heads} * tokens * dim) {
    SplitMix64 random(test.at("seed").get<uint64_t>());
    for (float& x : q_) x = 4 * random.NextValue();
    for (float& x : k_) x = random.NextValue();
  }

  KeyShape shape() const { return {kernels::RowType::kF32, 1, dim}; }
  KeyRun Keys(uint32_t kv_head) const {
    return {reinterpret_cast<const std::byte*>(k_.data() + size_t{kv_head} * tokens * dim),
            dim * static_cast<uint32_t>(sizeof(float)), tokens};
  }

  // Attention of the last `window` queries, summed over them: [heads][tokens].
  std::vector<float> Mass(uint32_t window) const {
    const uint32_t group = heads / kv_heads;
    const float scale = 1.0F / std::sqrt(static_cast<float>(dim));
    std::vector<float> mass(size_t{heads} * tokens), q(size_t{group} * window * dim);
    for (uint32_t kv_head = 0; kv_head < kv_heads; ++kv_head) {
      for (uint32_t i = 0; i < group; ++i) {
        const size_t head = size_t{kv_head} * group + i;
        const auto last = q_.begin() + static_cast<ptrdiff_t>((head + 1) * tokens * dim);
        const size_t count = size_t{window} * dim;
        std::copy(last - static_cast<ptrdiff_t>(count), last,
                  q.begin() + static_cast<ptrdiff_t>(i * count));
      }
      const KeyRun keys = Keys(kv_head);
      kernels::WindowMass(shape(), group, window, scale, q.data(), std::span(&keys, 1),
                          mass.data() + size_t{kv_head} * group * tokens);
    }
    return mass;
  }

  using KeyScores = void (*)(const KeyShape&, std::span<const KeyRun>, float*);
  std::vector<float> OfKeys(KeyScores score) const {
    std::vector<float> scores(size_t{kv_heads} * tokens);
    for (uint32_t kv_head = 0; kv_head < kv_heads; ++kv_head) {
      const KeyRun keys = Keys(kv_head);
      score(shape(), std::span(&keys, 1), scores.data() + size_t{kv_head} * tokens);
    }
    return scores;
  }

  const uint32_t tokens, heads, kv_heads, dim;

 private:
  std::vector<float> q_, k_;
};

// What stays of `tensors` where kvpress keeps n_kept tokens: a set for each kv head.
using Keeper = std::function<std::vector<KeepSet>(const Tensors& tensors, uint64_t n_kept)>;

std::vector<KeepSet> Select(const Tensors& tensors, const BudgetConfig& config,
                            const std::vector<float>& scores) {
  std::vector<uint64_t> numbers(tensors.tokens);
  std::iota(numbers.begin(), numbers.end(), uint64_t{0});
  const std::vector<TokenId> ids(tensors.tokens);
  ScoredRows rows;
  rows.kv_heads = tensors.kv_heads;
  rows.heads = static_cast<uint32_t>(scores.size() / tensors.tokens);
  rows.entries = tensors.tokens;
  rows.scores = scores;
  rows.rows = numbers;
  rows.ids = ids;
  std::vector<KeepSet> sets = Value(Value(BudgetSelector::Create(config))->Select(rows));
  if (sets.size() == 1) sets.resize(tensors.kv_heads, sets.front());
  for (KeepSet& set : sets) {
    for (uint64_t row = tensors.tokens - config.recent; row < tensors.tokens; ++row) {
      set.push_back(static_cast<uint32_t>(row));
    }
  }
  return sets;
}

Keeper SnapKv(uint32_t window, uint32_t kernel) {
  return [=](const Tensors& tensors, uint64_t n_kept) {
    BudgetConfig config;
    config.budget = n_kept - window;
    config.recent = window;
    config.pooling = kernels::Pooling::kAverage;
    config.kernel = kernel;
    return Select(tensors, config, tensors.Mass(window));
  };
}

// kvpress forces the last token by the largest score; for us it is a recent one.
std::vector<KeepSet> Tova(const Tensors& tensors, uint64_t n_kept) {
  BudgetConfig config;
  config.budget = n_kept - 1;
  config.recent = 1;
  config.shared_across_heads = true;
  return Select(tensors, config, tensors.Mass(1));
}

// kvpress averages over the queries that could see a key, and keeps no recent tokens.
std::vector<KeepSet> ObservedAttention(const Tensors& tensors, uint64_t n_kept) {
  std::vector<float> scores = tensors.Mass(tensors.tokens);
  for (size_t i = 0; i < scores.size(); ++i) {
    scores[i] /= static_cast<float>(tensors.tokens - i % tensors.tokens);
  }
  BudgetConfig config;
  config.budget = n_kept;
  return Select(tensors, config, scores);
}

Keeper ByKeys(Tensors::KeyScores score) {
  return [=](const Tensors& tensors, uint64_t n_kept) {
    BudgetConfig config;
    config.budget = n_kept;
    return Select(tensors, config, tensors.OfKeys(score));
  };
}

// What the last query sees under the policy itself, fed one token after the other.
std::vector<KeepSet> StreamingLlm(const Tensors& tensors, uint64_t n_kept) {
  PolicyContext context;
  PolicyLanes lanes = Value(MakeLanes(
      fmt::format("streamingllm:start_size=4,recent_size={},positions=original", n_kept - 4),
      context));
  RetentionPolicy& policy = *lanes.lanes.front();
  Table table;
  const auto take_plans = [&] {
    while (auto plan = policy.NextPlan({1, 1})) {
      table.kept.insert(table.kept.end(), plan->append.begin(), plan->append.end());
      if (!plan->drop.empty()) throw std::runtime_error("initial rows are never dropped");
      table.plan = *std::move(plan);
    }
  };
  for (uint32_t row = 0; row + 1 < tensors.tokens; ++row) {
    take_plans();
    const TokenId id = row;
    policy.Append(std::span(&id, 1));
  }
  take_plans();
  KeepSet set;
  for (const SeenKey& key : table.SeenBy(tensors.tokens - 1)) {
    set.push_back(static_cast<uint32_t>(key.row));
  }
  std::sort(set.begin(), set.end());
  return std::vector<KeepSet>(tensors.kv_heads, set);
}

const std::map<std::string, Keeper>& Keepers() {
  static const std::map<std::string, Keeper> keepers = {
      {"snapkv_k5", SnapKv(32, 5)},
      {"snapkv_k15", SnapKv(16, 15)},
      {"streamingllm", StreamingLlm},
      {"tova", Tova},
      {"observed_attention", ObservedAttention},
      {"knorm", ByKeys(kernels::KeyNormScores)},
      {"keydiff", ByKeys(kernels::KeyDifferenceScores)},
  };
  return keepers;
}

// "3" is tokens 0 and 1, "01" is token 4.
KeepSet FromHex(const std::string& hex) {
  KeepSet set;
  for (uint32_t i = 0; i < hex.size(); ++i) {
    const auto digit = static_cast<uint32_t>(std::string("0123456789abcdef").find(hex[i]));
    if (digit > 15) throw std::runtime_error("a kept set of the record has another digit");
    for (uint32_t bit = 0; bit < 4; ++bit) {
      if ((digit >> bit & 1) != 0) set.push_back(4 * i + bit);
    }
  }
  return set;
}

Json ReadRecord() {
  std::ifstream file(KVASIR_KVPRESS_RECORD);
  return Json::parse(file);
}

class KvpressTest : public ::testing::TestWithParam<std::string> {};

TEST_P(KvpressTest, KeepsTheRecordedTokens) {
  const Json record = ReadRecord();
  ASSERT_GE(record.at("cases").size(), 3u);
  size_t heads = 0, compared = 0;
  for (const Json& test : record.at("cases")) {
    const Json& press = test.at("presses").at(GetParam());
    const auto n_kept = press.at("n_kept").get<uint64_t>();
    const Tensors tensors(test);
    const std::vector<KeepSet> sets = Keepers().at(GetParam())(tensors, n_kept);
    ASSERT_EQ(sets.size(), tensors.kv_heads);
    for (uint32_t head = 0; head < tensors.kv_heads; ++head, ++heads) {
      if (press.at("gap").at(head).get<double>() <= kGapMin) continue;
      ++compared;
      const KeepSet want = FromHex(press.at("kept").at(head).get<std::string>());
      ASSERT_EQ(want.size(), n_kept);
      EXPECT_EQ(sets[head], want) << tensors.tokens << " tokens, head " << head;
    }
  }
  EXPECT_GE(compared * 10, heads * 8) << "the record has too many ties to say something";
}

TEST(KvpressRecordTest, EveryPressOfTheRecordIsTested) {
  const Json record = ReadRecord();
  for (const Json& test : record.at("cases")) {
    EXPECT_EQ(test.at("presses").size(), Keepers().size());
    for (const auto& [name, press] : test.at("presses").items()) {
      EXPECT_EQ(Keepers().count(name), 1u) << name;
    }
  }
}

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const auto& [name, keeper] : Keepers()) names.push_back(name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Presses, KvpressTest, ::testing::ValuesIn(Names()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace kvasir::testing
