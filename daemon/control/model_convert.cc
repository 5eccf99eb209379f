#include "daemon/control/model_convert.h"

#include <cmath>

#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir {
namespace {

absl::StatusOr<kernels::RowType> ToRowType(v1::DataType type) {
  switch (type) {
    case v1::DATA_TYPE_F16:
      return kernels::RowType::kF16;
    case v1::DATA_TYPE_BF16:
      return kernels::RowType::kBF16;
    case v1::DATA_TYPE_F32:
      return kernels::RowType::kF32;
    case v1::DATA_TYPE_F8_E4M3:
      return kernels::RowType::kE4M3;
    default:
      return InvalidArgument("dtype is none of F16, BF16, F32, F8_E4M3: value={}",
                             static_cast<int>(type));
  }
}

v1::DataType ToDataType(kernels::RowType type) {
  switch (type) {
    case kernels::RowType::kF16:
      return v1::DATA_TYPE_F16;
    case kernels::RowType::kBF16:
      return v1::DATA_TYPE_BF16;
    case kernels::RowType::kF32:
      return v1::DATA_TYPE_F32;
    case kernels::RowType::kE4M3:
      break;
  }
  return v1::DATA_TYPE_F8_E4M3;
}

absl::StatusOr<core::LayerShape> ToLayerShape(const v1::LayerSpec& spec, int index) {
  core::LayerShape layer{spec.kv_heads(), spec.k_head_dim(), spec.v_head_dim(), 0,
                         spec.query_heads()};
  switch (spec.attention()) {
    case v1::ATTENTION_KIND_UNSPECIFIED:
    case v1::ATTENTION_KIND_FULL:
      return layer;
    case v1::ATTENTION_KIND_SLIDING_WINDOW:
      if (spec.sliding_window() == 0) {
        return InvalidArgument("layers[{}].sliding_window is 0: min=1", index);
      }
      layer.sliding_window = spec.sliding_window();
      return layer;
    default:
      return InvalidArgument("layers[{}].attention is unknown: value={}", index,
                             static_cast<int>(spec.attention()));
  }
}

absl::StatusOr<core::RopeDescription> ToRope(const v1::RopeSpec& spec) {
  core::RopeDescription rope;
  switch (spec.pairing()) {
    case v1::RopeSpec::PAIRING_UNSPECIFIED:
      return rope;
    case v1::RopeSpec::PAIRING_INTERLEAVED:
      rope.pairing = kernels::RopePairing::kInterleaved;
      break;
    case v1::RopeSpec::PAIRING_HALF_SPLIT:
      rope.pairing = kernels::RopePairing::kHalfSplit;
      break;
    default:
      return InvalidArgument("rope.pairing is unknown: value={}", static_cast<int>(spec.pairing()));
  }
  rope.present = true;
  rope.theta = spec.theta();
  rope.rotated_dims = spec.rotated_dims();
  return rope;
}

}  // namespace

absl::StatusOr<core::ModelDescription> ToModelDescription(const v1::ModelSpec& spec) {
  core::ModelDescription model;
  model.name = spec.name();
  KVASIR_ASSIGN_OR_RETURN(model.dtype, ToRowType(spec.dtype()));
  for (int i = 0; i < spec.layers_size(); ++i) {
    KVASIR_ASSIGN_OR_RETURN(const core::LayerShape layer, ToLayerShape(spec.layers(i), i));
    model.layers.push_back(layer);
  }
  KVASIR_ASSIGN_OR_RETURN(model.rope, ToRope(spec.rope()));
  model.separators.assign(spec.separator_token_ids().begin(), spec.separator_token_ids().end());
  model.vocabulary_size = spec.vocabulary_size();
  model.slots_per_block = spec.slots_per_block();
  model.weights_digest = spec.weights_digest();
  model.adapter_digests.assign(spec.adapter_digests().begin(), spec.adapter_digests().end());
  if (!(spec.prefill_rows_per_s() >= 0) || !std::isfinite(spec.prefill_rows_per_s())) {
    return InvalidArgument("prefill_rows_per_s is no rate: value={} min=0",
                           spec.prefill_rows_per_s());
  }
  model.prefill_rows_per_s = spec.prefill_rows_per_s();
  return model;
}

v1::ModelSpec ToModelSpec(const core::ModelDescription& model) {
  v1::ModelSpec spec;
  spec.set_name(model.name);
  spec.set_dtype(ToDataType(model.dtype));
  for (const core::LayerShape& layer : model.layers) {
    v1::LayerSpec* const out = spec.add_layers();
    out->set_kv_heads(layer.kv_heads);
    out->set_k_head_dim(layer.k_head_dim);
    out->set_v_head_dim(layer.v_head_dim);
    out->set_query_heads(layer.query_heads);
    out->set_sliding_window(layer.sliding_window);
    out->set_attention(layer.sliding_window > 0 ? v1::ATTENTION_KIND_SLIDING_WINDOW
                                                : v1::ATTENTION_KIND_FULL);
  }
  if (model.rope.present) {
    v1::RopeSpec* const rope = spec.mutable_rope();
    rope->set_pairing(model.rope.pairing == kernels::RopePairing::kInterleaved
                          ? v1::RopeSpec::PAIRING_INTERLEAVED
                          : v1::RopeSpec::PAIRING_HALF_SPLIT);
    rope->set_theta(model.rope.theta);
    rope->set_rotated_dims(model.rope.rotated_dims);
  }
  spec.mutable_separator_token_ids()->Assign(model.separators.begin(), model.separators.end());
  spec.set_vocabulary_size(model.vocabulary_size);
  spec.set_slots_per_block(model.slots_per_block);
  spec.set_weights_digest(model.weights_digest);
  for (const std::string& digest : model.adapter_digests) spec.add_adapter_digests(digest);
  spec.set_prefill_rows_per_s(model.prefill_rows_per_s);
  return spec;
}

}  // namespace kvasir
