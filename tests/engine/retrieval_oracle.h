// RetrievalOracle: InfLLM followed along an attention in double, query by query.
//
// Says what each query sees, and from the probabilities and rows that it is told follows the local
// mass of rows, the sealing of blocks, their representatives and the lookups itself. A store's
// lookup is right where no block that it left out scores clearly more than one that it gave; the
// oracle then goes on with the store's choice. Written after the paper's rule (arXiv 2402.04617 and
// inf_llm/attention/context_manager.py with an exact mask), and shares nothing with
// policies/retrieval but the parameters.
#ifndef KVASIR_TESTS_ENGINE_RETRIEVAL_ORACLE_H_
#define KVASIR_TESTS_ENGINE_RETRIEVAL_ORACLE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/attention_ops.h"
#include "policies/retrieval/infllm_config.h"
#include "tests/engine/double_llama.h"
#include "tests/engine/far_store.h"

namespace kvasir::engine::testing {

AttentionGeometry GeometryOf(const GgufModel& model);

// Not thread-safe. Each layer is told its queries in ascending order.
class RetrievalOracle {
 public:
  // Turns heads, [head][dim], from position 0 to another one.
  using Turn = std::function<void(int64_t position, std::vector<double>& heads)>;

  // `lookups`: of all steps, up to row `rows`; must outlive this.
  RetrievalOracle(const AttentionGeometry& geometry, const InfLlmConfig& config,
                  const FarLookups& lookups, uint64_t rows, Turn turn);

  // Of the query at `row`, before it attends; not rotated.
  void AddRow(uint32_t layer, uint64_t row, const std::vector<double>& q,
              const std::vector<double>& k);
  // Position of the query minus position of the key, or nothing where it does not see the key.
  std::optional<int64_t> Distance(uint32_t layer, uint64_t query, uint64_t key) const;
  // Softmax probability of a key that a query head sees.
  void AddShare(uint32_t layer, uint32_t head, uint64_t query, uint64_t key, double share);
  // After the last row: judges the last step too.
  void Finish();

  uint64_t judged() const { return judged_; }      // lookups that had to choose
  uint64_t doubtful() const { return doubtful_; }  // of them: not judged, scores of a near tie
  uint64_t blocks(uint32_t layer) const { return layers_[layer].blocks.size(); }
  // Largest difference from what the engine told of block mass and mean queries.
  double mass_error() const { return mass_error_; }
  double query_error() const { return query_error_; }
  // Local mass of all rows, [head][row].
  const std::vector<std::vector<double>>& mass(uint32_t layer) const { return layers_[layer].mass; }
  // What the store did that no rounding explains; empty where all is well.
  const std::vector<std::string>& faults() const { return faults_; }

 private:
  struct Block {
    std::vector<double> repr;  // [head][dim]
    bool doubtful = false;     // a near tie in the choice of its keys
  };
  struct Layer {
    uint64_t step = 0;       // first row of the step at work
    uint64_t init = 0;       // rows [0, init) are initial
    uint64_t remainder = 0;  // first row that is neither initial nor in a block
    std::vector<Block> blocks;
    std::vector<std::vector<double>> keys;     // by row
    std::vector<std::vector<double>> queries;  // of the step
    std::vector<std::vector<double>> mass;     // [head][row]
    std::vector<double> block_mass;            // of the step's blocks
  };

  void EndStep(uint32_t layer, uint64_t end);
  void Judge(uint32_t layer, const FarLookup& lookup);
  void CheckMass(uint32_t layer, uint64_t next);
  void SealBlocks(Layer& layer, uint64_t rows) const;
  Block MakeBlock(const Layer& layer) const;
  void Fault(uint32_t layer, const std::string& what);

  const AttentionGeometry geometry_;
  const InfLlmConfig config_;
  const FarLookups& lookups_;
  const uint64_t rows_;
  const Turn turn_;
  std::vector<Layer> layers_;
  uint64_t judged_ = 0;
  uint64_t doubtful_ = 0;
  double mass_error_ = 0.0;
  double query_error_ = 0.0;
  std::vector<std::string> faults_;
};

// Logits of all rows by a forward pass in double that follows `oracle` to its end.
std::vector<float> ForwardByOracle(const DoubleLlama& llama, std::span<const uint32_t> tokens,
                                   RetrievalOracle& oracle);

}  // namespace kvasir::engine::testing

#endif  // KVASIR_TESTS_ENGINE_RETRIEVAL_ORACLE_H_
