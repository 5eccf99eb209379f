#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "kernels/row_convert.h"
#include "kernels/scores.h"
#include "policies/selection/budget_selector.h"
#include "policies/selection/gemfilter.h"
#include "policies/selection/heavy_hitters.h"
#include "tests/policies/golden_compare.h"
#include "tests/policies/select_golden.h"

namespace kvasir::testing {
namespace {

using kernels::KeyRun;
using kernels::KeyShape;
using kernels::RowType;

constexpr RowType kRowTypes[] = {RowType::kF32, RowType::kF16, RowType::kBF16};

// Keys [kv_heads][rows][dim] of a set as the rows of a cache, [rows][kv_heads][dim], cut into runs.
class Keys {
 public:
  Keys(const std::vector<float>& values, const std::vector<uint64_t>& shape, RowType type)
      : heads_(Small(shape[0])),
        rows_(Small(shape[1])),
        dim_(Small(shape[2])),
        type_(type),
        bytes_(values.size() * kernels::ElementBytes(type)) {
    if (values.empty()) throw std::runtime_error("no keys");
    for (size_t i = 0; i < values.size(); ++i) {
      const size_t row = i / dim_ % rows_;
      const size_t head = i / dim_ / rows_;
      const size_t to = (row * heads_ + head) * dim_ + i % dim_;
      kernels::StoreElement(type, bytes_.data(), to, values[i]);
      exact_ = exact_ && kernels::LoadElement(type, bytes_.data(), to) == values[i];
    }
  }

  bool exact() const { return exact_; }  // the row type holds these keys without rounding
  uint32_t rows() const { return rows_; }
  KeyShape Whole() const { return {type_, heads_, dim_}; }
  KeyShape OneHead() const { return {type_, 1, dim_}; }
  // All rows of one head, or of all of them with head 0; odd pieces, as blocks are.
  std::vector<KeyRun> Runs(uint32_t head = 0) const {
    const size_t element = kernels::ElementBytes(type_);
    const auto stride = static_cast<uint32_t>(heads_ * dim_ * element);
    std::vector<KeyRun> runs;
    for (uint32_t row = 0; row < rows_; row += kRun) {
      runs.push_back({bytes_.data() + size_t{row} * stride + head * dim_ * element, stride,
                      std::min(kRun, rows_ - row)});
    }
    return runs;
  }

