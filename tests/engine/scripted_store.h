// ScriptedStore: a store that follows a script of hand-made block tables, and asks the engine for
// what policies ask: attention mass, query rows, unrotated keys, rows of each kv head's own.
#ifndef KVASIR_TESTS_ENGINE_SCRIPTED_STORE_H_
#define KVASIR_TESTS_ENGINE_SCRIPTED_STORE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "engine/gguf_model.h"
#include "engine/kv_store.h"
#include "engine/rope.h"

namespace kvasir::engine::testing {

// One layer's table from a row on. Kept rows are in cache order.
struct TableSpec {
  std::vector<std::vector<uint64_t>> kept;  // one list for all kv heads, or one each, equally long
  std::vector<uint64_t> rotated_at;         // positions of the kept keys; empty: their rows
  std::vector<KeptRunView> spans;  // rows, query_offset and query_max of consecutive kept rows
  uint64_t recent_first = 0;
  uint64_t window = 0;
  std::vector<uint64_t> sticky;

  const std::vector<uint64_t>& KeptOf(uint32_t kv_head) const {
    return kept.size() == 1 ? kept[0] : kept[kv_head];
  }
};

using Script = std::map<uint64_t, std::vector<TableSpec>>;  // tables of all layers, by first row

// What the tables let a query see, said again for a forward pass in double.
std::optional<int64_t> SeesByScript(const Script& script, uint32_t layer, uint32_t kv_head,
                                    uint64_t query, uint64_t key);

// What the store asks of the engine, in every layer.
struct Asks {
  bool mass = false;
  double mass_decay = 1.0;
  bool unrotated = false;
  uint64_t query_first = 0;
  uint32_t query_count = 0;
};

// What the engine answered in one step: mass by original row, [layer][kv_head][row].
struct MassRecord {
  uint64_t row = 0;
  uint32_t count = 0;
  std::vector<std::vector<std::vector<double>>> mass;
};

// Rows of F32. Compacts by copy into blocks of its own, and poisons what is not visible any more.
// Not thread-safe.
class ScriptedStore final : public KvStore {
 public:
  explicit ScriptedStore(const GgufModel& model, Script script = {}, Asks asks = {});

  uint64_t rows() const override { return rows_; }
  absl::StatusOr<StepView> Begin(uint32_t want) override;
  absl::Status Commit(std::span<const uint32_t> token_ids) override;
  absl::Status Truncate(uint64_t row) override;
  absl::StatusOr<KvUsage> Usage() override { return KvUsage{}; }
  absl::Status Close() override { return absl::OkStatus(); }

  // Of all committed steps.
  const std::vector<MassRecord>& masses() const { return masses_; }
  // [row from query_first on][row of floats]; NaN where nothing was written.
  const std::vector<float>& queries(uint32_t layer) const { return layers_[layer].queries; }

 private:
  struct Layer {
    TableSpec table;
    std::vector<std::vector<float>> recent;  // a block: K plane, V plane
    std::vector<RecentBlockView> views;
    std::vector<std::vector<float>> blocks;  // of kept rows, 5 a run with a gap between rows
    std::vector<KeptRunView> kept;
    std::vector<uint32_t> positions;                  // [kv_head or one][kept row]
    std::map<uint64_t, std::vector<float>> original;  // K row, then V row, as the engine wrote them
    std::vector<float> kept_mass, recent_mass, queries;
  };

  void AddBlock(Layer& layer) const;
  void Turn(float* head, uint64_t from, uint64_t to) const;
  void Adopt(const std::vector<TableSpec>& tables);
  void FillKept(Layer& layer) const;
  void FillRun(const Layer& layer, size_t at, size_t rows, float* block) const;
  void Poison(Layer& layer) const;
  LayerView ViewOf(Layer& layer, uint64_t count) const;
  std::vector<std::vector<double>> MassOf(const Layer& layer) const;

  const GgufModel& model_;
  const Rope rope_;
  const Script script_;
  const Asks asks_;
  const size_t head_dim_;
  const size_t row_floats_;
  uint64_t rows_ = 0;
  uint32_t step_rows_ = 0;
  std::vector<Layer> layers_;
  std::vector<LayerView> views_;
  std::vector<MassRecord> masses_;
};

}  // namespace kvasir::engine::testing

#endif  // KVASIR_TESTS_ENGINE_SCRIPTED_STORE_H_
