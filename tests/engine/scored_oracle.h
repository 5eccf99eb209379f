// ScoredOracle: score-based retention followed along a forward pass in double.
//
// Knows each policy as the rule of its paper, computes the scores itself from the pass's own
// queries, keys and probabilities, and says what each kv head sees. Where a store kept another row
// than the oracle would, the scores must be so near each other that either is right; the oracle
// then goes on with the store's choice.
#ifndef KVASIR_TESTS_ENGINE_SCORED_ORACLE_H_
#define KVASIR_TESTS_ENGINE_SCORED_ORACLE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "engine/forwarding_store.h"
#include "engine/gguf_model.h"
#include "engine/kv_store.h"
#include "tests/engine/double_llama.h"

namespace kvasir::engine::testing {

struct ScoredRule {
  enum class Score { kMass, kQueries, kKeyNorm, kKeyDifference };

  std::string name;
  std::string retention;  // as the daemon is told
  Score score = Score::kMass;
  uint64_t budget = 0;                    // rows chosen by score
  uint64_t recent = 0;                    // the last rows, which stay
  uint64_t interval = 0;                  // rows between decisions; 0: once, behind the prompt
  uint64_t prompt_rows = 0;               // 0: the daemon is not told
  bool shared = false;                    // one set for all kv heads of a layer
  double decay = 1.0;                     // kMass: of what was, for each row
  uint32_t window = 0;                    // kQueries: the last queries
  uint32_t kernel = 1;                    // kQueries: of the pooling
  bool maximum = false;                   // kQueries: pooled by maximum, not average
  uint64_t sinks = 0;                     // first rows that stay within the budget
  std::vector<uint32_t> separators = {};  // tokens that stay within the budget
  uint32_t v_bits = 0;                    // of values that have been through a decision; 0: exact

  bool DecidesAt(uint64_t row) const;
};

inline void PrintTo(const ScoredRule& rule, std::ostream* out) { *out << rule.retention; }

// What each kv head saw at the first query of each step, that query's own row included: ascending.
using SeenRows = std::map<uint64_t, std::vector<std::vector<std::vector<uint64_t>>>>;
// ... SeenRows[step's first row][layer][kv_head].

// Writes down what the views of `store` show; hands everything on.
class SeenStore final : public ForwardingStore {
 public:
  SeenStore(KvStore& store, uint32_t kv_heads) : ForwardingStore(store), kv_heads_(kv_heads) {}

  absl::StatusOr<StepView> Begin(uint32_t want) override;

  const SeenRows& seen() const { return seen_; }

 private:
  const uint32_t kv_heads_;
  SeenRows seen_;
};

// Not thread-safe; serves one pass over `tokens`, whose rows DoubleLlama computes in order.
class ScoredOracle {
 public:
  // All must outlive it.
  ScoredOracle(const GgufModel& model, const DoubleLlama& llama, const ScoredRule& rule,
               std::span<const uint32_t> tokens, const SeenRows& seen);

  DoubleLlama::HeadSees Sees();
  DoubleLlama::Probe Probe();

  uint64_t keep_sets() const { return keep_sets_; }  // decided, all layers and heads
  uint64_t near_ties() const { return near_ties_; }  // of them: the store chose another row
  // What the store did that no rounding explains; empty where all is well.
  const std::vector<std::string>& faults() const { return faults_; }

 private:
  struct Head {
    std::vector<uint64_t> rows;              // visible, ascending
    std::vector<bool> visible;               // by row
    std::vector<double> mass;                // by row
    std::vector<std::vector<double>> coded;  // by row: values behind the code; empty: as written
  };
  struct Layer {
    std::vector<Head> heads;
    uint64_t query = kNone;
    uint64_t kept_below = 0;  // rows below it have been decided about: those visible are kept
    std::vector<std::vector<double>> keys;     // rotated, by row
    std::vector<std::vector<double>> queries;  // rotated, by row
  };
  static constexpr uint64_t kNone = ~uint64_t{0};

  void Advance(uint32_t layer, uint64_t query);
  void Decide(uint32_t layer, uint64_t query);
  std::vector<double> Scores(const Layer& layer, uint32_t head, uint64_t query) const;
  std::vector<double> QueryScores(const Layer& layer, uint32_t head, uint64_t query) const;
  std::vector<double> KeyScores(const Layer& layer, uint32_t head) const;
  void Pool(const std::vector<double>& scores, std::vector<double>& into) const;
  void Code(uint32_t layer, uint32_t head, uint64_t key, std::span<double> value);
  bool Stays(uint64_t row) const;
  // Why `kept` is no right choice among the candidates; empty if it is one.
  std::string Judge(const std::vector<uint64_t>& candidates, const std::vector<double>& scores,
                    const std::vector<uint64_t>& kept);
  void Fault(uint32_t layer, uint32_t head, uint64_t query, const std::string& what);

  const HyperParameters& p_;
  const DoubleLlama& llama_;
  const ScoredRule& rule_;
  const std::span<const uint32_t> tokens_;
  const SeenRows& seen_;
  std::vector<Layer> layers_;
  uint64_t keep_sets_ = 0;
  uint64_t near_ties_ = 0;
  std::vector<std::string> faults_;
};

}  // namespace kvasir::engine::testing

#endif  // KVASIR_TESTS_ENGINE_SCORED_ORACLE_H_
