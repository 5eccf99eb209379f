// What an engine sees through libkvasir, row by row, equals what the policy's rule says, with real
// sockets, real memory and compactions under way.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "policies/sep_stream.h"
#include "tests/support/daemon_fixture.h"

namespace kvasir::testing {
namespace {

// For a stream of ids: the rows that the query of each row sees.
using Visible = std::vector<std::vector<uint64_t>>;
using Rule = std::function<Visible(const std::vector<uint32_t>& ids)>;

Rule StaticRule(uint64_t init, uint64_t window, bool separators) {
  return [=](const std::vector<uint32_t>& ids) {
    Visible visible(ids.size());
    for (uint64_t row = 0; row < ids.size(); ++row) {
      for (uint64_t j = 0; j <= row; ++j) {
        const bool separator = separators && (ids[j] == 1 || ids[j] == 2);
        if (j < init || separator || row - j < window) visible[row].push_back(j);
      }
    }
    return visible;
  };
}

// The state machine that the golden vectors test, a row a step.
Rule StreamingRule(SepStreamVariant variant, int64_t a, int64_t s, int64_t w, int64_t c) {
  return [=](const std::vector<uint32_t>& ids) {
    SepStreamConfig config;
    config.variant = variant;
    config.a = a;
    config.s = s;
    config.w = w;
    config.c = c;
    config.separators = SeparatorSet(std::vector<TokenId>{1, 2});
    SepStream stream(config);
    Visible visible(ids.size());
    for (uint64_t row = 0; row < ids.size(); ++row) {
      std::vector<uint64_t> before = stream.KeptRows(0);
      // SepCache wants one prefill step before it compacts; one row is too short to matter.
      const absl::Status status =
          stream.Step(std::vector<std::vector<TokenId>>{{ids[row]}}, row == 0);
      EXPECT_TRUE(status.ok()) << MessageOf(status);
      if (variant == SepStreamVariant::kSepCache)
        before = stream.KeptRows(0);
      else
        before.push_back(row);
      std::sort(before.begin(), before.end());
      visible[row] = std::move(before);
    }
    return visible;
  };
}

class RetentionTest : public DaemonFixture {
 protected:
  // Streams `rows` rows in random batches and compares every query of every layer.
  void Stream(const std::string& retention, uint64_t rows, uint32_t batch_max,
              const std::vector<Rule>& rule_of_layer, uint64_t seed) {
    Stream(TinySpec(static_cast<uint32_t>(rule_of_layer.size())), retention, rows, batch_max,
           rule_of_layer, seed);
  }
  void Stream(const ModelSpec& spec, const std::string& retention, uint64_t rows,
              uint32_t batch_max, const std::vector<Rule>& rule_of_layer, uint64_t seed) {
    SCOPED_TRACE(retention);
    const auto layers = static_cast<uint32_t>(spec.layers.size());
    std::unique_ptr<Session> session = Connect();
    ASSERT_NE(session, nullptr);
    absl::StatusOr<ModelHandle> model = session->RegisterModel(spec);
    ASSERT_TRUE(model.ok()) << MessageOf(model.status());
    absl::StatusOr<Sequence> sequence = session->OpenSequence({*model, retention, 0, "test"});
    ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    std::mt19937_64 random(seed);
    std::vector<uint32_t> ids(rows);
    for (uint32_t& id : ids) id = static_cast<uint32_t>(random() % 8);
    std::vector<Visible> expected;
    for (const Rule& rule : rule_of_layer) expected.push_back(rule(ids));
    uint64_t row = 0, truncations = 0;
    while (row < rows) {
      if (truncate_ && row > 0 && random() % 4 == 0) {
        const uint64_t target = row - random() % std::min<uint64_t>(row, 40);
        const absl::Status truncated = sequence->Truncate(target);
        if (truncated.ok()) {
          for (uint64_t i = target; i < rows; ++i) ids[i] = static_cast<uint32_t>(random() % 8);
          for (uint32_t l = 0; l < layers; ++l) expected[l] = rule_of_layer[l](ids);
          row = target;
          ++truncations;
        } else {
          ASSERT_EQ(truncated.code(), absl::StatusCode::kFailedPrecondition);
          ASSERT_THAT(MessageOf(truncated), ::testing::HasSubstr("rollback_floor="));
        }
      }
      const auto want =
          static_cast<uint32_t>(std::min<uint64_t>(1 + random() % batch_max, rows - row));
      absl::StatusOr<StepView> step = sequence->Begin(want);
      ASSERT_TRUE(step.ok()) << "row " << row << ": " << MessageOf(step.status());
      ASSERT_EQ(step->row, row);
      ASSERT_GE(step->count, 1U);
      WriteTestRows(*step, spec);
      for (uint32_t t = 0; t < step->count; ++t) {
        for (uint32_t layer = 0; layer < layers; ++layer) {
          ASSERT_EQ(VisibleRows(step->layers[layer], row + t, layer, spec),
                    expected[layer][row + t])
              << "row " << row + t << " layer " << layer;
        }
      }
      const absl::Status committed = sequence->Commit(std::span(ids).subspan(row, step->count));
      ASSERT_TRUE(committed.ok()) << MessageOf(committed);
      row += step->count;
    }
    absl::StatusOr<Sequence::Footprint> footprint = sequence->MeasureFootprint();
    ASSERT_TRUE(footprint.ok()) << MessageOf(footprint.status());
    EXPECT_EQ(footprint->held_bytes, HeldBytes());
    EXPECT_EQ(truncate_, truncations > 0);
  }

