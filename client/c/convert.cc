#include "client/c/convert.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/shortage.h"
#include "base/status_macros.h"
#include "client/c/handles.h"

namespace kvasir::c {
namespace {

constexpr size_t kLeaseIdBytes = 16;

std::string TextOr(const char* text, std::string fallback) {
  return text == nullptr ? std::move(fallback) : std::string(text);
}

// `count` values at `data`, which may be null where there are none.
// So that its end is an address, too.
absl::Status CheckArray(const void* data, size_t count, size_t element_bytes, const char* field) {
  const size_t max = std::numeric_limits<ptrdiff_t>::max() / element_bytes;
  if (count > max) return InvalidArgument("{} is too long: count={} max={}", field, count, max);
  if (data != nullptr || count == 0) return absl::OkStatus();
  return InvalidArgument("{} is null: count={}", field, count);
}

template <typename Element>
absl::Status CheckArray(const Element* data, size_t count, const char* field) {
  return CheckArray(data, count, sizeof(Element), field);
}

absl::StatusOr<std::string> BytesOf(const kvasir_bytes& bytes, const char* field) {
  KVASIR_RETURN_IF_ERROR(CheckArray(bytes.data, bytes.size, 1, field));
  if (bytes.size == 0) return std::string();
  return std::string(static_cast<const char*>(bytes.data), bytes.size);
}

absl::Status CheckChoice(int32_t value, int32_t max, const char* field) {
  if (value >= 0 && value <= max) return absl::OkStatus();
  return InvalidArgument("{} is out of bounds: value={} min=0 max={}", field, value, max);
}

absl::StatusOr<std::chrono::milliseconds> ToMilliseconds(uint64_t value, const char* field) {
  constexpr uint64_t kMillisecondsMax = uint64_t{1} << 53;
  if (value <= kMillisecondsMax) return std::chrono::milliseconds(value);
  return InvalidArgument("{} is out of bounds: value={} max={}", field, value, kMillisecondsMax);
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

// Of this thread's last answer. Plain bytes, so that a thread's end has nothing to free.
thread_local kvasir_shortage last_shortage;
thread_local bool shortage_known = false;

void CopyText(const char* text, size_t length, char* out, size_t out_bytes) {
  const size_t bytes = std::min(length, out_bytes - 1);
  std::memcpy(out, text, bytes);
  out[bytes] = '\0';
}

void Remember(const absl::Status& status) {
  const std::optional<Shortage> shortage = ShortageOf(status);
  shortage_known = shortage.has_value();
  if (!shortage) return;
  CopyText(shortage->budget.data(), shortage->budget.size(), last_shortage.budget,
           sizeof(last_shortage.budget));
  CopyText(shortage->holder.data(), shortage->holder.size(), last_shortage.holder,
           sizeof(last_shortage.holder));
  last_shortage.missing = shortage->missing;
  last_shortage.retry_after_ms =
      static_cast<uint64_t>(std::max<int64_t>(0, shortage->retry_after.count()));
}

template <typename Struct>
absl::StatusOr<Struct> Known(const Struct* given, const char* name) {
  KVASIR_RETURN_IF_ERROR(CheckSize(given, name));
  Struct known{};
  std::memcpy(&known, given, std::min(given->struct_size, sizeof(Struct)));
  return known;
}

}  // namespace

absl::Status Missing(const char* name) { return InvalidArgument("{} is null", name); }

kvasir_code AnswerPlainly(kvasir_code code, const char* text, kvasir_error* error) {
  shortage_known = false;
  if (error != nullptr) {
    error->code = static_cast<int32_t>(code);
    CopyText(text, std::strlen(text), error->text, sizeof(error->text));
  }
  return code;
}

kvasir_code Answer(const absl::Status& status, kvasir_error* error) {
  if (status.ok()) return AnswerPlainly(KVASIR_OK, "", error);
  const kvasir_code code =
      AnswerPlainly(static_cast<kvasir_code>(status.code()), MessageOf(status).c_str(), error);
  Remember(status);
  return code;
}

const kvasir_shortage* LastShortage() { return shortage_known ? &last_shortage : nullptr; }

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
  KVASIR_ASSIGN_OR_RETURN(const DeviceRefs devices, ToDevices(given));
  for (const auto& opened : devices) options.devices.push_back(opened->device.get());
  return options;
}

absl::StatusOr<DeviceRefs> ToDevices(const kvasir_connect_options* given) {
  DeviceRefs devices;
  if (given == nullptr) return devices;
  KVASIR_ASSIGN_OR_RETURN(const kvasir_connect_options known, Known(given, "connect_options"));
  KVASIR_RETURN_IF_ERROR(CheckArray(known.devices, known.device_count, "connect_options.devices"));
  for (size_t i = 0; i < known.device_count; ++i) {
    if (known.devices[i] == nullptr) {
      return InvalidArgument("connect_options.devices has a null: index={} count={}", i,
                             known.device_count);
    }
    const std::string& uuid = known.devices[i]->opened->device->facts().uuid;
    for (const auto& other : devices) {
      if (other->device->facts().uuid != uuid) continue;
      return InvalidArgument("connect_options.devices has a device twice: index={} uuid={}", i,
                             uuid);
    }
    devices.push_back(known.devices[i]->opened);
  }
  return devices;
}

absl::StatusOr<ModelSpec> ToModelSpec(const kvasir_model_spec* given) {
  KVASIR_ASSIGN_OR_RETURN(const kvasir_model_spec known, Known(given, "model_spec"));
  ModelSpec spec;
  spec.name = TextOr(known.name, "");
  KVASIR_RETURN_IF_ERROR(CheckChoice(known.kv_type, KVASIR_F8_E4M3, "model_spec.kv_type"));
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
  spec.pool = TextOr(known.pool, "");
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
  if (known.lease != nullptr) {
    options.lease.assign(reinterpret_cast<const char*>(known.lease), kLeaseIdBytes);
  }
  if (known.hints != nullptr) {
    KVASIR_ASSIGN_OR_RETURN(options.hints, ToHints(known.hints));
  }
  return options;
}

absl::StatusOr<RequestHints> ToHints(const kvasir_hints* given) {
  KVASIR_ASSIGN_OR_RETURN(const kvasir_hints known, Known(given, "hints"));
  RequestHints hints;
  hints.priority = known.priority;
  if (known.has_prediction > 2) {
    return InvalidArgument("hints.has_prediction is out of bounds: value={} min=0 max=2",
                           known.has_prediction);
  }
  if (known.has_prediction == 1) hints.predicted_rows = known.predicted_rows;
  if (known.has_prediction == 2) hints.predicted_rank = known.predicted_rank;
  KVASIR_ASSIGN_OR_RETURN(hints.age, ToMilliseconds(known.age_ms, "hints.age_ms"));
  return hints;
}

absl::StatusOr<LeaseOptions> ToLeaseOptions(const kvasir_lease_options* given) {
  KVASIR_ASSIGN_OR_RETURN(const kvasir_lease_options known, Known(given, "lease_options"));
  LeaseOptions options;
  KVASIR_RETURN_IF_ERROR(CheckArray(known.members, known.member_count, "lease_options.members"));
  for (size_t i = 0; i < known.member_count; ++i) {
    const kvasir_lease_member& member = known.members[i];
    KVASIR_RETURN_IF_ERROR(
        CheckChoice(member.least_quality, KVASIR_FULL, "lease_options.members.least_quality"));
    LeaseMember& added = options.members.emplace_back();
    added.model_fingerprint.assign(reinterpret_cast<const char*>(member.model_fingerprint),
                                   sizeof(member.model_fingerprint));
    added.retention = TextOr(member.retention, "");
    if (member.least_quality != KVASIR_ANY_QUALITY) {
      added.least_quality = static_cast<PrefixQuality>(member.least_quality);
    }
    added.reads_records = member.reads_records != 0;
  }
  KVASIR_ASSIGN_OR_RETURN(options.prefix, ToPrompt(known.prompt));
  options.prompt_rows = known.prompt_rows;
  KVASIR_ASSIGN_OR_RETURN(options.ttl, ToMilliseconds(known.ttl_ms, "lease_options.ttl_ms"));
  return options;
}

absl::StatusOr<std::vector<std::string>> ToTexts(const kvasir_bytes* texts, size_t count) {
  KVASIR_RETURN_IF_ERROR(CheckArray(texts, count, "texts"));
  std::vector<std::string> converted;
  for (size_t i = 0; i < count; ++i) {
    KVASIR_ASSIGN_OR_RETURN(std::string text, BytesOf(texts[i], "texts"));
    converted.push_back(std::move(text));
  }
  return converted;
}

}  // namespace kvasir::c
