// Refusals and rules of selection that the golden vectors do not reach: combinations with a
// StayRule, shared rows, GemFilter's always_keep, decay, StreamingLLM's cache.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "policies/selection/budget_selector.h"
#include "policies/selection/gemfilter.h"
#include "policies/selection/heavy_hitters.h"
#include "policies/selection/start_recent_cache.h"

namespace kvasir {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

template <typename T>
std::string ErrorOf(const absl::StatusOr<T>& result) {
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  return MessageOf(result.status());
}

std::string ErrorOf(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return MessageOf(status);
}

// Scores of a few heads over rows 0, 1, ...; ids are the row numbers.
struct Table {
  explicit Table(std::vector<std::vector<float>> heads, uint32_t kv_heads = 0) {
    rows.heads = static_cast<uint32_t>(heads.size());
    rows.kv_heads = kv_heads == 0 ? rows.heads : kv_heads;
    rows.entries = heads[0].size();
    for (const auto& head : heads) scores.insert(scores.end(), head.begin(), head.end());
    numbers.resize(rows.entries);
    ids.resize(rows.entries);
    std::iota(numbers.begin(), numbers.end(), 0U);
    std::iota(ids.begin(), ids.end(), 0U);
    rows.scores = scores;
    rows.rows = numbers;
    rows.ids = ids;
  }
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;

  std::vector<float> scores;
  std::vector<uint64_t> numbers;
  std::vector<TokenId> ids;
  ScoredRows rows;
};

// Rows below `start` and ids of a list stay.
class Stay : public StayRule {
 public:
  Stay(uint64_t start, std::vector<TokenId> ids) : start_(start), ids_(std::move(ids)) {}
  bool Stays(uint64_t row, TokenId id) const override {
    return row < start_ || std::find(ids_.begin(), ids_.end(), id) != ids_.end();
  }
  std::string Description() const override { return "in this test"; }