 private:
  static constexpr uint32_t kRun = 37;
  uint32_t heads_;
  uint32_t rows_;
  uint32_t dim_;
  RowType type_;
  std::vector<std::byte> bytes_;
  bool exact_ = true;
};

// Runs `body` with the keys in every row type that holds them exactly; f32 always does.
void ForRowTypes(const GoldenCase& test, const std::function<void(const Keys&)>& body) {
  const std::vector<uint64_t> shape = test.Shape("k", 3);
  for (const RowType type : kRowTypes) {
    const Keys keys(test.Floats("k", shape), shape, type);
    if (keys.exact()) body(keys);
  }
}

// Choice with the window or recent rows appended, one head after the other.
std::vector<uint32_t> Choose(const BudgetConfig& config, ScoredRows rows) {
  std::vector<uint64_t> numbers(rows.entries);
  std::iota(numbers.begin(), numbers.end(), 0U);
  const std::vector<TokenId> ids(rows.entries);
  rows.rows = numbers;
  rows.ids = ids;
  std::vector<uint32_t> all;
  for (const KeepSet& set : Value(Value(BudgetSelector::Create(config))->Select(rows))) {
    all.insert(all.end(), set.begin(), set.end());
    for (uint64_t i = rows.entries - std::min(rows.entries, config.recent); i < rows.entries; ++i) {
      all.push_back(static_cast<uint32_t>(i));
    }
  }
  return all;
}

// Mass of a window of queries [heads][window][dim]: [heads][rows].
std::vector<float> WindowMass(const Keys& keys, const std::vector<float>& q, uint32_t heads,
                              uint32_t window) {
  const KeyShape shape = keys.OneHead();
  const uint32_t group = GroupOf(heads, keys.Whole().kv_heads);
  if (window == 0 || window > keys.rows()) throw std::runtime_error("window exceeds the keys");
  std::vector<float> mass(size_t{heads} * keys.rows());
  for (uint32_t kv_head = 0; kv_head < keys.Whole().kv_heads; ++kv_head) {
    const size_t head = size_t{kv_head} * group;
    kernels::WindowMass(shape, group, window, 1.0F / std::sqrt(static_cast<float>(shape.dim)),
                        q.data() + head * window * shape.dim, keys.Runs(kv_head),
                        mass.data() + head * keys.rows());
  }
  return mass;
}

// What SnapKV ranks: pooled mass of each head, or its mean over each group.
std::vector<float> PooledScores(const BudgetConfig& config, std::span<const float> mass,
                                uint32_t heads, uint32_t groups) {
  const size_t rows = mass.size() / heads;
  const size_t ranked = rows - config.recent;
  std::vector<float> scores(groups * ranked);
  std::vector<float> pooled(ranked);
  for (size_t head = 0; head < heads; ++head) {
    kernels::PoolScores(mass.subspan(head * rows, ranked), config.kernel, *config.pooling, pooled);
    for (size_t i = 0; i < ranked; ++i) {
      scores[head * groups / heads * ranked + i] +=
          pooled[i] * static_cast<float>(groups) / static_cast<float>(heads);
    }
  }
  return scores;
}

// Columns of all heads after one step: row numbers and running scores, [heads][entries].
struct HeavyColumns {
  std::vector<std::vector<uint64_t>> rows;
  std::vector<std::vector<float>> scores;
};

void H2oStep(const GoldenCase& test, const BudgetSelector& selector, size_t step, uint64_t added,
             uint64_t first, HeavyColumns& columns) {
  const size_t heads = columns.rows.size();
  const std::vector<uint64_t> shape = test.Shape("mass", 3);
  const std::vector<float>& masses = test.Floats("mass", {shape[0], heads, shape[2]});
  const size_t entries = columns.rows[0].size() + added;
  if (entries > shape[2]) throw std::runtime_error("mass has too few columns");
  std::vector<float> scores(heads * entries);
  std::vector<uint64_t> numbers;
  for (size_t head = 0; head < heads; ++head) {
    const auto mass = std::span(masses).subspan((step * heads + head) * shape[2], entries);
    Check(AddRunningScores(columns.scores[head], 1.0, added, mass,
                           std::span(scores).subspan(head * entries, entries)));
    numbers.insert(numbers.end(), columns.rows[head].begin(), columns.rows[head].end());
    for (uint64_t row = first; row < first + added; ++row) numbers.push_back(row);
  }
  const std::vector<TokenId> ids(numbers.size());
  ScoredRows rows;
  rows.kv_heads = rows.heads = rows.sets = Small(heads);
  rows.entries = entries;
  rows.scores = scores;
  rows.rows = numbers;
  rows.ids = ids;
  const std::vector<KeepSet> sets = Value(selector.Select(rows));
  for (size_t head = 0; head < heads; ++head) {
    KeepSet kept = sets[head];
    const uint64_t recent = std::min<uint64_t>(entries, selector.config().recent);
    for (uint64_t i = entries - recent; i < entries; ++i) kept.push_back(Small(i));
    columns.rows[head].clear();
    columns.scores[head].clear();
    for (const uint32_t entry : kept) {
      columns.rows[head].push_back(numbers[head * entries + entry]);
      columns.scores[head].push_back(scores[head * entries + entry]);
    }
  }
}

// kvpress: the n_keep best rows of each kv head by a score of the keys alone.
using KeyScores = void (*)(const KeyShape&, std::span<const KeyRun>, float*);

void RunKeyScores(const GoldenCase& test, KeyScores score) {
  BudgetConfig config;
  config.budget = test.Number("n_keep", 1, kMax);
  ForRowTypes(test, [&](const Keys& keys) {
    ScoredRows rows;
    rows.kv_heads = rows.heads = keys.Whole().kv_heads;
    rows.entries = keys.rows();
    std::vector<float> scores(size_t{rows.heads} * keys.rows());
    for (uint32_t head = 0; head < rows.heads; ++head) {
      score(keys.OneHead(), keys.Runs(head), scores.data() + size_t{head} * keys.rows());
    }
    rows.scores = scores;
    Equal("positions", Choose(config, rows),
          test.Integers("expect_positions", {rows.heads, config.budget}));
  });
}

}  // namespace

void RunGemFilter(const GoldenCase& test) {
  const std::vector<uint64_t> q_shape = test.Shape("q_last", 2);
  const std::vector<uint64_t> k_shape = test.Shape("k", 3);
  const uint32_t group = GroupOf(q_shape[0], k_shape[0]);
  const uint64_t dim = k_shape[2];
  const std::vector<float>& q = test.Floats("q_last", {q_shape[0], dim});
  std::vector<float> sum(k_shape[0] * dim);
  for (size_t i = 0; i < q.size(); ++i) sum[i / dim / group * dim + i % dim] += q[i];
  GemFilterConfig config;
  config.topk = static_cast<uint32_t>(test.Number("topk", 1, kMax));
  config.kernel = static_cast<uint32_t>(test.Number("kernel", 1, kMax));
  ForRowTypes(test, [&](const Keys& keys) {
    const auto choice =
        Value(Value(GemFilter::Create(config)).Select(keys.Whole(), sum, keys.Runs()));
    Near("scores", choice.scores, test.Floats("expect_scores", {keys.rows()}));
    Equal("positions", choice.positions,
          test.Integers("expect_positions", {std::min(config.topk, keys.rows())}));
  });
}

void RunSnapKv(const GoldenCase& test) {
  const std::vector<uint64_t> q_shape = test.Shape("q_window", 3);
  const uint32_t heads = Small(q_shape[0]);
  const uint32_t window = Small(q_shape[1]);
  const std::string& pooling = test.Text("pooling");
  const std::string& gqa = test.Text("gqa");
  if (pooling != "avgpool" && pooling != "maxpool") throw std::runtime_error("pooling " + pooling);
  if (gqa != "per_q_head" && gqa != "mean") throw std::runtime_error("gqa " + gqa);
  BudgetConfig config;
  config.recent = test.Number("window", window, window);
  config.budget = test.Number("max_capacity", uint64_t{window} + 1, kMax) - window;
  config.pooling = pooling == "avgpool" ? kernels::Pooling::kAverage : kernels::Pooling::kMaximum;
  config.kernel = static_cast<uint32_t>(test.Number("kernel", 1, kMaxPoolingKernel));
  Value(BudgetSelector::Create(config));  // refuses an even kernel
  ForRowTypes(test, [&](const Keys& keys) {
    const auto& q = test.Floats("q_window", {heads, window, keys.Whole().dim});
    const std::vector<float> mass = WindowMass(keys, q, heads, window);
    ScoredRows rows;
    rows.heads = heads;
    rows.kv_heads = gqa == "mean" ? keys.Whole().kv_heads : heads;
    rows.entries = keys.rows();
    rows.scores = mass;
    Near("scores", PooledScores(config, mass, heads, rows.kv_heads),
         test.Floats("expect_scores", {rows.kv_heads, keys.rows() - window}));
    const uint64_t kept = std::min<uint64_t>(keys.rows(), config.budget + window);
    Equal("positions", Choose(config, rows),
          test.Integers("expect_positions", {rows.kv_heads, kept}));
  });
}

void RunH2o(const GoldenCase& test) {
  const size_t heads = test.Number("heads", 1, kMax);
  const uint64_t prefill = test.Number("prefill", 1, kMax);
  const size_t steps = test.Number("steps", 0, kMax) + 1;
  BudgetConfig config;
  config.budget = test.Number("hh_size", 1, kMax);
  config.recent = test.Number("recent_size", 1, kMax);
  const uint64_t width = config.budget + config.recent;
  const auto& kept = test.Integers("expect_kept", {steps, heads, width});
  const auto& counts = test.Integers("expect_nkept", {steps});
  test.Floats("mass", {steps, heads, test.Shape("mass", 3)[2]});
  const auto selector = Value(BudgetSelector::Create(config));
  HeavyColumns columns{std::vector<std::vector<uint64_t>>(heads),
                       std::vector<std::vector<float>>(heads)};
  for (size_t step = 0; step < steps; ++step) {
    H2oStep(test, *selector, step, step == 0 ? prefill : 1, step == 0 ? 0 : prefill + step - 1,
            columns);
    const auto count = static_cast<uint64_t>(counts[step]);
    if (count > width) throw std::runtime_error("expect_nkept exceeds the budget");
    for (size_t head = 0; head < heads; ++head) {
      Equal(fmt::format("step {} head {}", step, head), columns.rows[head],
            std::span(kept).subspan((step * heads + head) * width, count));
    }
  }
  const auto& expect = test.Floats("expect_score", {heads, test.Shape("expect_score", 2)[1]});
  std::vector<float> scores;
  for (const auto& head : columns.scores) scores.insert(scores.end(), head.begin(), head.end());
  if (scores.size() != expect.size()) throw std::runtime_error("expect_score has another size");
  Near("score", scores, expect);
}

void RunKnorm(const GoldenCase& test) { RunKeyScores(test, kernels::KeyNormScores); }

void RunKeyDiff(const GoldenCase& test) { RunKeyScores(test, kernels::KeyDifferenceScores); }

void RunTova(const GoldenCase& test) {
  const uint32_t heads = Small(test.Shape("q_last", 2)[0]);
  const uint64_t keep = test.Number("n_keep", 1, kMax);
  if (keep == 1) {  // the last row alone: nothing is chosen, and no selector has a budget of 0
    const auto last = static_cast<uint32_t>(test.Shape("k", 3)[1] - 1);
    return Equal("positions", std::vector{last}, test.Integers("expect_positions", {1}));
  }
  BudgetConfig config;
  config.budget = keep - 1;
  config.recent = 1;
  config.shared_across_heads = true;
  ForRowTypes(test, [&](const Keys& keys) {
    const std::vector<float> mass =
        WindowMass(keys, test.Floats("q_last", {heads, keys.Whole().dim}), heads, 1);
    ScoredRows rows;
    rows.heads = heads;
    rows.kv_heads = keys.Whole().kv_heads;
    rows.entries = keys.rows();
    rows.scores = mass;
    Equal("positions", Choose(config, rows), test.Integers("expect_positions", {keep}));
  });
}

}  // namespace kvasir::testing
