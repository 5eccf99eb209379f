// Score-based policies through libkvasir: every kv head sees the rows that a slow model of its
// paper's rule keeps, with real sockets, real memory and compactions under way.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/integration/scored_model.h"
#include "tests/support/daemon_fixture.h"

namespace kvasir::testing {
namespace {

class ScoredRetentionTest : public DaemonFixture {
 protected:
  static ModelSpec Spec(uint32_t layers) {
    ModelSpec spec = TinySpec(layers);
    for (LayerSpec& layer : spec.layers) layer.query_heads = kHeads * kGroup;
    return spec;
  }

  void Decide(const Rule& rule, uint64_t decision, const std::vector<uint32_t>& ids) {
    for (uint32_t layer = 0; layer < layers_; ++layer) {
      std::vector<std::vector<double>> scores;
      for (uint32_t h = 0; h < kHeads; ++h) {
        scores.push_back(ScoresOf(rule, visible_[layer][h], layer, h, decision));
      }
      for (uint32_t h = 1; rule.shared && h < kHeads; ++h) {
        for (size_t i = 0; i < scores[0].size(); ++i) scores[0][i] += scores[h][i];
      }
      for (uint32_t h = 0; h < kHeads; ++h) {
        Visible& at = visible_[layer][h];
        at.rows = Choose(rule, at.rows, scores[rule.shared ? 0 : h], ids);
      }
    }
    ++decisions_;
  }

  // What the view shows to one head for the query of `row`, after checking every byte of it.
  static std::vector<uint64_t> Seen(const LayerView& view, uint64_t row, uint32_t layer,
                                    uint32_t head) {
    std::vector<uint64_t> rows;
    const auto check = [&](const std::byte* data, uint64_t at, uint32_t plane) {
      for (uint32_t d = 0; d < kDim; ++d) {
        uint16_t value = 0;
        std::memcpy(&value, data + 2 * (head * kDim + d), 2);
        ASSERT_EQ(value, TestElement(at, layer, plane, head * kDim + d)) << "row " << at;
      }
    };
    for (const KeptRunView& run : view.kept) {
      for (uint32_t i = 0; i < run.rows; ++i) {
        const uint64_t at = run.positions[head * run.head_stride + i];
        check(run.k + i * run.k_stride, at, 0);
        check(run.v + i * run.v_stride, at, 1);
        rows.push_back(at);
      }
    }
    for (uint64_t p = view.WindowFirst(row); p <= row; ++p) rows.push_back(p);
    return rows;
  }

  // As an engine does in a step: attention probabilities of every visible key.
  void Report(const StepView& step) {
    for (uint32_t layer = 0; layer < layers_; ++layer) {
      const LayerView& view = step.layers[layer];
      for (uint32_t t = 0; t < step.count; ++t) {
        const uint64_t query = step.row + t;
        if (float* const to = view.queries.Of(query)) {
          const std::vector<float> q = QueryOf(query, layer);
          std::copy(q.begin(), q.end(), to);
        }
        if (view.mass.recent == nullptr) continue;
        const double fade = std::pow(step.mass_decay, static_cast<double>(step.count - 1 - t));
        for (uint32_t h = 0; h < kHeads; ++h) {
          uint64_t i = 0;
          for (const KeptRunView& run : view.kept) {
            for (uint32_t r = 0; r < run.rows; ++r, ++i) {
              const uint64_t key = run.positions[h * run.head_stride + r];
              view.mass.kept[h * view.mass.kept_rows + i] +=
                  static_cast<float>(fade * Weight(layer, h, query, key));
            }
          }
          for (uint64_t p = view.WindowFirst(query); p <= query; ++p) {
            view.mass.recent[h * view.mass.recent_rows + p - view.recent_base] +=
                static_cast<float>(fade * Weight(layer, h, query, p));
          }
        }
      }
    }
  }

