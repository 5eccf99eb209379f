#include "client/llama_cpp/daemon_model.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include <ggml.h>
#include <xxhash.h>

namespace kvasir::llama_cpp {
namespace {

// How the daemon sees the layers. Where a row is not of a type that it knows, as where it is
// quantised, it is so many bytes to it.
struct DaemonLayers {
  kvasir_type type = KVASIR_F16;
  std::vector<kvasir_layer> layers;
};

std::optional<kvasir_type> DaemonType(int32_t type) {
  switch (type) {
    case GGML_TYPE_F16:
      return KVASIR_F16;
    case GGML_TYPE_BF16:
      return KVASIR_BF16;
    case GGML_TYPE_F32:
      return KVASIR_F32;
    default:
      return std::nullopt;
  }
}

std::optional<DaemonLayers> LayersOf(const StateLayout& layout, uint32_t kv_heads) {
  DaemonLayers all;
  std::optional<kvasir_type> type = DaemonType(layout.layers.front().k_type);
  for (const StateLayer& layer : layout.layers) {
    if (layer.k_type != layout.layers.front().k_type ||
        (layer.v_row_bytes != 0 && layer.v_type != layer.k_type)) {
      type.reset();
    }
  }
  all.type = type.value_or(KVASIR_F16);
  const uint64_t element = type == KVASIR_F32 ? 4 : 2;
  for (const StateLayer& layer : layout.layers) {
    if (layer.k_row_bytes % element != 0 || layer.v_row_bytes % element != 0) return std::nullopt;
    const uint64_t k = layer.k_row_bytes / element, v = layer.v_row_bytes / element;
    const bool by_head = type && kv_heads > 0 && k % kv_heads == 0 && v % kv_heads == 0;
    const uint32_t heads = by_head ? kv_heads : 1;
    kvasir_layer made{};
    made.kv_heads = heads;
    made.k_head_dim = static_cast<uint32_t>(k / heads);
    made.v_head_dim = static_cast<uint32_t>(v / heads);
    all.layers.push_back(made);
  }
  return all;
}

}  // namespace

kvasir_code Fail(kvasir_error* error, kvasir_code code, const std::string& text) {
  if (error != nullptr) {
    error->code = code;
    const size_t bytes = std::min(text.size(), sizeof(error->text) - 1);
    std::memcpy(error->text, text.data(), bytes);
    error->text[bytes] = '\0';
  }
  return code;
}

kvasir_code DigestOf(const char* path, std::string* digest, kvasir_error* error) {
  digest->resize(32);
  return kvasir_digest_file(path, reinterpret_cast<uint8_t*>(digest->data()), error);
}

std::string ShortDigest(const std::string& text) {
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return {reinterpret_cast<const char*>(&hash), sizeof(hash)};
}

kvasir_code RegisterCache(kvasir_session* session, const StateLayout& layout,
                          const CacheIdentity& identity, kvasir_model* model, kvasir_error* error) {
  const std::optional<DaemonLayers> layers = LayersOf(layout, identity.kv_heads);
  if (!layers) {
    return Fail(error, KVASIR_UNIMPLEMENTED, "rows have an odd number of bytes: " + layout.Text());
  }
  // Part of the key as an adapter is: what the same weights are turned into rows by.
  const kvasir_bytes behaviour = {identity.rows_digest.data(), identity.rows_digest.size()};
  kvasir_model_spec spec{};
  spec.struct_size = sizeof(spec);
  spec.name = identity.name.c_str();
  spec.kv_type = layers->type;
  spec.layers = layers->layers.data();
  spec.layer_count = layers->layers.size();
  spec.separators = identity.separators.data();
  spec.separator_count = identity.separators.size();
  spec.vocabulary_size = identity.vocabulary_size;
  spec.weights_digest = {identity.weights_digest.data(), identity.weights_digest.size()};
  spec.adapter_digests = &behaviour;
  spec.adapter_count = 1;
  return kvasir_register_model(session, &spec, model, error);
}

kvasir_code OpenCache(kvasir_session* session, const kvasir_model& model, const char* retention,
                      const kvasir_prompt* prompt, OwnedSequence* sequence, kvasir_error* error) {
  kvasir_open_options open{};
  open.struct_size = sizeof(open);
  open.model = &model;
  open.retention = retention;
  open.label = "llama.cpp";
  open.prefix = prompt;
  kvasir_sequence* opened = nullptr;
  const kvasir_code code = kvasir_open(session, &open, &opened, error);
  sequence->reset(opened);
  return code;
}

kvasir_prompt PromptOf(std::span<const uint32_t> tokens, uint64_t rows_max,
                       const std::string& salt) {
  kvasir_prompt prompt{};
  prompt.struct_size = sizeof(prompt);
  prompt.tokens = tokens.data();
  prompt.token_count = tokens.size();
  prompt.rows_max = rows_max;
  prompt.salt = {salt.data(), salt.size()};
  return prompt;
}

}  // namespace kvasir::llama_cpp
