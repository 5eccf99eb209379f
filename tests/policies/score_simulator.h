// Drives a score-based policy as a daemon and an engine would: tables that end at the decision row,
// a visible set for each column, and scores that are pseudo-random but the same for the same row,
// head and query. The slow model beside it goes row by row and sorts.
#ifndef KVASIR_TESTS_POLICIES_SCORE_SIMULATOR_H_
#define KVASIR_TESTS_POLICIES_SCORE_SIMULATOR_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "policies/retention_policy.h"

namespace kvasir::testing {

using Rows = std::vector<uint64_t>;

// Whole numbers, so that sums of a few are exact in float.
class ScoreOracle {
 public:
  ScoreOracle(uint32_t kv_heads, uint32_t group, uint64_t seed)
      : kv_heads_(kv_heads), group_(group), seed_(seed) {}

  uint32_t kv_heads() const { return kv_heads_; }
  uint32_t heads() const { return kv_heads_ * group_; }
  float Probability(uint32_t kv_head, uint64_t query, uint64_t key) const;
  float OfRow(uint32_t head, uint64_t row) const;

 private:
  uint32_t kv_heads_;
  uint32_t group_;
  uint64_t seed_;
};

// Attention mass, as an engine reports it: by kv head and row.
class MassLedger {
 public:
  MassLedger(const ScoreOracle& oracle, double decay)
      : oracle_(oracle), decay_(decay), mass_(oracle.kv_heads()) {}
  void Attend(uint32_t kv_head, uint64_t query, const Rows& visible);
  float Of(uint32_t kv_head, uint64_t row) const;

 private:
  const ScoreOracle& oracle_;
  double decay_;
  std::vector<std::map<uint64_t, double>> mass_;
};

// What a policy of the papers does, in plain words.
struct ScoredModel {
  ScoreSource source = ScoreSource::kAttentionMass;
  double decay = 1;
  uint64_t window_size = 0;
  bool shared = false;
  uint64_t budget = 1;
  uint64_t recent = 0;
  uint64_t start_size = 0;  // sinks, however they were asked for
  std::function<bool(uint64_t, TokenId)> always = [](uint64_t, TokenId) { return false; };
  uint64_t kernel = 1;
  bool max_pool = false;
  uint64_t first_decision = kNoRow;
  uint64_t interval = 0;  // 0: only one decision

  bool DecidesAt(uint64_t row) const;
  // Visible rows by query and column.
  std::vector<std::vector<Rows>> Run(const ScoreOracle& oracle,
                                     const std::vector<TokenId>& ids) const;

 private:
  std::vector<float> Scores(const ScoreOracle& oracle, const MassLedger& mass, uint32_t head,
                            const Rows& candidates) const;
  Rows Choose(const std::vector<float>& scores, const Rows& candidates,
              const std::vector<TokenId>& ids) const;
};

struct ScoreSimulatorOptions {
  uint64_t rows = 300;
  uint32_t vocabulary = 12;
  uint64_t chunk_max = 40;
  int plan_percent = 50;      // chance that plans are asked for though nothing forces it
  int truncate_percent = 20;  // chance of a truncation after a chunk
};

class ScoreSimulator {
 public:
  ScoreSimulator(RetentionPolicy* policy, const ScoreOracle& oracle, ScoreSimulatorOptions options,
                 uint64_t seed)
      : policy_(*policy),
        oracle_(oracle),
        options_(options),
        random_(seed),
        needs_(policy->Needs()),
        columns_(needs_.shared_across_heads ? 1 : oracle.kv_heads()),
        kept_(columns_),
        mass_(oracle, needs_.decay) {}

  // Runs to the end; what every query saw is compared with the model.
  void Run(const ScoredModel& model);

  uint64_t decisions() const { return decisions_; }
  uint64_t truncations() const { return truncations_; }
  uint64_t uneven() const { return uneven_; }  // decisions at which the columns differ

 private:
  uint64_t UpTo(uint64_t most) { return random_() % (most + 1); }
  bool Chance(int percent) { return static_cast<int>(random_() % 100) < percent; }
  Rows Visible(uint32_t column, uint64_t end) const;
  void AppendChunk();
  void TruncateSomewhere();
  void TakePlans();
  void Apply(const RetentionPlan& plan, const ScoredModel& model);
  void Decide();

  RetentionPolicy& policy_;
  const ScoreOracle& oracle_;
  ScoreSimulatorOptions options_;
  std::mt19937_64 random_;
  ScoreNeeds needs_;
  uint32_t columns_;
  std::vector<Rows> kept_;
  MassLedger mass_;
  RetentionPlan table_;
  bool has_table_ = false;
  const ScoredModel* model_ = nullptr;
  std::vector<TokenId> ids_;
  std::vector<std::vector<Rows>> seen_;
  uint64_t decisions_ = 0;
  uint64_t truncations_ = 0;
  uint64_t uneven_ = 0;
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_POLICIES_SCORE_SIMULATOR_H_
