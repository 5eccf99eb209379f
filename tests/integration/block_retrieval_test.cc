// InfLLM through libkvasir: what is in view at each row, which blocks a lookup brings, and that
// their slots hold the rows that were sealed, with real sockets and memory.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "policies/retrieval/infllm_config.h"
#include "tests/integration/scored_model.h"
#include "tests/support/daemon_fixture.h"

namespace kvasir::testing {
namespace {

constexpr uint32_t kQueryHeads = kHeads * kGroup;

struct Settings {
  InfLlmConfig config;
  std::string retention;
};

Settings Make(uint64_t n_init, uint64_t n_local, uint64_t block, uint32_t topk, uint32_t cached,
              const std::string& strategy) {
  Settings s;
  s.config.n_init = n_init;
  s.config.n_local = n_local;
  s.config.block_size = block;
  s.config.topk = topk;
  s.config.repr_topk = 2;
  s.config.max_cached_block = cached;
  s.config.exc_block_size = 8;
  s.config.cache_strategy = strategy == "lru" ? CacheStrategy::kLru : CacheStrategy::kLruS;
  s.retention = fmt::format(
      "infllm:n_init={},n_local={},block_size={},topk={},repr_topk=2,max_cached_block={},"
      "exc_block_size=8,cache_strategy={}",
      n_init, n_local, block, topk, cached, strategy);
  return s;
}

class RetrievalTest : public DaemonFixture {
 protected:
  // Rows of a block: [n_init + b * block_size, + block_size).
  uint64_t FirstOf(uint32_t block) const {
    return settings_.config.n_init + block * settings_.config.block_size;
  }
  uint64_t BlocksAt(uint64_t row) const {
    const InfLlmConfig& c = settings_.config;
    const uint64_t behind = row > c.n_init + c.n_local ? row - c.n_init - c.n_local : 0;
    return behind / c.block_size;
  }

  // The mean of the keys that drew most of the local mass, for each query head.
  std::vector<float> Representative(uint32_t layer, uint32_t block) const {
    const InfLlmConfig& c = settings_.config;
    std::vector<float> out;
    for (uint32_t head = 0; head < kQueryHeads; ++head) {
      std::vector<uint64_t> rows;
      for (uint64_t i = 0; i < c.block_size; ++i) rows.push_back(FirstOf(block) + i);
      std::stable_sort(rows.begin(), rows.end(), [&](uint64_t a, uint64_t b) {
        return mass_.at({layer, head, a}) > mass_.at({layer, head, b});
      });
      for (uint32_t d = 0; d < kDim; ++d) {
        double sum = 0;
        for (uint32_t i = 0; i < c.repr_topk; ++i) {
          sum += KeyElement(rows[i], layer, head / kGroup * kDim + d);
        }
        out.push_back(static_cast<float>(sum / c.repr_topk));
      }
    }
    return out;
  }

  std::vector<uint32_t> Lookup(uint32_t layer, uint64_t blocks, const std::vector<float>& query) {
    std::vector<std::pair<double, uint32_t>> scores;
    for (uint32_t b = 0; b < blocks; ++b) {
      if (representatives_[layer].size() == b) {
        representatives_[layer].push_back(Representative(layer, b));
      }
      double score = 0;
      for (size_t i = 0; i < query.size(); ++i) {
        score += static_cast<double>(query[i]) * static_cast<double>(representatives_[layer][b][i]);
      }
      scores.emplace_back(-score, b);
    }
    std::sort(scores.begin(), scores.end());
    std::vector<uint32_t> found;
    for (size_t i = 0; i < std::min<size_t>(scores.size(), settings_.config.topk); ++i) {
      found.push_back(scores[i].second);
    }
    std::sort(found.begin(), found.end());
    return found;
  }

  static void ExpectRows(const KeptRunView& run, uint64_t first, uint32_t layer) {
    for (uint32_t i = 0; i < run.rows; ++i) {
      ASSERT_EQ(run.positions[i], first + i);
      for (uint32_t e = 0; e < kHeads * kDim; ++e) {
        uint16_t k = 0, v = 0;
        std::memcpy(&k, run.k + i * run.k_stride + 2 * e, 2);
        std::memcpy(&v, run.v + i * run.v_stride + 2 * e, 2);
        ASSERT_EQ(k, TestElement(first + i, layer, 0, e)) << "row " << first + i;
        ASSERT_EQ(v, TestElement(first + i, layer, 1, e)) << "row " << first + i;
      }
    }
  }

