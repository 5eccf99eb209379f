// What an engine sees through libkvasir, row by row, equals what the policy's rule says, with real
// sockets, real memory and compactions under way.
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/daemon_fixture.h"

namespace kvasir::testing {
namespace {

using Rule = std::function<std::vector<uint64_t>(const std::vector<uint32_t>& ids, uint64_t row)>;

Rule StaticRule(uint64_t init, uint64_t window, bool separators) {
  return [=](const std::vector<uint32_t>& ids, uint64_t row) {
    std::vector<uint64_t> visible;
    for (uint64_t j = 0; j <= row; ++j) {
      const bool separator = separators && (ids[j] == 1 || ids[j] == 2);
      if (j < init || separator || row - j < window) visible.push_back(j);
    }
    return visible;
  };
}

class RetentionTest : public DaemonFixture {
 protected:
  // Streams `rows` rows in random batches and compares every query of every layer.
  void Stream(const std::string& retention, uint64_t rows, uint32_t batch_max,
              const std::vector<Rule>& rule_of_layer, uint64_t seed) {
    SCOPED_TRACE(retention);
    const auto layers = static_cast<uint32_t>(rule_of_layer.size());
    const ModelSpec spec = TinySpec(layers);
    std::unique_ptr<Session> session = Connect();
    ASSERT_NE(session, nullptr);
    absl::StatusOr<ModelHandle> model = session->RegisterModel(spec);
    ASSERT_TRUE(model.ok()) << MessageOf(model.status());
    absl::StatusOr<Sequence> sequence = session->OpenSequence({*model, retention, 0, "test"});
    ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    std::mt19937_64 random(seed);
    std::vector<uint32_t> ids(rows);
    for (uint32_t& id : ids) id = static_cast<uint32_t>(random() % 8);
    uint64_t row = 0;
    while (row < rows) {
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
                    rule_of_layer[layer](ids, row + t))
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
  }
};

TEST_F(RetentionTest, FullKeepsEveryRow) {
  Stream("full", 300, 40, std::vector<Rule>(3, StaticRule(0, 1 << 30, false)), 1);
}

TEST_F(RetentionTest, StreamingLlmKeepsSinksAndWindow) {
  Stream("streamingllm:start_size=4,recent_size=37", 500, 20,
         std::vector<Rule>(2, StaticRule(4, 37, false)), 2);
}

TEST_F(RetentionTest, StaticSepLlmKeepsSinksSeparatorsAndWindow) {
  Stream("sepllm:form=static,init_cache_size=3,local_size=40", 700, 30,
         std::vector<Rule>(2, StaticRule(3, 40, true)), 3);
}

TEST_F(RetentionTest, WindowsSmallerThanABlockAreExact) {
  Stream("sepllm:form=static,init_cache_size=1,local_size=3", 200, 10,
         std::vector<Rule>(2, StaticRule(1, 3, true)), 4);
  Stream("streamingllm:start_size=2,recent_size=1", 100, 10,
         std::vector<Rule>(1, StaticRule(2, 1, false)), 5);
}

TEST_F(RetentionTest, LayersWithOtherSettingsKeepOtherRows) {
  Stream("sepllm:form=static,init_cache_size=2,local_size=20/50x2/8", 500, 25,
         {StaticRule(2, 20, true), StaticRule(2, 50, true), StaticRule(2, 50, true),
          StaticRule(2, 8, true)},
         6);
}

TEST_F(RetentionTest, RowsWrittenAfterATruncationAreSeenAsTheyAre) {
  const ModelSpec spec = TinySpec(1);
  const Rule rule = StaticRule(2, 12, true);
  const std::unique_ptr<Session> session = Connect();
  ASSERT_NE(session, nullptr);
  const absl::StatusOr<ModelHandle> model = session->RegisterModel(spec);
  ASSERT_TRUE(model.ok()) << MessageOf(model.status());
  absl::StatusOr<Sequence> sequence = session->OpenSequence(
      {*model, "sepllm:form=static,init_cache_size=2,local_size=12", 0, "truncated"});
  ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
  std::mt19937_64 random(7);
  std::vector<uint32_t> ids;
  uint64_t truncated = 0;
  for (int turn = 0; turn < 400; ++turn) {
    absl::StatusOr<StepView> step = sequence->Begin(1 + static_cast<uint32_t>(random() % 6));
    ASSERT_TRUE(step.ok()) << MessageOf(step.status());
    ASSERT_EQ(step->row, ids.size());
    WriteTestRows(*step, spec);
    for (uint32_t t = 0; t < step->count; ++t) {
      ids.push_back(static_cast<uint32_t>(random() % 5));
      ASSERT_EQ(VisibleRows(step->layers[0], step->row + t, 0, spec), rule(ids, step->row + t));
    }
    ASSERT_TRUE(sequence->Commit(std::span(ids).subspan(step->row, step->count)).ok());
    if (random() % 4 != 0) continue;
    const uint64_t rows = ids.size() - random() % std::min<uint64_t>(ids.size(), 8);
    const absl::Status status = sequence->Truncate(rows);
    ASSERT_TRUE(status.ok() || status.code() == absl::StatusCode::kFailedPrecondition)
        << MessageOf(status);
    if (!status.ok()) continue;
    ids.resize(rows);
    ++truncated;
  }
  EXPECT_GT(truncated, 20U);
}

}  // namespace
}  // namespace kvasir::testing
