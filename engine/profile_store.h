// Stores for measuring a model: one hears its queries, one encodes the keys or the values of a
// single layer. Both hand everything else on to a store in this process. Not thread-safe.
#ifndef KVASIR_ENGINE_PROFILE_STORE_H_
#define KVASIR_ENGINE_PROFILE_STORE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "engine/forwarding_store.h"
#include "engine/gguf_model.h"
#include "kernels/encoding/record.h"

namespace kvasir::engine {

// Sums of squares of rotated queries: [layer][query head][channel].
struct QuerySquares {
  std::vector<std::vector<double>> sums;
  uint64_t queries = 0;
};

// Adds the queries of every committed step to `squares`, which must outlive it.
class QueryStore final : public OwningStore {
 public:
  QueryStore(std::unique_ptr<KvStore> store, const HyperParameters& parameters,
             QuerySquares& squares);
  absl::StatusOr<StepView> Begin(uint32_t want) override;
  absl::Status Commit(std::span<const uint32_t> ids) override;

 private:
  const uint32_t row_floats_;
  QuerySquares& squares_;
  std::vector<LayerView> layers_;
  std::vector<std::vector<float>> queries_;  // [layer]: of the step
  uint32_t count_ = 0;
};

// Rows of one plane of one layer, once they are older than `recent`, as if they lay in a record:
// they are encoded, and what the record says is written back.
class OneLayerEncodedStore final : public OwningStore {
 public:
  struct Config {
    uint32_t layer = 0;
    uint32_t kv_heads = 1;
    kernels::RecordShape shape;
    uint64_t n_sink = 4;
    uint64_t recent = 32;
  };
  OneLayerEncodedStore(std::unique_ptr<KvStore> store, const Config& config)
      : OwningStore(std::move(store)), config_(config), done_(config.n_sink) {}
  // At most up to the row at which the next record is due.
  absl::StatusOr<StepView> Begin(uint32_t want) override;

 private:
  void Encode(const LayerView& view);

  const Config config_;
  uint64_t done_;  // rows below are encoded, or first rows
  std::vector<std::byte> record_;
  std::vector<float> rows_;
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_PROFILE_STORE_H_
