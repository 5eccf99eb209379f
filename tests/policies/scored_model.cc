#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "tests/policies/score_simulator.h"

namespace kvasir::testing {
namespace {

uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = (a ^ (b + 0x9e3779b97f4a7c15ULL + (a << 6) + (a >> 2))) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace

float ScoreOracle::Probability(uint32_t kv_head, uint64_t query, uint64_t key) const {
  return static_cast<float>(1 + Mix(Mix(seed_, kv_head), Mix(query, key)) % 500);
}

float ScoreOracle::OfRow(uint32_t head, uint64_t row) const {
  return static_cast<float>(Mix(Mix(seed_, 100 + head), row) % 100'000);
}

void MassLedger::Attend(uint32_t kv_head, uint64_t query, const Rows& visible) {
  for (auto& [row, mass] : mass_[kv_head]) mass *= decay_;
  for (const uint64_t row : visible) {
    mass_[kv_head][row] += static_cast<double>(oracle_.Probability(kv_head, query, row));
  }
}

float MassLedger::Of(uint32_t kv_head, uint64_t row) const {
  return static_cast<float>(mass_[kv_head].at(row));
}

bool ScoredModel::DecidesAt(uint64_t row) const {
  if (row == first_decision) return true;
  return interval > 0 && row > first_decision && (row - first_decision) % interval == 0;
}

std::vector<float> ScoredModel::Scores(const ScoreOracle& oracle, const MassLedger& mass,
                                       uint32_t head, const Rows& candidates) const {
  std::vector<float> scores;
  for (const uint64_t row : candidates) {
    scores.push_back(source == ScoreSource::kAttentionMass ? mass.Of(head, row)
                                                           : oracle.OfRow(head, row));
  }
  if (kernel == 1) return scores;
  const auto reach = static_cast<int64_t>(kernel / 2);
  std::vector<float> pooled;
  for (int64_t i = 0; i < static_cast<int64_t>(scores.size()); ++i) {
    float best = -std::numeric_limits<float>::infinity();
    float sum = 0;  // the average up to its divisor
    for (int64_t at = i - reach; at <= i + reach; ++at) {
      if (at < 0 || at >= static_cast<int64_t>(scores.size())) continue;
      best = std::max(best, scores[static_cast<size_t>(at)]);
      sum += scores[static_cast<size_t>(at)];
    }
    pooled.push_back(max_pool ? best : sum);
  }
  return pooled;
}

Rows ScoredModel::Choose(const std::vector<float>& scores, const Rows& candidates,
                         const std::vector<TokenId>& ids) const {
  // Rank: sinks from the first on, then the other rows that always stay from the newest on, then
  // by score.
  std::vector<size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), 0U);
  const auto rank = [&](size_t i) {
    if (candidates[i] < start_size) return 0;
    return always(candidates[i], ids[candidates[i]]) ? 1 : 2;
  };
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (rank(a) != rank(b)) return rank(a) < rank(b);
    if (rank(a) == 0) return a < b;
    if (rank(a) == 1) return a > b;
    return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
  });
  Rows chosen;
  for (size_t i = 0; i < std::min<size_t>(budget, order.size()); ++i) {
    chosen.push_back(candidates[order[i]]);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::vector<std::vector<Rows>> ScoredModel::Run(const ScoreOracle& oracle,
                                                const std::vector<TokenId>& ids) const {
  const uint32_t columns = shared ? 1 : oracle.kv_heads();
  const uint32_t heads = source == ScoreSource::kWindowQueries ? oracle.heads() : oracle.kv_heads();
  std::vector<Rows> visible(columns);
  MassLedger mass(oracle, decay);
  std::vector<std::vector<Rows>> all;
  for (uint64_t query = 0; query < ids.size(); ++query) {
    for (uint32_t column = 0; DecidesAt(query) && column < columns; ++column) {
      Rows& rows = visible[column];
      const Rows last(rows.end() - static_cast<int64_t>(recent), rows.end());
      const Rows candidates(rows.begin(), rows.end() - static_cast<int64_t>(recent));
      std::vector<float> sum(candidates.size());
      for (uint32_t head = 0; head < heads; ++head) {
        if (!shared && head * columns / heads != column) continue;
        const std::vector<float> scores = Scores(oracle, mass, head, candidates);
        for (size_t i = 0; i < sum.size(); ++i) sum[i] += scores[i];
      }
      rows = Choose(sum, candidates, ids);
      rows.insert(rows.end(), last.begin(), last.end());
    }
    for (uint32_t column = 0; column < columns; ++column) visible[column].push_back(query);
    all.push_back(visible);
    if (source != ScoreSource::kAttentionMass) continue;
    for (uint32_t head = 0; head < oracle.kv_heads(); ++head) {
      mass.Attend(head, query, visible[shared ? 0 : head]);
    }
  }
  return all;
}

}  // namespace kvasir::testing
