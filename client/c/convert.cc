#include "client/c/convert.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir::c {
namespace {

std::string TextOr(const char* text, std::string fallback) {
  return text == nullptr ? std::move(fallback) : std::string(text);
}

// `count` values at `data`, which may be null where there are none.
absl::Status CheckArray(const void* data, size_t count, const char* field) {
  if (data != nullptr || count == 0) return absl::OkStatus();
  return InvalidArgument("{} is null: count={}", field, count);
}

absl::StatusOr<std::string> BytesOf(const kvasir_bytes& bytes, const char* field) {
  KVASIR_RETURN_IF_ERROR(CheckArray(bytes.data, bytes.size, field));
  if (bytes.size == 0) return std::string();
  return std::string(static_cast<const char*>(bytes.data), bytes.size);
}

absl::Status CheckChoice(int32_t value, int32_t max, const char* field) {
  if (value >= 0 && value <= max) return absl::OkStatus();
  return InvalidArgument("{} is out of bounds: value={} min=0 max={}", field, value, max);
}

absl::Status AddLayers(const kvasir_model_spec& given, ModelSpec* spec) {
  KVASIR_RETURN_IF_ERROR(CheckArray(given.layers, given.layer_count, "layers"));
  for (size_t i = 0; i < given.layer_count; ++i) {
    const kvasir_layer& layer = given.layers[i];
    spec->layers.push_back({layer.kv_heads, layer.k_head_dim, layer.v_head_dim,
                            layer.sliding_window, layer.query_heads});
  }
  return absl::OkStatus();
}

// Whether a header of some version had a struct of this size.
template <typename Struct>
absl::Status CheckSize(const Struct* given, const char* name) {
  if (given == nullptr) return InvalidArgument("{} is null", name);
  if (given->struct_size > sizeof(size_t) && given->struct_size % alignof(Struct) == 0) {
    return absl::OkStatus();
  }
  return InvalidArgument("{}.struct_size is no size of this struct: value={} expected={}", name,
                         given->struct_size, sizeof(Struct));
}

template <typename Struct>
absl::StatusOr<Struct> Known(const Struct* given, const char* name) {
  KVASIR_RETURN_IF_ERROR(CheckSize(given, name));
  Struct known{};
  std::memcpy(&known, given, std::min(given->struct_size, sizeof(Struct)));
  return known;
}

}  // namespace

kvasir_code Answer(const absl::Status& status, kvasir_error* error) {
  if (error != nullptr) {
    const std::string text = status.ok() ? "" : MessageOf(status);
    const size_t bytes = std::min(text.size(), sizeof(error->text) - 1);
    std::memcpy(error->text, text.data(), bytes);
    error->text[bytes] = '\0';
    error->code = static_cast<int32_t>(status.code());
  }
  return static_cast<kvasir_code>(status.code());
}

absl::StatusOr<ConnectOptions> ToConnectOptions(const kvasir_connect_options* given) {
  ConnectOptions options;
  if (given == nullptr) return options;
  KVASIR_ASSIGN_OR_RETURN(const kvasir_connect_options known, Known(given, "connect_options"));
  options.control_socket = TextOr(known.control_socket, std::move(options.control_socket));
  options.data_socket = TextOr(known.data_socket, std::move(options.data_socket));
  constexpr uint64_t kDeadlineMsMax = 24ULL * 3600 * 1000;
  if (known.deadline_ms > kDeadlineMsMax) {
    return InvalidArgument("connect_options.deadline_ms is out of bounds: value={} max={}",
                           known.deadline_ms, kDeadlineMsMax);
  }
  if (known.deadline_ms > 0) options.deadline = std::chrono::milliseconds(known.deadline_ms);
  options.use_ring = known.without_ring == 0;
  return options;
}

