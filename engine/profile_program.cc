#include "engine/profile_program.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <memory>
#include <utility>

#include <absl/strings/escaping.h>

#include "base/error.h"
#include "base/status_macros.h"
#include "client/model_spec.h"
#include "engine/comparison.h"
#include "engine/private_kv_store.h"
#include "engine/profile_store.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace kvasir::engine {
namespace {

constexpr size_t kVariantsAtOnce = 10;  // sequences that lie in memory together
constexpr uint32_t kRecordRows = 64;
constexpr uint32_t kCodeBits = 2;      // at which a layer's loss is measured
constexpr double kLeastLoss = 1e-9;    // nats; below it a loss is noise
constexpr double kRateMax = 3;         // bits
constexpr double kWeightFloor = 0.01;  // of a head's mean

// "k12": keys of layer 12 encoded, "v3": values of layer 3.
struct Variant {
  kernels::RecordPlane plane = kernels::RecordPlane::kKey;
  uint32_t layer = 0;
};

std::string NameOf(const Variant& variant) {
  return fmt::format("{}{}", variant.plane == kernels::RecordPlane::kKey ? 'k' : 'v',
                     variant.layer);
}

Variant VariantOf(const std::string& name) {
  Variant variant;
  variant.plane = name.front() == 'k' ? kernels::RecordPlane::kKey : kernels::RecordPlane::kValue;
  std::from_chars(name.data() + 1, name.data() + name.size(), variant.layer);
  return variant;
}

// [kv_head][channel] of one layer, relative to the head's mean.
std::vector<std::vector<double>> WeightsOf(const std::vector<double>& squares,
                                           const HyperParameters& parameters) {
  const uint32_t group = parameters.heads / parameters.kv_heads, dims = parameters.head_dim;
  std::vector<std::vector<double>> weights(parameters.kv_heads, std::vector<double>(dims, 0.0));
  for (uint32_t head = 0; head < parameters.kv_heads; ++head) {
    double sum = 0;
    for (uint32_t i = 0; i < group * dims; ++i) {
      weights[head][i % dims] += squares[size_t{head} * group * dims + i];
      sum += squares[size_t{head} * group * dims + i];
    }
    const double mean = std::max(sum / dims, 1e-30);
    for (double& weight : weights[head]) {
      // Five digits are enough, and keep the file small.
      weight = std::round((weight / mean + kWeightFloor) * 1e5) / 1e5;
    }
  }
  return weights;
}

class Profiler {
 public:
  Profiler(const GgufModel& model, const ProfileOptions& options)
      : parameters_(model.parameters()), options_(options) {}

  absl::Status Measure(LlamaEngine& engine, const std::vector<CompareText>& texts) {
    losses_.assign(2, std::vector<double>(parameters_.layers, 0.0));
    std::vector<std::string> names;
    for (uint32_t layer = 0; layer < parameters_.layers; ++layer) {
      names.push_back(NameOf({kernels::RecordPlane::kKey, layer}));
      names.push_back(NameOf({kernels::RecordPlane::kValue, layer}));
    }
    for (const CompareText& text : texts) {
      for (size_t at = 0; at < names.size(); at += kVariantsAtOnce) {
        const auto some =
            std::span(names).subspan(at, std::min(kVariantsAtOnce, names.size() - at));
        KVASIR_RETURN_IF_ERROR(MeasureSome(engine, text, some, /*queries=*/at == 0));
        fmt::print(stderr, "{}: {}/{} planes of layers\n", text.name, at + some.size(),
                   names.size());
      }
    }
    return absl::OkStatus();
  }

  nlohmann::ordered_json ToJson(const std::string& weights_digest) const {
    nlohmann::ordered_json weights = nlohmann::ordered_json::array();
    for (const std::vector<double>& squares : squares_.sums) {
      weights.push_back(WeightsOf(squares, parameters_));
    }
    return {{"format", "kvasir-profile-1"},
            {"weights_digest", absl::BytesToHexString(weights_digest)},
            {"k_bits", RatesOf(losses_[0])},
            {"v_bits", RatesOf(losses_[1])},
            {"query_weights", weights}};
  }

 private:
  absl::Status MeasureSome(LlamaEngine& engine, const CompareText& text,
                           std::span<const std::string> names, bool queries) {
    const auto maker = [&](const std::string& name) {
      return MakeStore(name, text.ids.size(), queries);
    };
    Comparison comparison(engine, maker, options_.batch);
    KVASIR_ASSIGN_OR_RETURN(const std::vector<TextResult> results,
                            comparison.Run(text.ids, names, {}));
    for (size_t i = 1; i < results.size(); ++i) {
      const Variant variant = VariantOf(results[i].retention);
      losses_[static_cast<size_t>(variant.plane)][variant.layer] += results[i].kl;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<KvStore>> MakeStore(const std::string& name, uint64_t rows,
                                                     bool queries) {
    KVASIR_ASSIGN_OR_RETURN(
        std::unique_ptr<KvStore> store,
        PrivateKvStore::Create(GeometryOf(parameters_, options_.engine.kv_type, kRecordRows),
                               rows));
    if (name == "full") {
      if (!queries) return store;
      return std::make_unique<QueryStore>(std::move(store), parameters_, squares_);
    }
    const Variant variant = VariantOf(name);
    OneLayerEncodedStore::Config config;
    config.layer = variant.layer;
    config.kv_heads = parameters_.kv_heads;
    config.shape = {.codec = kernels::Codec::kTokenMixed,
                    .plane = variant.plane,
                    .type = options_.engine.kv_type,
                    .rows = kRecordRows,
                    .dims = parameters_.head_dim,
                    .code_planes = kCodeBits * parameters_.head_dim};
    KVASIR_RETURN_IF_ERROR(kernels::CheckRecordShape(config.shape));
    return std::make_unique<OneLayerEncodedStore>(std::move(store), config);
  }

  const HyperParameters& parameters_;
  const ProfileOptions& options_;
  QuerySquares squares_;
  std::vector<std::vector<double>> losses_;  // [plane][layer], summed over the texts
};

}  // namespace

std::vector<double> RatesOf(const std::vector<double>& losses) {
  std::vector<double> rates;
  double sum = 0;
  for (const double loss : losses) {
    rates.push_back(std::log2(std::max(loss, kLeastLoss)) / 2);
    sum += rates.back();
  }
  for (double& rate : rates) {
    const double above = rate - sum / static_cast<double>(losses.size());
    rate = std::round(std::clamp(above, -kRateMax, kRateMax) * 64) / 64;
  }
  return rates;
}

absl::Status RunProfile(const GgufModel& model, const ProfileOptions& options,
                        const std::vector<CompareText>& texts) {
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<LlamaEngine> engine,
                          LlamaEngine::Create(model, options.engine));
  KVASIR_ASSIGN_OR_RETURN(const std::string digest, DigestFile(model.path()));
  Profiler profiler(model, options);
  KVASIR_RETURN_IF_ERROR(profiler.Measure(*engine, texts));
  KVASIR_RETURN_IF_ERROR(WriteWhole(options.path, profiler.ToJson(digest).dump() + "\n"));
  fmt::print("profile of {} layers: {}\n", model.parameters().layers, options.path);
  return absl::OkStatus();
}

}  // namespace kvasir::engine
