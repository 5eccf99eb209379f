#include "daemon/core/model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "kernels/row_convert.h"

#include <fmt/format.h>
#include <xxhash.h>

namespace kvasir::core {
namespace {

constexpr uint64_t kLayersMax = 1024;
constexpr uint32_t kHeadsMax = 4096;
constexpr uint32_t kQueryHeadsMax = 65536;
constexpr uint64_t kQueryRowBytesMax = 16 << 20;  // of floats
constexpr uint32_t kHeadDimMax = 65536;
constexpr uint64_t kRowBytesMax = 1 << 20;
constexpr uint64_t kTokenBytesMax = 64 << 20;
constexpr uint32_t kVocabularyMax = 1 << 24;
constexpr size_t kSeparatorsMax = 4096;
constexpr size_t kAdaptersMax = 64;

template <typename T>
absl::Status CheckRange(const std::string& field, T value, T low, T high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return InvalidArgument("{} is out of bounds: value={} min={} max={}", field, value, low, high);
}

absl::Status CheckLayer(const LayerShape& layer, size_t index, uint32_t element_bytes,
                        shm::LayerRowBytes* row_bytes) {
  const std::string at = fmt::format("layers[{}].", index);
  KVASIR_RETURN_IF_ERROR(CheckRange(at + "kv_heads", layer.kv_heads, 1U, kHeadsMax));
  KVASIR_RETURN_IF_ERROR(CheckRange(at + "query_heads", layer.query_heads, 0U, kQueryHeadsMax));
  KVASIR_RETURN_IF_ERROR(CheckRange(at + "k_head_dim", layer.k_head_dim, 1U, kHeadDimMax));
  KVASIR_RETURN_IF_ERROR(CheckRange(at + "v_head_dim", layer.v_head_dim, 0U, kHeadDimMax));
  const uint64_t k = uint64_t{layer.kv_heads} * layer.k_head_dim * element_bytes;
  const uint64_t v = uint64_t{layer.kv_heads} * layer.v_head_dim * element_bytes;
  KVASIR_RETURN_IF_ERROR(CheckRange<uint64_t>(at + "K row bytes", k, 1, kRowBytesMax));
  KVASIR_RETURN_IF_ERROR(CheckRange<uint64_t>(at + "V row bytes", v, 0, kRowBytesMax));
  const uint64_t q = uint64_t{4} * layer.query_heads * layer.k_head_dim;
  KVASIR_RETURN_IF_ERROR(CheckRange<uint64_t>(at + "query row bytes", q, 0, kQueryRowBytesMax));
  *row_bytes = {static_cast<uint32_t>(k), static_cast<uint32_t>(v)};
  return absl::OkStatus();
}

absl::Status CheckRope(const ModelDescription& model) {
  if (!model.rope.present) return absl::OkStatus();
  if (!(model.rope.theta > 1.0 && model.rope.theta < 1e12)) {
    return InvalidArgument("rope.theta is out of bounds: value={} min=1 max=1e12",
                           model.rope.theta);
  }
  uint32_t smallest = kHeadDimMax;
  for (const LayerShape& layer : model.layers) smallest = std::min(smallest, layer.k_head_dim);
  KVASIR_RETURN_IF_ERROR(CheckRange("rope.rotated_dims", model.rope.rotated_dims, 2U, smallest));
  if (model.rope.rotated_dims % 2 != 0) {
    return InvalidArgument("rope.rotated_dims is odd: value={}", model.rope.rotated_dims);
  }
  return absl::OkStatus();
}

absl::Status CheckTokens(const ModelDescription& model) {
  KVASIR_RETURN_IF_ERROR(CheckRange("vocabulary_size", model.vocabulary_size, 1U, kVocabularyMax));
  KVASIR_RETURN_IF_ERROR(
      CheckRange<size_t>("separator_token_ids count", model.separators.size(), 0, kSeparatorsMax));
  for (const TokenId id : model.separators) {
    KVASIR_RETURN_IF_ERROR(CheckRange("separator_token_ids", id, 0U, model.vocabulary_size - 1));
  }
  return absl::OkStatus();
}

absl::Status CheckDigests(const ModelDescription& model) {
  KVASIR_RETURN_IF_ERROR(
      CheckRange<size_t>("weights_digest bytes", model.weights_digest.size(), 16, 64));
  KVASIR_RETURN_IF_ERROR(
      CheckRange<size_t>("adapter_digests count", model.adapter_digests.size(), 0, kAdaptersMax));
  for (const std::string& digest : model.adapter_digests) {
    KVASIR_RETURN_IF_ERROR(CheckRange<size_t>("adapter_digests bytes", digest.size(), 16, 64));
  }
  return CheckRange<size_t>("name bytes", model.name.size(), 0, 256);
}

// Each kv head serves equally many query heads. REQUIRES: CheckLayer() was OK for all.
absl::Status CheckGroups(const ModelDescription& model) {
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const LayerShape& layer = model.layers[i];
    if (layer.query_heads % layer.kv_heads == 0) continue;
    return InvalidArgument(
        "layers[{}].query_heads is no multiple of kv_heads: query_heads={} kv_heads={}", i,
        layer.query_heads, layer.kv_heads);
  }
  return absl::OkStatus();
}

std::array<uint8_t, 16> Fingerprint(const ModelDescription& model, uint32_t slots) {
  std::string text = fmt::format("weights {:02x}\n",
                                 fmt::join(std::vector<unsigned char>(model.weights_digest.begin(),
                                                                      model.weights_digest.end()),
                                           ""));
  for (const std::string& digest : model.adapter_digests) {
    text += fmt::format("adapter {:02x}\n",
                        fmt::join(std::vector<unsigned char>(digest.begin(), digest.end()), ""));
  }
  text += fmt::format("dtype {} slots {}\n", static_cast<int>(model.dtype), slots);
  for (const LayerShape& layer : model.layers) {
    text += fmt::format("layer {} {} {} {}\n", layer.kv_heads, layer.k_head_dim, layer.v_head_dim,
                        layer.sliding_window);
  }
  text +=
      fmt::format("rope {} {} {:a} {}\n", model.rope.present, static_cast<int>(model.rope.pairing),
                  model.rope.theta, model.rope.rotated_dims);
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  std::array<uint8_t, 16> out{};
  std::copy(std::begin(canonical.digest), std::end(canonical.digest), out.begin());
  return out;
}

}  // namespace