absl::StatusOr<ModelSpec> ToModelSpec(const kvasir_model_spec* given) {
  KVASIR_ASSIGN_OR_RETURN(const kvasir_model_spec known, Known(given, "model_spec"));
  ModelSpec spec;
  spec.name = TextOr(known.name, "");
  KVASIR_RETURN_IF_ERROR(CheckChoice(known.kv_type, KVASIR_F32, "model_spec.kv_type"));
  spec.kv_type = static_cast<KvType>(known.kv_type);
  KVASIR_RETURN_IF_ERROR(AddLayers(known, &spec));
  KVASIR_RETURN_IF_ERROR(CheckChoice(known.rope, KVASIR_ROPE_HALF_SPLIT, "model_spec.rope"));
  spec.rope = static_cast<RopeStyle>(known.rope);
  if (known.rope_theta != 0) spec.rope_theta = known.rope_theta;
  spec.rope_dims = known.rope_dims;
  KVASIR_RETURN_IF_ERROR(
      CheckArray(known.separators, known.separator_count, "model_spec.separators"));
  spec.separator_token_ids.assign(known.separators, known.separators + known.separator_count);
  spec.vocabulary_size = known.vocabulary_size;
  spec.slots_per_block = known.slots_per_block;
  KVASIR_ASSIGN_OR_RETURN(spec.weights_digest,
                          BytesOf(known.weights_digest, "model_spec.weights_digest"));
  KVASIR_RETURN_IF_ERROR(
      CheckArray(known.adapter_digests, known.adapter_count, "model_spec.adapter_digests"));
  for (size_t i = 0; i < known.adapter_count; ++i) {
    KVASIR_ASSIGN_OR_RETURN(std::string digest,
                            BytesOf(known.adapter_digests[i], "model_spec.adapter_digests"));
    spec.adapter_digests.push_back(std::move(digest));
  }
  spec.prefill_rows_per_s = known.prefill_rows_per_s;
  return spec;
}

absl::StatusOr<ModelHandle> ToModel(const kvasir_model* given) {
  if (given == nullptr) return InvalidArgument("model is null");
  ModelHandle model;
  model.id = given->id;
  model.slots_per_block = given->slots_per_block;
  model.fingerprint.assign(reinterpret_cast<const char*>(given->fingerprint),
                           sizeof(given->fingerprint));
  return model;
}

absl::StatusOr<PrefixOptions> ToPrompt(const kvasir_prompt* given) {
  KVASIR_ASSIGN_OR_RETURN(const kvasir_prompt known, Known(given, "prompt"));
  PrefixOptions prompt;
  KVASIR_RETURN_IF_ERROR(CheckArray(known.tokens, known.token_count, "prompt.tokens"));
  prompt.tokens.assign(known.tokens, known.tokens + known.token_count);
  KVASIR_RETURN_IF_ERROR(CheckArray(known.digests, known.digest_count, "prompt.digests"));
  for (size_t i = 0; i < known.digest_count; ++i) {
    KVASIR_ASSIGN_OR_RETURN(std::string digest,
                            BytesOf(known.digests[i].digest, "prompt.digests.digest"));
    prompt.digests.push_back({known.digests[i].row, std::move(digest)});
  }
  KVASIR_ASSIGN_OR_RETURN(prompt.salt, BytesOf(known.salt, "prompt.salt"));
  prompt.rows_max = known.rows_max;
  KVASIR_RETURN_IF_ERROR(CheckChoice(known.least_quality, KVASIR_FULL, "prompt.least_quality"));
  if (known.least_quality != KVASIR_ANY_QUALITY) {
    prompt.least_quality = static_cast<PrefixQuality>(known.least_quality);
  }
  return prompt;
}

absl::StatusOr<OpenOptions> ToOpenOptions(const kvasir_open_options* given) {
  KVASIR_ASSIGN_OR_RETURN(const kvasir_open_options known, Known(given, "open_options"));
  OpenOptions options;
  KVASIR_ASSIGN_OR_RETURN(options.model, ToModel(known.model));
  options.retention = TextOr(known.retention, "");
  options.prompt_rows = known.prompt_rows;
  options.label = TextOr(known.label, "");
  options.max_rows = known.max_rows;
  options.reads_records = known.reads_records != 0;
  if (known.snapshot != nullptr) {
    options.snapshot.assign(reinterpret_cast<const char*>(known.snapshot->id),
                            sizeof(known.snapshot->id));
  }
  options.snapshot_rows = known.snapshot_rows;
  if (known.prefix != nullptr) {
    KVASIR_ASSIGN_OR_RETURN(options.prefix, ToPrompt(known.prefix));
  }
  return options;
}

}  // namespace kvasir::c
