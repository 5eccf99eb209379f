// Model: the checked form of a model spec, and what follows from it: row bytes, slots, fingerprint.
#ifndef KVASIR_DAEMON_CORE_MODEL_H_
#define KVASIR_DAEMON_CORE_MODEL_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "kernels/gather.h"
#include "policies/retention_policy.h"
#include "proto/shm/group_geometry.h"

namespace kvasir {
class DeviceMemory;
}

namespace kvasir::core {

struct LayerShape {
  uint32_t kv_heads = 0;
  uint32_t k_head_dim = 0;
  uint32_t v_head_dim = 0;      // 0: no V rows
  uint32_t sliding_window = 0;  // 0: full attention
  uint32_t query_heads = 0;     // 0: unknown
};

struct RopeDescription {
  bool present = false;
  kernels::RopePairing pairing = kernels::RopePairing::kInterleaved;
  double theta = 10000.0;
  uint32_t rotated_dims = 0;
};

// What an engine says about its model, unchecked.
struct ModelDescription {
  std::string name;
  kernels::RowType dtype = kernels::RowType::kF16;
  std::vector<LayerShape> layers;
  RopeDescription rope;
  std::vector<TokenId> separators;
  uint32_t vocabulary_size = 0;
  uint32_t slots_per_block = 0;  // 0: chosen here
  std::string weights_digest;
  std::vector<std::string> adapter_digests;
  double prefill_rows_per_s = 0;  // that the engine computes; 0: unknown. Of no snapshot.
};

// Immutable.
class Model {
 public:
  // Its rows will lie in the memory of `device`, which outlives it; null: in host memory. Errors:
  // kInvalidArgument naming the field and its bound.
  static absl::StatusOr<Model> Create(ModelDescription description, DeviceMemory* device = nullptr);

  const ModelDescription& description() const { return description_; }
  DeviceMemory* device() const { return device_; }
  uint32_t layers() const { return static_cast<uint32_t>(description_.layers.size()); }
  uint32_t slots_per_block() const { return slots_per_block_; }
  const std::vector<shm::LayerRowBytes>& row_bytes() const { return row_bytes_; }
  // K and V of one token over all layers.
  uint64_t token_bytes() const { return token_bytes_; }
  // XXH3-128 over digests, layer shapes, rope, dtype and slots: two models that share it lay out
  // and compute the same rows, wherever these lie.
  const std::array<uint8_t, 16>& fingerprint() const { return fingerprint_; }

 private:
  ModelDescription description_;
  DeviceMemory* device_ = nullptr;
  std::vector<shm::LayerRowBytes> row_bytes_;
  uint64_t token_bytes_ = 0;
  uint32_t slots_per_block_ = 0;
  std::array<uint8_t, 16> fingerprint_{};
};

uint32_t BytesOf(kernels::RowType type);

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_MODEL_H_