  void ExpectView(const LayerView& view, uint64_t row, uint32_t layer) const {
    const InfLlmConfig& c = settings_.config;
    ASSERT_EQ(view.far_position, c.n_local - 1);
    ASSERT_TRUE(view.unrotated);
    ASSERT_EQ(view.window, c.n_local);
    const uint64_t blocks = BlocksAt(row);
    ASSERT_EQ(view.recent_first, blocks == 0 ? 0 : FirstOf(static_cast<uint32_t>(blocks)));
    uint64_t kept = 0;
    for (const KeptRunView& run : view.kept) {
      ExpectRows(run, kept, layer);
      ASSERT_EQ(run.QueryPosition(row), view.far_position);
      kept += run.rows;
    }
    ASSERT_EQ(kept, blocks == 0 ? 0 : c.n_init);
  }

  void ReportMass(const StepView& step) {
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      const LayerView& view = step.layers[layer];
      ASSERT_TRUE(view.mass.by_query_head);
      ASSERT_EQ(view.mass.kept, nullptr);
      for (uint64_t query = step.row; query < step.row + step.count; ++query) {
        for (uint32_t head = 0; head < kQueryHeads; ++head) {
          for (uint64_t p = view.WindowFirst(query); p <= query; ++p) {
            const double weight = Weight(layer, head, query, p);
            view.mass.recent[head * view.mass.recent_rows + p - view.recent_base] +=
                static_cast<float>(weight);
            mass_[{layer, head, p}] += weight;
          }
        }
      }
    }
  }

  void Stream(const Settings& settings, uint64_t rows) {
    SCOPED_TRACE(settings.retention);
    settings_ = settings;
    mass_.clear();
    representatives_.assign(kLayers, {});
    ModelSpec spec = TinySpec(kLayers);
    for (LayerSpec& layer : spec.layers) layer.query_heads = kQueryHeads;
    std::unique_ptr<Session> session = Connect();
    ASSERT_NE(session, nullptr);
    absl::StatusOr<ModelHandle> model = session->RegisterModel(spec);
    ASSERT_TRUE(model.ok()) << MessageOf(model.status());
    absl::StatusOr<Sequence> sequence =
        session->OpenSequence({*model, settings.retention, 0, "test"});
    ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    ASSERT_TRUE(sequence->retrieves());
    std::mt19937_64 random(5);
    std::vector<std::vector<uint32_t>> last(kLayers);
    uint64_t lookups = 0;
    for (uint64_t row = 0; row < rows;) {
      absl::StatusOr<StepView> step = sequence->Begin(1 + static_cast<uint32_t>(random() % 20));
      ASSERT_TRUE(step.ok()) << "row " << row << ": " << MessageOf(step.status());
      ASSERT_LE(step->count, settings.config.exc_block_size);
      WriteTestRows(*step, spec);
      for (uint32_t layer = 0; layer < kLayers; ++layer) {
        ExpectView(step->layers[layer], row, layer);
        std::vector<float> query(kQueryHeads * kDim);
        for (float& value : query) value = static_cast<float>(random() % 2000) / 1000 - 1;
        std::vector<float> mass;
        for (const uint32_t block : last[layer]) mass.push_back(static_cast<float>(block % 3));
        const auto runs = sequence->Retrieve(layer, query, mass);
        ASSERT_TRUE(runs.ok()) << MessageOf(runs.status());
        const std::vector<uint32_t> expected = Lookup(layer, BlocksAt(row), query);
        std::vector<uint32_t> found;
        for (const KeptRunView& run : *runs) {
          ASSERT_EQ(run.rows, settings.config.block_size);
          const auto block = static_cast<uint32_t>((run.positions[0] - settings.config.n_init) /
                                                   settings.config.block_size);
          ExpectRows(run, FirstOf(block), layer);
          found.push_back(block);
        }
        ASSERT_EQ(found, expected) << "row " << row << " layer " << layer;
        lookups += found.empty() ? 0 : 1;
        last[layer] = found;
        ASSERT_FALSE(HasFatalFailure());
      }
      ReportMass(*step);
      const absl::Status committed = sequence->Commit(std::vector<uint32_t>(step->count, 3));
      ASSERT_TRUE(committed.ok()) << MessageOf(committed);
      row += step->count;
    }
    EXPECT_GT(lookups, 50U);
    absl::StatusOr<Sequence::Footprint> footprint = sequence->MeasureFootprint();
    ASSERT_TRUE(footprint.ok()) << MessageOf(footprint.status());
    EXPECT_EQ(footprint->held_bytes, HeldBytes());
  }