uint32_t BytesOf(kernels::RowType type) {
  return static_cast<uint32_t>(kernels::ElementBytes(type));
}

absl::StatusOr<Model> Model::Create(ModelDescription description, DeviceMemory* device) {
  Model model;
  model.device_ = device;
  KVASIR_RETURN_IF_ERROR(
      CheckRange<uint64_t>("layers count", description.layers.size(), 1, kLayersMax));
  for (size_t i = 0; i < description.layers.size(); ++i) {
    shm::LayerRowBytes bytes;
    KVASIR_RETURN_IF_ERROR(
        CheckLayer(description.layers[i], i, BytesOf(description.dtype), &bytes));
    model.row_bytes_.push_back(bytes);
    model.token_bytes_ += bytes.k + bytes.v;
  }
  KVASIR_RETURN_IF_ERROR(CheckRange<uint64_t>("bytes of one token over all layers",
                                              model.token_bytes_, 1, kTokenBytesMax));
  KVASIR_RETURN_IF_ERROR(CheckRope(description));
  KVASIR_RETURN_IF_ERROR(CheckTokens(description));
  KVASIR_RETURN_IF_ERROR(CheckDigests(description));
  KVASIR_RETURN_IF_ERROR(CheckGroups(description));
  const uint32_t slots = description.slots_per_block;
  if (slots != 0 && slots != 16 && slots != 32 && slots != 64 && slots != 128) {
    return InvalidArgument("slots_per_block is none of 0, 16, 32, 64, 128: value={}", slots);
  }
  // The rule is about f16, whatever the dtype is, so that tables of one model look alike.
  const uint64_t f16_token_bytes = model.token_bytes_ / BytesOf(description.dtype) * 2;
  model.slots_per_block_ = slots != 0 ? slots : shm::DefaultSlotsPerBlock(f16_token_bytes);
  model.fingerprint_ = Fingerprint(description, model.slots_per_block_);
  model.description_ = std::move(description);
  return model;
}

}  // namespace kvasir::core
