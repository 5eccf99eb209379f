// How the rows of a lane lie in records: the shape of each layer's records, and of a group of them.
//
// Immutable once made; thread-safe.
#ifndef KVASIR_DAEMON_CORE_RECORD_FORMAT_H_
#define KVASIR_DAEMON_CORE_RECORD_FORMAT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <absl/status/statusor.h>

#include "daemon/core/model.h"
#include "daemon/core/model_profile.h"
#include "kernels/encoding/record.h"
#include "policies/policy_definition.h"
#include "proto/shm/group_geometry.h"

namespace kvasir::core {

struct LaneRecords {
  struct Layer {
    uint32_t index = 0;  // of the model
    uint32_t kv_heads = 0;
    kernels::RecordShape k, v;
  };
  std::vector<Layer> layers;  // in lane order
  shm::GroupGeometry geometry;
  uint64_t n_sink = 0;  // where kept rows are encoded: first rows, which are never in a record
  // Shared with the core that has loaded it; may be null.
  std::shared_ptr<const ModelProfile> profile;

  // Query weights of a kv head; empty: all alike.
  std::span<const float> Weights(size_t layer, uint32_t kv_head) const;
};

// `layers`: of the lane, ascending. `profile` may be null. Token-mixed records have k_bits * dims
// planes, moved by the profile's rate of the layer and kept within bounds.
// Errors: kInvalidArgument naming the layer for rows that cannot lie in records.
absl::StatusOr<LaneRecords> MakeLaneRecords(const EncodingSpec& spec, const Model& model,
                                            std::span<const uint32_t> layers,
                                            std::shared_ptr<const ModelProfile> profile);

// The same for a lane that `policy` decides about; null where its rows lie in no records.
absl::StatusOr<std::shared_ptr<const LaneRecords>> LaneRecordsFor(
    const std::optional<EncodingSpec>& encoding, const Model& model,
    std::span<const uint32_t> layers, const RetentionPolicy& policy,
    std::shared_ptr<const ModelProfile> profile);

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_RECORD_FORMAT_H_
