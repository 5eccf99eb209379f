// The engine guide's attention loop against attention over the whole history, masked by the
// policy's rule, with keys rotated when they are read. Real daemon, real memory, compactions under
// way.
#include "client/examples/attention_loop.h"

#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "policies/sep_stream.h"
#include "tests/support/daemon_fixture.h"

namespace kvasir::testing {
namespace {

constexpr uint32_t kKvHeads = 2, kQueryHeads = 4, kDim = 16;
constexpr double kTheta = 10000.0;
constexpr double kTolerance = 2e-4;

// Rows that the query of `row` sees, in cache order, its own included.
using Rule = std::function<std::vector<uint64_t>(const std::vector<uint32_t>& ids, uint64_t row)>;

struct Case {
  std::string retention;
  std::vector<Rule> rule_of_layer;
  bool in_cache = false;  // positions are indices in the cache
};

Rule WindowRule(uint64_t init, uint64_t window, bool separators) {
  return [=](const std::vector<uint32_t>& ids, uint64_t row) {
    std::vector<uint64_t> visible;
    for (uint64_t j = 0; j <= row; ++j) {
      const bool separator = separators && (ids[j] == 1 || ids[j] == 2);
      if (j < init || separator || row - j < window) visible.push_back(j);
    }
    return visible;
  };
}

// The reference machine, one row a step. Called with row = 0, 1, 2, ... of one stream.
Rule StreamRule(SepStreamVariant variant, int64_t a, int64_t s, int64_t w, int64_t c) {
  SepStreamConfig config;
  config.variant = variant;
  config.a = a;
  config.s = s;
  config.w = w;
  config.c = c;
  config.separators = SeparatorSet({1, 2});
  auto machine = std::make_shared<SepStream>(config);  // shared: a std::function is copied
  return [machine, variant](const std::vector<uint32_t>& ids, uint64_t row) {
    const bool compacts_first = variant == SepStreamVariant::kSepCache;
    if (row == 0 && compacts_first) {
      EXPECT_TRUE(machine->Advance(0, true).ok());  // an empty prompt
    }
    std::vector<uint64_t> before = machine->KeptRows(0);
    before.push_back(row);
    machine->Feed(0, std::span(ids).subspan(row, 1));
    EXPECT_TRUE(machine->Advance(1, false).ok());
    return compacts_first ? machine->KeptRows(0) : before;
  };
}

std::vector<float> Head(uint64_t row, uint32_t layer, uint32_t head, uint32_t plane) {
  std::mt19937_64 random(((row * 8 + layer) * 8 + head) * 4 + plane);
  std::vector<float> values(kDim);
  for (float& value : values) value = static_cast<float>(random() % 4001) / 1000.0F - 2.0F;
  return values;
}

std::vector<double> Rotated(const std::vector<float>& head, uint64_t position) {
  std::vector<double> out(head.begin(), head.end());
  for (size_t i = 0; i < out.size(); i += 2) {
    const double angle = static_cast<double>(position) *
                         std::pow(kTheta, -static_cast<double>(i) / static_cast<double>(kDim));
    const double a = head[i], b = head[i + 1];
    out[i] = a * std::cos(angle) - b * std::sin(angle);
    out[i + 1] = a * std::sin(angle) + b * std::cos(angle);
  }
  return out;
}

// Attention in double over `visible`; every key is rotated here, at its row or at its index.
std::vector<double> Expected(const std::vector<uint64_t>& visible, bool in_cache, uint32_t layer,
                             uint32_t query_head) {
  const uint32_t kv_head = query_head * kKvHeads / kQueryHeads;
  const uint64_t row = visible.back();
  const auto position = [&](size_t i) { return in_cache ? uint64_t{i} : visible[i]; };
  const std::vector<double> q =
      Rotated(Head(row, layer, query_head, 2), position(visible.size() - 1));
  std::vector<double> out(kDim, 0.0);
  double sum = 0;
  for (size_t i = 0; i < visible.size(); ++i) {
    const std::vector<double> k = Rotated(Head(visible[i], layer, kv_head, 0), position(i));
    double score = 0;
    for (size_t e = 0; e < kDim; ++e) score += q[e] * k[e];
    const double weight = std::exp(score / std::sqrt(double{kDim}));
    const std::vector<float> v = Head(visible[i], layer, kv_head, 1);
    for (size_t e = 0; e < kDim; ++e) out[e] += weight * v[e];
    sum += weight;
  }
  for (double& value : out) value /= sum;
  return out;
}

class AttentionLoopTest : public DaemonFixture {
 protected:
  ModelSpec Spec(uint32_t layers) const {
    ModelSpec spec = TinySpec(layers);
    spec.kv_type = KvType::kF32;
    return spec;
  }

  void WriteRow(const LayerView& view, uint64_t row, uint32_t layer) {
    auto* k = reinterpret_cast<float*>(view.KeyOf(row));
    auto* v = reinterpret_cast<float*>(view.ValueOf(row));
    for (uint32_t head = 0; head < kKvHeads; ++head) {
      examples::Rotate(Head(row, layer, head, 0), row, kTheta, std::span(k + head * kDim, kDim));
      const std::vector<float> value = Head(row, layer, head, 1);
      std::copy(value.begin(), value.end(), v + head * kDim);
    }
  }