  void Stream(const Rule& rule, uint32_t layers, uint64_t rows, uint32_t batch_max) {
    SCOPED_TRACE(rule.retention);
    layers_ = layers;
    decisions_ = 0;
    visible_.assign(layers, std::vector<Visible>(kHeads));
    const ModelSpec spec = Spec(layers);
    std::unique_ptr<Session> session = Connect();
    ASSERT_NE(session, nullptr);
    absl::StatusOr<ModelHandle> model = session->RegisterModel(spec);
    ASSERT_TRUE(model.ok()) << MessageOf(model.status());
    absl::StatusOr<Sequence> sequence =
        session->OpenSequence({*model, rule.retention, rule.prompt_rows, "test"});
    ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    std::mt19937_64 random(7);
    std::vector<uint32_t> ids(rows);
    for (uint32_t& id : ids) id = static_cast<uint32_t>(random() % 8);
    for (uint64_t row = 0; row < rows;) {
      const auto want =
          static_cast<uint32_t>(std::min<uint64_t>(1 + random() % batch_max, rows - row));
      absl::StatusOr<StepView> step = sequence->Begin(want);
      ASSERT_TRUE(step.ok()) << "row " << row << ": " << MessageOf(step.status());
      ASSERT_EQ(step->row, row);
      WriteTestRows(*step, spec);
      Report(*step);
      for (uint32_t t = 0; t < step->count; ++t, ++row) {
        if (rule.DecidesAt(row)) Decide(rule, row, ids);
        for (uint32_t layer = 0; layer < layers; ++layer) {
          for (uint32_t h = 0; h < kHeads; ++h) {
            Visible& at = visible_[layer][h];
            at.rows.push_back(row);
            ASSERT_EQ(Seen(step->layers[layer], row, layer, h), at.rows)
                << "row " << row << " layer " << layer << " head " << h;
            for (const uint64_t key : at.rows) {
              at.sum[key] = at.sum[key] * rule.decay + Weight(layer, h, row, key);
            }
          }
        }
        ASSERT_FALSE(HasFatalFailure());
      }
      const absl::Status committed =
          sequence->Commit(std::span(ids).subspan(step->row, step->count));
      ASSERT_TRUE(committed.ok()) << MessageOf(committed);
    }
    absl::StatusOr<Sequence::Footprint> footprint = sequence->MeasureFootprint();
    ASSERT_TRUE(footprint.ok()) << MessageOf(footprint.status());
    EXPECT_EQ(footprint->held_bytes, HeldBytes());
    EXPECT_GT(decisions_, 0U);
  }