 private:
  uint64_t start_;
  std::vector<TokenId> ids_;
};

std::shared_ptr<const BudgetSelector> Make(BudgetConfig config) {
  auto made = BudgetSelector::Create(std::move(config));
  EXPECT_TRUE(made.ok()) << made.status();
  return *made;
}

BudgetConfig Budget(uint64_t budget, uint64_t recent = 0) {
  BudgetConfig config;
  config.budget = budget;
  config.recent = recent;
  return config;
}

std::vector<KeepSet> Choose(const BudgetConfig& config, const ScoredRows& rows) {
  auto sets = Make(config)->Select(rows);
  EXPECT_TRUE(sets.ok()) << sets.status();
  return sets.ok() ? *sets : std::vector<KeepSet>();
}

TEST(BudgetSelector, RefusesABadConfigByNameAndBound) {
  EXPECT_THAT(ErrorOf(BudgetSelector::Create(Budget(0))), HasSubstr("budget=0 min=1"));
  BudgetConfig config = Budget(4);
  config.pooling = kernels::Pooling::kAverage;
  for (const uint32_t kernel : {0U, 4U, kMaxPoolingKernel + 1, kMaxPoolingKernel + 2}) {
    config.kernel = kernel;
    EXPECT_THAT(ErrorOf(BudgetSelector::Create(config)),
                AllOf(HasSubstr("kernel=" + std::to_string(kernel)), HasSubstr("max=1023")));
  }
  config.pooling.reset();  // nobody looks at the kernel then
  EXPECT_TRUE(BudgetSelector::Create(config).ok());
}

TEST(BudgetSelector, RefusesRowsThatDoNotFit) {
  const auto selector = Make(Budget(2));
  const auto error = [&](void (*change)(Table&)) {
    Table table({{1, 2, 3, 4}, {4, 3, 2, 1}});
    change(table);
    return ErrorOf(selector->Select(table.rows));
  };
  EXPECT_THAT(error([](Table& t) { t.rows.entries = 0; }), HasSubstr("entries=0 min=1"));
  EXPECT_THAT(error([](Table& t) { t.rows.entries = uint64_t{1} << 32U; }),
              HasSubstr("max=4294967295"));
  EXPECT_THAT(error([](Table& t) { t.rows.kv_heads = 0; }), HasSubstr("kv_heads=0"));
  EXPECT_THAT(error([](Table& t) { t.rows.heads = 0; }), HasSubstr("heads=0"));
  EXPECT_THAT(error([](Table& t) { t.rows.heads = 3; }), HasSubstr("heads=3 kv_heads=2"));
  EXPECT_THAT(error([](Table& t) { t.rows.sets = 3; }), HasSubstr("sets=3"));
  EXPECT_THAT(error([](Table& t) { t.rows.entries = 3; }), HasSubstr("scores=8 heads=2 entries=3"));
  EXPECT_THAT(error([](Table& t) { t.rows.sets = 2; }), HasSubstr("rows=4 ids=4 sets=2"));
  EXPECT_THAT(error([](Table& t) { t.rows.ids = t.rows.ids.first(3); }), HasSubstr("ids=3"));
  EXPECT_THAT(error([](Table& t) { t.scores[5] = kNan; }), HasSubstr("index=5"));
  EXPECT_THAT(error([](Table& t) { t.scores[0] = -kInf; }), HasSubstr("index=0 value=-inf"));
}

TEST(BudgetSelector, RefusesScoresThatAreNotFiniteEvenWhereAllStay) {
  Table table({{1, kInf}});
  EXPECT_THAT(ErrorOf(Make(Budget(5))->Select(table.rows)), HasSubstr("value=inf"));
}

TEST(BudgetSelector, RefusesASumThatOverflows) {
  const float most = std::numeric_limits<float>::max();
  Table table({{most, 0, 1}, {most, 0, 1}}, 1);
  EXPECT_THAT(ErrorOf(Make(Budget(1))->Select(table.rows)), HasSubstr("summed"));
}

TEST(BudgetSelector, SharingNeedsSharedRows) {
  Table table({{1, 2}, {3, 4}});
  table.rows.sets = 2;
  const std::vector<uint64_t> rows = {0, 1, 0, 1};
  const std::vector<TokenId> ids(4);
  table.rows.rows = rows;
  table.rows.ids = ids;
  BudgetConfig config = Budget(1);
  EXPECT_THAT(Choose(config, table.rows), ElementsAre(KeepSet{1}, KeepSet{1}));
  config.shared_across_heads = true;
  EXPECT_THAT(ErrorOf(Make(config)->Select(table.rows)), HasSubstr("sets=2 max=1"));
}

TEST(BudgetSelector, TiesGoToTheLowerEntryAndRecentRowsAreNoCandidates) {
  Table table({{1, 5, 5, 5, 9, 9}});
  EXPECT_THAT(Choose(Budget(2, 2), table.rows), ElementsAre(KeepSet{1, 2}));
  EXPECT_THAT(Choose(Budget(4, 2), table.rows), ElementsAre(KeepSet{0, 1, 2, 3}));
  EXPECT_THAT(Choose(Budget(9, 2), table.rows), ElementsAre(KeepSet{0, 1, 2, 3}));
  EXPECT_THAT(Choose(Budget(2, 6), table.rows), ElementsAre(KeepSet{}));
  EXPECT_THAT(Choose(Budget(2, std::numeric_limits<uint64_t>::max()), table.rows),
              ElementsAre(KeepSet{}));
}

TEST(BudgetSelector, GroupsAreAveragedAndSharedHeadsSummed) {
  Table table({{0, 8, 0, 0}, {6, 0, 0, 0}, {0, 0, 7, 0}, {0, 0, 0, 1}}, 2);
  EXPECT_THAT(Choose(Budget(1), table.rows), ElementsAre(KeepSet{1}, KeepSet{2}));
  BudgetConfig config = Budget(3);
  config.shared_across_heads = true;
  EXPECT_THAT(Choose(config, table.rows), ElementsAre(KeepSet{0, 1, 2}));
  table.rows.kv_heads = 4;  // one set for each query head
  EXPECT_EQ(Choose(Budget(1), table.rows).size(), 4U);
}

TEST(BudgetSelector, PoolingSeesTheCandidatesAlone) {
  Table table({{0, 0, 3, 0, 0, 0, 100}});
  BudgetConfig config = Budget(3, 1);
  config.kernel = 3;
  for (const auto pooling : {kernels::Pooling::kAverage, kernels::Pooling::kMaximum}) {
    config.pooling = pooling;
    EXPECT_THAT(Choose(config, table.rows), ElementsAre(KeepSet{1, 2, 3}));
  }
}

TEST(BudgetSelector, WhatMustStayTakesItsPartOfTheBudget) {
  Table table({{0, 0, 9, 8, 0, 7, 0, 1}});
  BudgetConfig config = Budget(4, 1);
  config.start_size = 1;
  config.always = std::make_shared<Stay>(1, std::vector<TokenId>{4, 7});
  EXPECT_THAT(Choose(config, table.rows), ElementsAre(KeepSet{0, 2, 3, 4}));
  config.budget = 2;  // just what must stay
  EXPECT_THAT(Choose(config, table.rows), ElementsAre(KeepSet{0, 4}));
}

TEST(BudgetSelector, TooManyForcedRowsKeepTheFirstAndTheNewest) {
  Table table({{9, 9, 9, 9, 9, 0, 0, 0, 0, 0}});
  BudgetConfig config = Budget(4);
  config.start_size = 2;
  config.always = std::make_shared<Stay>(2, std::vector<TokenId>{3, 5, 6, 8});
  EXPECT_THAT(Choose(config, table.rows), ElementsAre(KeepSet{0, 1, 6, 8}));
  config.budget = 1;
  EXPECT_THAT(Choose(config, table.rows), ElementsAre(KeepSet{0}));
  config.budget = 2;
  EXPECT_THAT(Choose(config, table.rows), ElementsAre(KeepSet{0, 1}));
}

TEST(GemFilter, RefusesABadConfigByNameAndBound) {
  GemFilterConfig config;
  config.topk = 0;
  EXPECT_THAT(ErrorOf(GemFilter::Create(config)), HasSubstr("topk=0 min=1"));
  config.topk = 8;
  for (const uint32_t kernel : {0U, 2U, 1025U}) {
    config.kernel = kernel;
    EXPECT_THAT(ErrorOf(GemFilter::Create(config)),
                HasSubstr("kernel=" + std::to_string(kernel) + " min=1 max=1023"));
  }
  config.kernel = 5;
  config.n_sink = 5;
  config.n_tail = 4;
  EXPECT_THAT(ErrorOf(GemFilter::Create(config)), HasSubstr("n_sink=5 n_tail=4 max_sum=8"));
  config.n_sink = std::numeric_limits<uint32_t>::max();
  EXPECT_FALSE(GemFilter::Create(config).ok());
}

TEST(GemFilter, RefusesKeysAndQueriesThatDoNotFit) {
  const GemFilter filter = GemFilter::Create({}).value();
  const std::vector<float> keys = {1, 2, 3, 4};
  const auto* bytes = reinterpret_cast<const std::byte*>(keys.data());
  const kernels::KeyShape shape{kernels::RowType::kF32, 1, 2};
  std::vector<float> q = {1, 1};
  const auto error = [&](const kernels::KeyShape& of, const kernels::KeyRun& run) {
    return ErrorOf(filter.Select(of, q, std::span(&run, 1)));
  };
  EXPECT_THAT(error(shape, {bytes, 8, 0}), HasSubstr("keys=0 min=1"));
  EXPECT_THAT(error(shape, {nullptr, 8, 2}), HasSubstr("without memory: rows=2"));
  EXPECT_THAT(error(shape, {bytes, 7, 2}), HasSubstr("stride=7 min=8"));
  EXPECT_THAT(error({kernels::RowType::kF32, 0, 2}, {bytes, 8, 2}), HasSubstr("kv_heads=0"));
  EXPECT_THAT(error({kernels::RowType::kF32, 1, 1U << 25U}, {bytes, 8, 2}), HasSubstr("max="));
  EXPECT_THAT(error({kernels::RowType::kF32, 1, 1}, {bytes, 4, 2}), HasSubstr("query=2"));
  q[1] = kNan;
  EXPECT_THAT(error(shape, {bytes, 8, 2}), HasSubstr("query is not finite: index=1"));
  q = {std::numeric_limits<float>::max(), std::numeric_limits<float>::max()};
  EXPECT_THAT(error(shape, {bytes, 8, 2}), HasSubstr("score is not finite"));
  EXPECT_THAT(ErrorOf(filter.SelectByDots({})), HasSubstr("keys=0 min=1"));
}

TEST(GemFilter, AlwaysKeepCountsTowardTopk) {
  GemFilterConfig config;
  config.topk = 4;
  config.kernel = 1;
  const std::vector<float> dots = {0, 0, 9, 5, 9, 7, 0, 0};
  const auto positions = [&] {
    return GemFilter::Create(config).value().SelectByDots(dots).value().positions;
  };
  EXPECT_THAT(positions(), ElementsAre(2, 3, 4, 5));
  config.n_sink = 1;
  config.n_tail = 2;
  EXPECT_THAT(positions(), ElementsAre(0, 2, 6, 7));
  config.n_tail = 3;
  EXPECT_THAT(positions(), ElementsAre(0, 5, 6, 7));
  config.topk = 100;
  EXPECT_EQ(positions().size(), dots.size());
}

TEST(HeavyHitters, DecaysTheBaseAndAddsTheMass) {
  const std::vector<float> base = {8, 4};
  std::vector<float> total = {1, 2, 3};
  ASSERT_TRUE(AddRunningScores(base, 0.5, 3, total, total).ok());
  EXPECT_THAT(total, ElementsAre(2, 2.5F, 3));
  const std::vector<float> mass = {1, 1};
  ASSERT_TRUE(AddRunningScores(base, 1.0, 1U << 30U, mass, std::span(total).first(2)).ok());
  EXPECT_THAT(total, ElementsAre(9, 5, 3));  // without decay the tokens do not matter
}

TEST(HeavyHitters, RefusesBadValuesAndWritesNothing) {
  std::vector<float> base = {1};
  std::vector<float> mass = {1, 2};
  std::vector<float> total = {7, 7};
  for (const double decay : {0.0, -1.0, 1.5, std::nan("")}) {
    EXPECT_THAT(ErrorOf(AddRunningScores(base, decay, 1, mass, total)), HasSubstr("max=1"));
  }
  EXPECT_THAT(ErrorOf(AddRunningScores(base, 1, 1, {}, {})), HasSubstr("base=1 mass=0"));
  EXPECT_THAT(ErrorOf(AddRunningScores(base, 1, 1, mass, std::span(total).first(1))),
              HasSubstr("mass=2 total=1"));
  for (const float bad : {-1.0F, kNan, kInf}) {
    mass[1] = bad;
    EXPECT_THAT(ErrorOf(AddRunningScores(base, 1, 1, mass, total)), HasSubstr("index=1"));
  }
  base[0] = kInf;
  EXPECT_THAT(ErrorOf(AddRunningScores(base, 1, 1, mass, total)), HasSubstr("base score"));
  EXPECT_THAT(total, ElementsAre(7, 7));
}

// The conformance test holds the policy to the same rows.
TEST(StartRecentCache, HoldsTheFirstAndTheLastRowsAfterEachToken) {
  for (const auto& [start, recent] : {std::pair{4U, 8U}, {0U, 3U}, {2U, 1U}}) {
    StartRecentCache cache(start, recent);
    for (uint64_t row = 0; row < 40; ++row) {
      cache.Append(1);
      cache.Evict();
      std::vector<uint64_t> want;
      for (uint64_t i = 0; i <= row; ++i) {
        if (i < start || i + recent > row) want.push_back(i);
      }
      EXPECT_EQ(cache.Rows(), want) << "start " << start << " recent " << recent;
    }
  }
}

TEST(StartRecentCache, MakesRoomForMoreThanFits) {
  StartRecentCache cache(2, 3);
  cache.Append(4);
  cache.EvictForSpace(1);  // 5 rows fit
  EXPECT_EQ(cache.size(), 4U);
  cache.EvictForSpace(2);
  EXPECT_THAT(cache.Rows(), ElementsAre(0, 1, 3));
  cache.EvictForSpace(std::numeric_limits<uint64_t>::max());
  EXPECT_THAT(cache.Rows(), ElementsAre(0, 1));
  cache.Append(6);
  EXPECT_EQ(cache.size(), 8U);
}

}  // namespace
}  // namespace kvasir
