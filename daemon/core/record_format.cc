#include "daemon/core/record_format.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "policies/encoding_spec.h"

namespace kvasir::core {
namespace {

// Planes of a token-mixed record: bits are a mean over the layers, moved by the layer's rate.
uint32_t CodePlanes(uint32_t bits, double delta_bits, uint32_t dims) {
  const double planes = (static_cast<double>(bits) / kBitFraction + delta_bits) * dims;
  return static_cast<uint32_t>(
      std::clamp(std::round(planes), dims / 2.0, double{kernels::kCodePlanesMax} * dims));
}

}  // namespace

std::span<const float> LaneRecords::Weights(size_t layer, uint32_t kv_head) const {
  if (profile == nullptr) return {};
  return profile->weights[layers[layer].index][kv_head];
}

absl::StatusOr<LaneRecords> MakeLaneRecords(const EncodingSpec& spec, const Model& model,
                                            std::span<const uint32_t> layers,
                                            std::shared_ptr<const ModelProfile> profile) {
  LaneRecords records;
  records.n_sink = spec.n_sink;
  records.profile = spec.profile ? std::move(profile) : nullptr;
  std::vector<shm::LayerRecordBytes> bytes;
  for (const uint32_t index : layers) {
    const LayerShape& layer = model.description().layers[index];
    if (layer.v_head_dim == 0) {
      return InvalidArgument("a layer without V rows cannot lie in records: layer={}", index);
    }
    LaneRecords::Layer out;
    out.index = index;
    out.kv_heads = layer.kv_heads;
    out.k = {.codec = spec.k,
             .plane = kernels::RecordPlane::kKey,
             .type = model.description().dtype,
             .rows = spec.rows,
             .dims = layer.k_head_dim};
    out.v = out.k;
    out.v.codec = spec.v;
    out.v.plane = kernels::RecordPlane::kValue;
    out.v.dims = layer.v_head_dim;
    const ModelProfile* const rates = records.profile.get();
    if (spec.k == kernels::Codec::kTokenMixed) {
      out.k.code_planes =
          CodePlanes(spec.k_bits, rates == nullptr ? 0 : rates->k_bits[index], out.k.dims);
    }
    if (spec.v == kernels::Codec::kTokenMixed) {
      out.v.code_planes =
          CodePlanes(spec.v_bits, rates == nullptr ? 0 : rates->v_bits[index], out.v.dims);
    }
    for (const kernels::RecordShape& shape : {out.k, out.v}) {
      const absl::Status status = kernels::CheckRecordShape(shape);
      if (!status.ok()) {
        return InvalidArgument("rows of a layer cannot lie in records: layer={} reason={}", index,
                               MessageOf(status));
      }
    }
    bytes.push_back({layer.kv_heads, static_cast<uint32_t>(kernels::RecordBytes(out.k)),
                     static_cast<uint32_t>(kernels::RecordBytes(out.v))});
    records.layers.push_back(out);
  }
  records.geometry = shm::MakeRecordGeometry(bytes, spec.rows);
  return records;
}

absl::StatusOr<std::shared_ptr<const LaneRecords>> LaneRecordsFor(
    const std::optional<EncodingSpec>& encoding, const Model& model,
    std::span<const uint32_t> layers, const RetentionPolicy& policy,
    std::shared_ptr<const ModelProfile> profile) {
  if (!encoding || encoding->v_row_bits > 0 || policy.encodable().rows == EncodableRows::kNone) {
    return nullptr;
  }
  KVASIR_ASSIGN_OR_RETURN(LaneRecords records,
                          MakeLaneRecords(*encoding, model, layers, std::move(profile)));
  return std::make_shared<const LaneRecords>(std::move(records));
}

}  // namespace kvasir::core