  bool truncate_ = false;
};

TEST_F(RetentionTest, FullKeepsEveryRow) {
  Stream("full", 300, 40, std::vector<Rule>(3, StaticRule(0, 1 << 30, false)), 1);
}

TEST_F(RetentionTest, StreamingLlmKeepsSinksAndWindow) {
  Stream("streamingllm:start_size=4,recent_size=37,positions=original", 500, 20,
         std::vector<Rule>(2, StaticRule(4, 37, false)), 2);
}

TEST_F(RetentionTest, StaticSepLlmKeepsSinksSeparatorsAndWindow) {
  Stream("sepllm:form=static,init_cache_size=3,local_size=40", 700, 30,
         std::vector<Rule>(2, StaticRule(3, 40, true)), 3);
}

TEST_F(RetentionTest, WindowsSmallerThanABlockAreExact) {
  Stream("sepllm:form=static,init_cache_size=1,local_size=3", 200, 10,
         std::vector<Rule>(2, StaticRule(1, 3, true)), 4);
  Stream("streamingllm:start_size=2,recent_size=1,positions=original", 100, 10,
         std::vector<Rule>(1, StaticRule(2, 1, false)), 5);
}

TEST_F(RetentionTest, LayersWithOtherSettingsKeepOtherRows) {
  Stream("sepllm:form=static,init_cache_size=2,local_size=20/50x2/8", 500, 25,
         {StaticRule(2, 20, true), StaticRule(2, 50, true), StaticRule(2, 50, true),
          StaticRule(2, 8, true)},
         6);
}

TEST_F(RetentionTest, StreamingFormsCompactWhereThePaperDoes) {
  // f16 rows are turned in the copy where positions are in the cache; here they stay as written.
  Stream("sepllm:form=sepcache,init_cache_size=2,sep_cache_size=6,local_size=20,cache_size=60", 900,
         25, std::vector<Rule>(2, StreamingRule(SepStreamVariant::kSepCache, 2, 6, 20, 60)), 7);
  Stream(
      "sepllm:form=manager,init_cache_size=3,sep_cache_size=40,local_size=33,cache_size=150,"
      "positions=original",
      1200, 50, std::vector<Rule>(1, StreamingRule(SepStreamVariant::kManager, 3, 40, 33, 150)), 8);
  Stream(
      "sepllm:form=manager,init_cache_size=1,sep_cache_size=2,local_size=3,cache_size=9,"
      "positions=original",
      200, 12, std::vector<Rule>(1, StreamingRule(SepStreamVariant::kManager, 1, 2, 3, 9)), 9);
}

TEST_F(RetentionTest, LayersMayDifferInShapeAndAttention) {
  ModelSpec spec = TinySpec(5);
  spec.layers[1] = {1, 24, 8, 0};    // pruned
  spec.layers[2] = {1, 40, 0, 0};    // latent attention: no V rows
  spec.layers[3] = {2, 16, 16, 30};  // sliding window
  spec.layers[4] = {4, 16, 32, 7};
  const Rule sepllm = StaticRule(2, 50, true);
  Stream(spec, "sepllm:form=static,init_cache_size=2,local_size=50", 400, 20,
         {sepllm, sepllm, sepllm, StaticRule(0, 30, false), StaticRule(0, 7, false)}, 14);
}

TEST_F(RetentionTest, TruncationIsExactDownToTheFloor) {
  truncate_ = true;
  Stream("full", 300, 20, std::vector<Rule>(2, StaticRule(0, 1 << 30, false)), 10);
  Stream("streamingllm:start_size=2,recent_size=45,positions=original", 400, 20,
         std::vector<Rule>(1, StaticRule(2, 45, false)), 11);
  Stream("sepllm:form=static,init_cache_size=2,local_size=50/70", 500, 20,
         {StaticRule(2, 50, true), StaticRule(2, 70, true)}, 12);
  Stream(
      "sepllm:form=manager,init_cache_size=3,sep_cache_size=20,local_size=33,cache_size=150,"
      "positions=original",
      700, 20, std::vector<Rule>(1, StreamingRule(SepStreamVariant::kManager, 3, 20, 33, 150)), 13);
}

}  // namespace
}  // namespace kvasir::testing
