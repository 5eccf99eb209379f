// FarStore: InfLLM in private memory, made of the pure parts of policies/retrieval: seals blocks,
// makes their representatives, looks them up.
#ifndef KVASIR_TESTS_ENGINE_FAR_STORE_H_
#define KVASIR_TESTS_ENGINE_FAR_STORE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "engine/attention_ops.h"
#include "engine/forwarding_store.h"
#include "engine/kv_store.h"
#include "policies/retrieval/block_cache.h"
#include "policies/retrieval/infllm_stream.h"

namespace kvasir::engine::testing {

// What one layer was asked in one step and what it answered.
struct FarLookup {
  std::vector<float> query;
  std::vector<float> mass;  // of the blocks of the lookup before
  std::vector<uint32_t> blocks;
};
using FarLookups = std::map<uint64_t, std::vector<FarLookup>>;  // by the step's first row; [layer]

// Hands everything on to `store` and writes the lookups down, with blocks numbered by their rows'
// positions.
class FarRecorder final : public ForwardingStore {
 public:
  FarRecorder(KvStore& store, const InfLlmConfig& config)
      : ForwardingStore(store), config_(config) {}

  absl::StatusOr<StepView> Begin(uint32_t want) override;
  absl::StatusOr<std::span<const KeptRunView>> Retrieve(uint32_t layer,
                                                        std::span<const float> query,
                                                        std::span<const float> mass) override;

  const FarLookups& lookups() const { return lookups_; }

 private:
  const InfLlmConfig config_;
  uint64_t row_ = 0;
  FarLookups lookups_;
};

// Rows of F32. Every step must be committed whole. Rows that no view shows any more are poisoned.
// Not thread-safe.
class FarStore final : public KvStore {
 public:
  FarStore(const AttentionGeometry& geometry, const InfLlmConfig& config);

  uint64_t rows() const override { return stream_.rows(); }
  absl::StatusOr<StepView> Begin(uint32_t want) override;
  absl::Status Commit(std::span<const uint32_t> token_ids) override;
  bool retrieves() const override { return true; }
  absl::StatusOr<std::span<const KeptRunView>> Retrieve(uint32_t layer,
                                                        std::span<const float> query,
                                                        std::span<const float> mass) override;
  absl::Status Truncate(uint64_t row) override;
  absl::StatusOr<KvUsage> Usage() override { return KvUsage{rows(), rows(), 0}; }
  absl::Status Close() override { return absl::OkStatus(); }

  // The lookup of `layer` fails from now on; none: no more.
  void FailAt(std::optional<uint32_t> layer) { failing_ = layer; }
  // Local attention mass of all rows, [head][row].
  const std::vector<std::vector<double>>& mass(uint32_t layer) const { return layers_[layer].mass; }

 private:
  struct Layer {
    std::vector<std::vector<float>> recent;  // a block: K plane, V plane
    std::vector<RecentBlockView> views;
    std::vector<std::vector<float>> far;  // initial rows one by one, then blocks: K plane, V plane
    std::vector<KeptRunView> init, blocks;
    std::vector<float> reprs;               // [block][head][dim]
    std::vector<std::vector<double>> mass;  // [head][row]
    std::vector<float> step_mass;           // [head][row from recent_base on]
    std::vector<uint32_t> chosen;           // of the last lookup
    std::vector<KeptRunView> answer;
    std::optional<BlockCache> cache;
  };

  KeptRunView Move(Layer& layer, RowRange range);
  absl::Status Seal(Layer& layer, RowRange range);
  LayerView ViewOf(Layer& layer, uint64_t count);
  float* RowOf(Layer& layer, uint64_t row, size_t plane) const;

  const AttentionGeometry geometry_;
  const InfLlmConfig config_;
  const size_t row_floats_;
  InfLlmStream stream_;
  uint32_t step_rows_ = 0;
  std::vector<uint32_t> positions_;  // 0, 1, 2, ...
  std::optional<uint32_t> failing_;
  std::vector<Layer> layers_;
  std::vector<LayerView> views_;
};

}  // namespace kvasir::engine::testing

#endif  // KVASIR_TESTS_ENGINE_FAR_STORE_H_
