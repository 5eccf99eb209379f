#include "daemon/core/model_profile.h"

#include <algorithm>
#include <cmath>
#include <exception>

#include "base/error.h"
#include "base/status_macros.h"
#include "kernels/encoding/record.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <xxhash.h>

namespace kvasir::core {
namespace {

using nlohmann::json;

constexpr char kFormat[] = "kvasir-profile-1";
constexpr double kWeightMax = 1e6;
constexpr double kBitsMax = 6;
constexpr size_t kLayersMax = 1024, kHeadsMax = 1024;

absl::StatusOr<const json*> Field(const json& object, const char* name, json::value_t type) {
  const auto found = object.find(name);
  if (found == object.end() || found->type() != type) {
    return InvalidArgument("profile field is missing or of another type: field={} type={}", name,
                           json(type).type_name());
  }
  return &*found;
}

absl::StatusOr<double> Number(const json& value, const char* field, double min, double max) {
  const double number = value.is_number() ? value.get<double>() : NAN;
  const bool in_bounds = number >= min && number <= max;  // false for what is not a number
  if (!in_bounds) {
    return InvalidArgument("profile number is out of bounds: field={} min={} max={}", field, min,
                           max);
  }
  return number;
}

absl::StatusOr<const json*> Array(const json& value, const char* field, size_t max) {
  if (!value.is_array() || value.empty() || value.size() > max) {
    return InvalidArgument("profile list is out of bounds: field={} min=1 max={}", field, max);
  }
  return &value;
}

absl::StatusOr<std::vector<double>> Rates(const json& object, const char* name, size_t layers) {
  KVASIR_ASSIGN_OR_RETURN(const json* list, Field(object, name, json::value_t::array));
  if (list->size() != layers) {
    return InvalidArgument("profile list has another length: field={} entries={} expected={}", name,
                           list->size(), layers);
  }
  std::vector<double> rates;
  for (const json& entry : *list) {
    KVASIR_ASSIGN_OR_RETURN(const double rate, Number(entry, name, -kBitsMax, kBitsMax));
    rates.push_back(rate);
  }
  return rates;
}

absl::StatusOr<std::vector<float>> HeadWeights(const json& value) {
  KVASIR_ASSIGN_OR_RETURN(const json* channels,
                          Array(value, "query_weights", kernels::kRecordDimsMax));
  std::vector<float> weights;
  for (const json& channel : *channels) {
    KVASIR_ASSIGN_OR_RETURN(const double weight, Number(channel, "query_weights", 0, kWeightMax));
    weights.push_back(static_cast<float>(weight));
  }
  return weights;
}

absl::StatusOr<ModelProfile> Read(const json& object) {
  ModelProfile profile;
  KVASIR_ASSIGN_OR_RETURN(const json* format, Field(object, "format", json::value_t::string));
  if (*format != kFormat) return InvalidArgument("profile has another format: known={}", kFormat);
  KVASIR_ASSIGN_OR_RETURN(const json* digest,
                          Field(object, "weights_digest", json::value_t::string));
  profile.weights_digest = digest->get<std::string>();
  KVASIR_ASSIGN_OR_RETURN(const json* weights,
                          Field(object, "query_weights", json::value_t::array));
  KVASIR_ASSIGN_OR_RETURN(const json* layers, Array(*weights, "query_weights", kLayersMax));
  for (const json& layer : *layers) {
    KVASIR_ASSIGN_OR_RETURN(const json* heads, Array(layer, "query_weights", kHeadsMax));
    std::vector<std::vector<float>> of_layer;
    for (const json& head : *heads) {
      KVASIR_ASSIGN_OR_RETURN(std::vector<float> of_head, HeadWeights(head));
      of_layer.push_back(std::move(of_head));
    }
    profile.weights.push_back(std::move(of_layer));
  }
  KVASIR_ASSIGN_OR_RETURN(profile.k_bits, Rates(object, "k_bits", layers->size()));
  KVASIR_ASSIGN_OR_RETURN(profile.v_bits, Rates(object, "v_bits", layers->size()));
  return profile;
}

}  // namespace

absl::StatusOr<ModelProfile> ParseModelProfile(std::string_view text) {
  if (text.size() > kProfileBytesMax) {
    return InvalidArgument("profile is too long: bytes={} max={}", text.size(), kProfileBytesMax);
  }
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return InvalidArgument("profile is not a JSON object");
  KVASIR_ASSIGN_OR_RETURN(ModelProfile profile, Read(object));
  profile.digest =
      fmt::format("{:08x}", static_cast<uint32_t>(XXH3_64bits(text.data(), text.size())));
  return profile;
}

absl::Status CheckProfileFits(const ModelProfile& profile, const ModelDescription& model) {
  if (profile.weights.size() != model.layers.size()) {
    return InvalidArgument("profile is of another model: layers={} expected={}",
                           profile.weights.size(), model.layers.size());
  }
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const LayerShape& layer = model.layers[i];
    const auto& heads = profile.weights[i];
    const bool fits = heads.size() == layer.kv_heads &&
                      std::all_of(heads.begin(), heads.end(), [&](const auto& head) {
                        return head.size() == layer.k_head_dim;
                      });
    if (!fits) {
      return InvalidArgument("profile is of another model: layer={} kv_heads={} k_head_dim={}", i,
                             layer.kv_heads, layer.k_head_dim);
    }
  }
  return absl::OkStatus();
}

}  // namespace kvasir::core