  // Largest difference between loop and reference over the rows of the step.
  double CheckStep(const Case& c, const StepView& step, const std::vector<uint32_t>& ids) {
    double worst = 0;
    for (uint32_t layer = 0; layer < step.layers.size(); ++layer) {
      for (uint64_t row = step.row; row < step.row + step.count; ++row) {
        WriteRow(step.layers[layer], row, layer);
        const std::vector<uint64_t> visible = c.rule_of_layer[layer](ids, row);
        for (uint32_t head = 0; head < kQueryHeads; ++head) {
          std::vector<float> out(kDim);
          examples::AttendHead(step.layers[layer], row,
                               {head * kKvHeads / kQueryHeads, kDim, kDim, kTheta},
                               Head(row, layer, head, 2), out);
          const std::vector<double> expected = Expected(visible, c.in_cache, layer, head);
          for (size_t e = 0; e < kDim; ++e) {
            worst = std::max(worst, std::abs(expected[e] - double{out[e]}));
          }
        }
      }
    }
    return worst;
  }

  // Streams rows in batches of random size; `worst` is the largest difference seen.
  void Stream(const Case& c, uint64_t rows, double* worst) {
    const auto layers = static_cast<uint32_t>(c.rule_of_layer.size());
    std::unique_ptr<Session> session = Connect();
    ASSERT_NE(session, nullptr);
    absl::StatusOr<ModelHandle> model = session->RegisterModel(Spec(layers));
    ASSERT_TRUE(model.ok()) << MessageOf(model.status());
    absl::StatusOr<Sequence> sequence = session->OpenSequence({*model, c.retention, 0, "loop"});
    ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    std::mt19937 random(7);
    std::vector<uint32_t> ids(rows);
    for (uint32_t& id : ids) id = static_cast<uint32_t>(random() % 9);
    *worst = 0;
    while (sequence->rows() < rows) {
      const uint64_t row = sequence->rows();
      const auto want = static_cast<uint32_t>(std::min<uint64_t>(1 + random() % 20, rows - row));
      absl::StatusOr<StepView> step = sequence->Begin(want);
      ASSERT_TRUE(step.ok()) << "row " << row << ": " << MessageOf(step.status());
      *worst = std::max(*worst, CheckStep(c, *step, ids));
      const absl::Status committed = sequence->Commit(std::span(ids).subspan(row, step->count));
      ASSERT_TRUE(committed.ok()) << MessageOf(committed);
    }
  }

  void ExpectExact(const Case& c, uint64_t rows) {
    SCOPED_TRACE(c.retention);
    double worst = 0;
    Stream(c, rows, &worst);
    EXPECT_LT(worst, kTolerance);
  }
};

TEST_F(AttentionLoopTest, Full) { ExpectExact({"full", {WindowRule(0, 1 << 30, false)}}, 150); }

TEST_F(AttentionLoopTest, StreamingLlm) {
  const Rule rule = WindowRule(4, 37, false);
  ExpectExact({"streamingllm:start_size=4,recent_size=37,positions=original", {rule}}, 300);
  ExpectExact({"streamingllm:start_size=4,recent_size=37,positions=in_cache", {rule}, true}, 300);
}

TEST_F(AttentionLoopTest, StaticSepLlmPerLayer) {
  ExpectExact({"sepllm:form=static,init_cache_size=3,local_size=20/50",
               {WindowRule(3, 20, true), WindowRule(3, 50, true)}},
              300);
}

TEST_F(AttentionLoopTest, SepCacheForm) {
  const std::string spec =
      "sepllm:form=sepcache,init_cache_size=4,sep_cache_size=10,local_size=24,cache_size=60";
  ExpectExact({spec, {StreamRule(SepStreamVariant::kSepCache, 4, 10, 24, 60)}}, 300);
  ExpectExact({spec + ",positions=in_cache",
               {StreamRule(SepStreamVariant::kSepCache, 4, 10, 24, 60)},
               true},
              300);
}

TEST_F(AttentionLoopTest, ManagerForm) {
  const std::string spec =
      "sepllm:form=manager,init_cache_size=4,sep_cache_size=10,local_size=24,cache_size=60";
  ExpectExact({spec, {StreamRule(SepStreamVariant::kManager, 4, 10, 24, 60)}, true}, 300);
  ExpectExact({spec + ",positions=original",
               {StreamRule(SepStreamVariant::kManager, 4, 10, 24, 60)},
               false},
              300);
}

TEST_F(AttentionLoopTest, AnotherRuleOrAnotherPositionIsNoticed) {
  double worst = 0;
  Stream({"streamingllm:start_size=4,recent_size=37", {WindowRule(4, 36, false)}, true}, 120,
         &worst);
  EXPECT_GT(worst, 10 * kTolerance);
  Stream({"streamingllm:start_size=4,recent_size=37", {WindowRule(4, 37, false)}, false}, 120,
         &worst);
  EXPECT_GT(worst, 10 * kTolerance);
}

}  // namespace
}  // namespace kvasir::testing
