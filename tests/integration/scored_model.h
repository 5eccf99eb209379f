// A slow and obvious model of score-based policies: what each kv head keeps, row by row.
#ifndef KVASIR_TESTS_INTEGRATION_SCORED_MODEL_H_
#define KVASIR_TESTS_INTEGRATION_SCORED_MODEL_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "kernels/row_convert.h"
#include "tests/support/daemon_fixture.h"

namespace kvasir::testing {

inline constexpr uint32_t kHeads = 2, kDim = 16,
                          kGroup = 2;  // of TinySpec, and query heads of a kv head

// Attention of a query to a key in one head, before normalisation: any positive numbers do.
inline double Weight(uint32_t layer, uint32_t head, uint64_t query, uint64_t key) {
  uint64_t z = (query * 1'000'003 + key) * 0x9E3779B97F4A7C15ULL + layer * 131 + head * 7919;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z ^= z >> 27;
  const double heavy = key % 13 == head + layer ? 6.0 : 0.0;
  return 0.05 + static_cast<double>(z % 10'000) / 10'000.0 + heavy;
}

inline double KeyElement(uint64_t row, uint32_t layer, uint32_t element) {
  return static_cast<double>(kernels::F16ToFloat(TestElement(row, layer, 0, element)));
}

// What one kv head (or all of a layer's, where they share) has in view.
struct Visible {
  std::vector<uint64_t> rows;      // ascending
  std::map<uint64_t, double> sum;  // attention mass of each
};

struct Rule {
  std::string retention;
  uint64_t budget = 0, recent = 0;  // rows chosen by score, and the last ones
  uint64_t interval = 0;            // rows between decisions; 0: once, behind the prompt
  uint64_t prompt_rows = 0;
  bool shared = false;
  double decay = 1.0;
  std::function<bool(uint64_t row, uint32_t id)> always = [](uint64_t, uint32_t) { return false; };
  enum class Score { kMass, kQueries, kNorm, kDifference } score = Score::kMass;
  uint32_t window = 0, kernel = 1;  // kQueries

  bool DecidesAt(uint64_t row) const {
    if (interval == 0) return row == prompt_rows;
    const uint64_t first = std::max(prompt_rows, budget + recent + interval);
    return row >= first && (row - first) % interval == 0;
  }
};

// Query of a row: small numbers, so that softmax is not one single peak.
inline std::vector<float> QueryOf(uint64_t row, uint32_t layer) {
  std::mt19937_64 random(row * 31 + layer);
  std::vector<float> query(kHeads * kGroup * kDim);
  for (float& value : query) {
    value = static_cast<float>(static_cast<int>(random() % 200) - 100) * 3e-2F;
  }
  return query;
}

inline double NormOf(uint64_t row, uint32_t layer, uint32_t head) {
  double sum = 0;
  for (uint32_t d = 0; d < kDim; ++d) {
    sum += std::pow(KeyElement(row, layer, head * kDim + d), 2.0);
  }
  return std::sqrt(sum);
}

inline std::vector<double> DifferenceScores(const Visible& at, uint32_t layer, uint32_t head) {
  std::vector<double> anchor(kDim), scores;
  for (const uint64_t row : at.rows) {
    for (uint32_t d = 0; d < kDim; ++d) {
      anchor[d] += KeyElement(row, layer, head * kDim + d) / NormOf(row, layer, head);
    }
  }
  double length = 0;
  for (const double a : anchor) length += a * a;
  for (const uint64_t row : at.rows) {
    double dot = 0;
    for (uint32_t d = 0; d < kDim; ++d) {
      dot += KeyElement(row, layer, head * kDim + d) * anchor[d];
    }
    scores.push_back(-dot / NormOf(row, layer, head) / std::sqrt(length));
  }
  return scores;
}

inline std::vector<double> QueryScores(const Rule& rule, const Visible& at, uint32_t layer,
                                       uint32_t head, uint64_t decision) {
  const size_t n = at.rows.size();
  const size_t candidates = n - rule.window;
  std::vector<double> mean(n);
  for (uint32_t g = 0; g < kGroup; ++g) {
    std::vector<double> sum(n);
    for (uint64_t query = decision - rule.window; query < decision; ++query) {
      const std::vector<float> q = QueryOf(query, layer);
      std::vector<double> weight(n);
      double total = 0;
      for (size_t i = 0; i < n && at.rows[i] <= query; ++i) {
        double dot = 0;
        for (uint32_t d = 0; d < kDim; ++d) {
          dot += static_cast<double>(q[(head * kGroup + g) * kDim + d]) *
                 KeyElement(at.rows[i], layer, head * kDim + d);
        }
        weight[i] = std::exp(dot / std::sqrt(static_cast<double>(kDim)));
        total += weight[i];
      }
      for (size_t i = 0; i < n; ++i) sum[i] += weight[i] / total;
    }
    const auto half = static_cast<int64_t>(rule.kernel / 2);
    for (int64_t i = 0; i < static_cast<int64_t>(candidates); ++i) {
      for (int64_t j = i - half; j <= i + half; ++j) {
        if (j < 0 || j >= static_cast<int64_t>(candidates)) continue;
        mean[static_cast<size_t>(i)] += sum[static_cast<size_t>(j)] / rule.kernel / kGroup;
      }
    }
  }
  return mean;
}

// Scores of the visible rows of one head, in their order.
inline std::vector<double> ScoresOf(const Rule& rule, const Visible& at, uint32_t layer,
                                    uint32_t head, uint64_t decision) {
  std::vector<double> scores;
  switch (rule.score) {
    case Rule::Score::kMass:
      for (const uint64_t row : at.rows) scores.push_back(at.sum.at(row));
      return scores;
    case Rule::Score::kNorm:
      for (const uint64_t row : at.rows) scores.push_back(-NormOf(row, layer, head));
      return scores;
    case Rule::Score::kDifference:
      return DifferenceScores(at, layer, head);
    case Rule::Score::kQueries:
      return QueryScores(rule, at, layer, head, decision);
  }
  return scores;
}

// The rows that stay after a decision.
inline std::vector<uint64_t> Choose(const Rule& rule, const std::vector<uint64_t>& rows,
                                    const std::vector<double>& scores,
                                    const std::vector<uint32_t>& ids) {
  const size_t candidates = rows.size() - std::min<size_t>(rows.size(), rule.recent);
  std::vector<size_t> order(candidates);
  for (size_t i = 0; i < candidates; ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const bool a_stays = rule.always(rows[a], ids[rows[a]]);
    const bool b_stays = rule.always(rows[b], ids[rows[b]]);
    return a_stays != b_stays ? a_stays : scores[a] > scores[b];
  });
  order.resize(std::min<size_t>(candidates, rule.budget));
  std::vector<uint64_t> kept;
  for (const size_t i : order) kept.push_back(rows[i]);
  kept.insert(kept.end(), rows.begin() + static_cast<ptrdiff_t>(candidates), rows.end());
  std::sort(kept.begin(), kept.end());
  return kept;
}

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_INTEGRATION_SCORED_MODEL_H_
