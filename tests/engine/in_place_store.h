// InPlaceStore: every row stays where it was written, and each query gets views of the rows that an
// oracle lets it see. Nothing is moved, copied or re-rotated: the yardstick for compaction.
#ifndef KVASIR_TESTS_ENGINE_IN_PLACE_STORE_H_
#define KVASIR_TESTS_ENGINE_IN_PLACE_STORE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "engine/gguf_model.h"
#include "engine/kv_store.h"
#include "tests/engine/oracle_tables.h"

namespace kvasir::engine::testing {

// Rows of F32. Not thread-safe.
class InPlaceStore final : public KvStore {
 public:
  // An empty oracle lets every query see everything.
  InPlaceStore(const GgufModel& model, Oracle oracle, uint64_t rows_max);

  uint64_t rows() const override { return rows_; }
  absl::StatusOr<StepView> Begin(uint32_t want) override;
  absl::Status Commit(std::span<const uint32_t> token_ids) override;
  absl::Status Truncate(uint64_t row) override;
  absl::StatusOr<KvUsage> Usage() override { return KvUsage{rows_, rows_, 0}; }
  absl::Status Close() override { return absl::OkStatus(); }

 private:
  struct Layer {
    std::vector<float> k, v;  // all rows, one behind the other
    RecentBlockView block;    // all of them
    std::vector<KeptRunView> kept;
  };
  void FillKept(const OracleTable& table, Layer& layer) const;

  const Oracle oracle_;
  const uint64_t rows_max_;
  const uint32_t row_bytes_;
  uint64_t rows_ = 0;
  std::vector<Layer> layers_;
  std::vector<LayerView> views_;
};

}  // namespace kvasir::engine::testing

#endif  // KVASIR_TESTS_ENGINE_IN_PLACE_STORE_H_