  uint32_t layers_ = 0;
  uint64_t decisions_ = 0;
  std::vector<std::vector<Visible>> visible_;  // [layer][kv head]
};

TEST_F(ScoredRetentionTest, H2oKeepsHeavyHittersOfEachHead) {
  Rule rule;
  rule.retention = "h2o:hh_size=20,recent_size=30,evict_interval=16";
  rule.budget = 20;
  rule.recent = 30;
  rule.interval = 16;
  Stream(rule, 2, 400, 25);
}

TEST_F(ScoredRetentionTest, H2oDecidesAtEveryStepAsThePaperDoes) {
  Rule rule;
  rule.retention = "h2o:hh_size=9,recent_size=7,evict_interval=1";
  rule.budget = 9;
  rule.recent = 7;
  rule.interval = 1;
  Stream(rule, 2, 90, 8);
}

TEST_F(ScoredRetentionTest, H2oWithDecayAndSharedHeads) {
  Rule rule;
  rule.retention = "h2o:hh_size=40,recent_size=10,evict_interval=32,decay=0.9,heads=shared";
  rule.budget = 40;
  rule.recent = 10;
  rule.interval = 32;
  rule.decay = 0.9;
  rule.shared = true;
  Stream(rule, 3, 500, 40);
}

TEST_F(ScoredRetentionTest, TovaKeepsWhatTheLastQueryLooksAt) {
  Rule rule;
  rule.retention = "tova:max_capacity=33,evict_interval=8";
  rule.budget = 32;
  rule.recent = 1;
  rule.interval = 8;
  rule.decay = 0.0;
  rule.shared = true;
  Stream(rule, 2, 300, 20);
}

TEST_F(ScoredRetentionTest, SeparatorsAndSinksBesideHeavyHitters) {
  Rule rule;
  rule.retention = "sinks:size=3|separators:ids=1|h2o:hh_size=60,recent_size=20,evict_interval=20";
  rule.budget = 60;
  rule.recent = 20;
  rule.interval = 20;
  rule.always = [](uint64_t row, uint32_t id) { return row < 3 || id == 1; };
  Stream(rule, 2, 300, 30);
}

TEST_F(ScoredRetentionTest, SnapKvDecidesOnceBehindThePrompt) {
  Rule rule;
  rule.retention =
      "snapkv:max_capacity_prompt=72,window_size=8,kernel_size=5,pooling=avgpool,start_size=0";
  rule.budget = 64;
  rule.recent = 8;
  rule.prompt_rows = 203;
  rule.score = Rule::Score::kQueries;
  rule.window = 8;
  rule.kernel = 5;
  Stream(rule, 2, 400, 50);
}

TEST_F(ScoredRetentionTest, KeysAloneDecideKnormAndKeyDiff) {
  Rule rule;
  rule.budget = 50;
  rule.prompt_rows = 150;
  rule.retention = "knorm:max_capacity=50";
  rule.score = Rule::Score::kNorm;
  Stream(rule, 2, 250, 50);
  rule.retention = "keydiff:max_capacity=50";
  rule.score = Rule::Score::kDifference;
  Stream(rule, 2, 250, 50);
}

TEST_F(ScoredRetentionTest, AnEngineThatReportsNothingGetsTheReason) {
  for (const auto& [retention, prompt] :
       {std::pair<std::string, uint64_t>{"h2o:hh_size=8,recent_size=8,evict_interval=4", 0},
        {"snapkv:max_capacity_prompt=20,window_size=4,kernel_size=3", 40}}) {
    SCOPED_TRACE(retention);
    const ModelSpec spec = Spec(2);
    std::unique_ptr<Session> session = Connect();
    absl::StatusOr<ModelHandle> model = session->RegisterModel(spec);
    ASSERT_TRUE(model.ok()) << MessageOf(model.status());
    absl::StatusOr<Sequence> sequence = session->OpenSequence({*model, retention, prompt, "test"});
    ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    absl::Status status;
    for (uint64_t row = 0; row < 60 && status.ok(); ++row) {
      absl::StatusOr<StepView> step = sequence->Begin(1);
      status = step.status();
      if (!step.ok()) break;
      WriteTestRows(*step, spec);
      status = sequence->Commit(std::vector<uint32_t>{3});
    }
    EXPECT_THAT(MessageOf(status), ::testing::HasSubstr("no decision by scores: layer=0"));
    EXPECT_EQ(sequence->rows(), prompt == 0 ? 20U : 40U);
    EXPECT_TRUE(sequence->Close().ok());
  }
}

TEST_F(ScoredRetentionTest, PartsOfAStepCannotBeCommittedWhereMassCounts) {
  std::unique_ptr<Session> session = Connect();
  absl::StatusOr<ModelHandle> model = session->RegisterModel(Spec(1));
  ASSERT_TRUE(model.ok()) << MessageOf(model.status());
  absl::StatusOr<Sequence> sequence = session->OpenSequence({*model, "h2o", 0, "test"});
  ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
  absl::StatusOr<StepView> step = sequence->Begin(4);
  ASSERT_TRUE(step.ok()) << MessageOf(step.status());
  EXPECT_THAT(MessageOf(sequence->Commit(std::vector<uint32_t>{3, 3})),
              ::testing::HasSubstr("ids=2 rows_of_step=4"));
  EXPECT_TRUE(sequence->Commit(std::vector<uint32_t>(4, 3)).ok());
  EXPECT_THAT(MessageOf(sequence->Truncate(2)), ::testing::HasSubstr("rollback_floor=4"));
}

}  // namespace
}  // namespace kvasir::testing