  static constexpr uint32_t kLayers = 2;
  Settings settings_;
  std::map<std::tuple<uint32_t, uint32_t, uint64_t>, double> mass_;  // layer, query head, row
  std::vector<std::vector<std::vector<float>>> representatives_;     // [layer][block]
};

TEST_F(RetrievalTest, LookupsBringTheBlocksThatTheRuleNames) {
  Stream(Make(3, 40, 16, 2, 3, "lru"), 400);
  Stream(Make(0, 20, 5, 3, 3, "lru-s"), 250);
  Stream(Make(17, 9, 33, 1, 2, "lru-s"), 500);
}

TEST_F(RetrievalTest, BadCallsAreRefusedAndHarmNothing) {
  std::unique_ptr<Session> session = Connect();
  ModelSpec spec = TinySpec(2);
  absl::StatusOr<ModelHandle> model = session->RegisterModel(spec);
  ASSERT_TRUE(model.ok()) << MessageOf(model.status());
  EXPECT_THAT(MessageOf(session->OpenSequence({*model, "infllm", 0, "test"}).status()),
              ::testing::HasSubstr("layers[0].query_heads"));
  for (LayerSpec& layer : spec.layers) layer.query_heads = kQueryHeads;
  model = session->RegisterModel(spec);
  ASSERT_TRUE(model.ok()) << MessageOf(model.status());
  EXPECT_THAT(
      MessageOf(
          session->OpenSequence({*model, "infllm:topk=40,max_cached_block=8", 0, "test"}).status()),
      ::testing::HasSubstr("topk"));
  absl::StatusOr<Sequence> full = session->OpenSequence({*model, "full", 0, "test"});
  ASSERT_TRUE(full.ok()) << MessageOf(full.status());
  EXPECT_EQ(full->Retrieve(0, {}, {}).status().code(), absl::StatusCode::kFailedPrecondition);
  absl::StatusOr<Sequence> sequence =
      session->OpenSequence({*model, Make(1, 8, 4, 1, 1, "lru").retention, 0, "test"});
  ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
  const std::vector<float> query(kQueryHeads * kDim, 0.5F);
  EXPECT_EQ(sequence->Retrieve(0, query, {}).status().code(),
            absl::StatusCode::kFailedPrecondition);  // no step
  for (uint64_t row = 0; row < 30; ++row) {
    absl::StatusOr<StepView> step = sequence->Begin(1);
    ASSERT_TRUE(step.ok()) << MessageOf(step.status());
    WriteTestRows(*step, spec);
    EXPECT_EQ(sequence->Retrieve(2, query, {}).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(sequence->Retrieve(0, std::span(query).first(3), {}).status().code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(sequence->Retrieve(0, query, {}).ok());
    if (row > 20) {
      std::vector<float> bad = query;
      bad[3] = std::numeric_limits<float>::quiet_NaN();
      EXPECT_EQ(sequence->Retrieve(1, bad, {}).status().code(), absl::StatusCode::kInvalidArgument);
    }
    for (const LayerView& view : step->layers) {  // no block is sealed without
      for (uint32_t head = 0; head < kQueryHeads; ++head) {
        view.mass.recent[head * view.mass.recent_rows + row - view.recent_base] = 1.0F;
      }
    }
    ASSERT_TRUE(sequence->Commit(std::vector<uint32_t>{3}).ok());
  }
  EXPECT_TRUE(sequence->Close().ok());
}

}  // namespace
}  // namespace kvasir::testing
