#include "eviction/hazard_statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <span>

#include "base/error.h"
#include "base/state_codec.h"
#include "eviction/tail.h"

namespace kvasir::eviction {
namespace {

constexpr size_t kNumbers = size_t{kFeatures} * kFeatureGroups * kFeatureValues;
constexpr double kBetaMin = -3, kBetaMax = 2.5;
constexpr double kScoreMin = -4, kScoreMax = 3;
constexpr double kStep = 0.5;
constexpr double kReturnsMin = 20;  // before this many nothing is called old
constexpr double kCountMax = 1e15;  // of a histogram: whole numbers are exact below

constexpr std::string_view kMagic = "KVRHAZRD";
constexpr uint64_t kVersion = 1;

absl::Status TakeAll(std::string_view& bytes, const char* field, double min, double max,
                     std::span<double> into) {
  for (size_t i = 0; i < into.size(); ++i) {
    into[i] = std::bit_cast<double>(TakeNumber(bytes));
    if (!(into[i] >= min && into[i] <= max)) {  // NaN is refused too
      return DataLoss("learned state is out of bounds: {}[{}]={} min={} max={}", field, i, into[i],
                      min, max);
    }
  }
  return absl::OkStatus();
}

}  // namespace

HazardStatistics::HazardStatistics(const ReturnHazardOptions& options)
    : options_(options), beta_(kNumbers), evidence_(kNumbers) {
  // A block that is not full has a successor with another key: dead until exact repeats teach
  // otherwise.
  for (const int first_turn : {0, 1}) {
    TailFeatures partial;
    partial.group = static_cast<uint8_t>(2 * kPartial + first_turn);
    beta_[At(0, partial)] = kBetaMin;
  }
}

double HazardStatistics::Score(const TailFeatures& features) const {
  double sum = 0;
  for (uint32_t f = 0; f < features.count; ++f) sum += beta_[At(f, features)];
  return std::clamp(sum, kScoreMin, kScoreMax);
}

uint8_t HazardStatistics::LevelOf(const TailFeatures& features) const {
  return static_cast<uint8_t>(std::clamp(std::round(Score(features) / 0.25) + 12, 0.0, 18.0));
}

void HazardStatistics::Observe(const TailFeatures& features, uint32_t bucket, double returned,
                               double at_risk) {
  const double expected = at_risk * Base(bucket) * std::exp(Score(features));
  for (uint32_t f = 0; f < features.count; ++f) {
    const size_t at = At(f, features);
    evidence_[at] = std::min(evidence_[at] + expected, options_.evidence_max);
    beta_[at] =
        std::clamp(beta_[at] + kStep * (returned - expected) / (options_.kappa + evidence_[at]),
                   kBetaMin, kBetaMax);
  }
  hit_[bucket] += returned;
}

void HazardStatistics::Decay() {
  for (double& value : hit_) value *= options_.decay;
  for (double& value : risk_) value *= options_.decay;
}

uint32_t HazardStatistics::OldBucket() const {
  const double sum = std::accumulate(hit_.begin(), hit_.end(), 0.0);
  if (sum <= kReturnsMin) return kBuckets;
  double below = 0;
  for (uint32_t b = 0; b < kBuckets; ++b) {
    below += hit_[b];
    if (below >= options_.old_quantile * sum) return b + 1;
  }
  return kBuckets;
}

std::string HazardStatistics::Save() const {
  std::string bytes(kMagic);
  for (const uint64_t number : {kVersion, uint64_t{kBuckets}, uint64_t{kNumbers}}) {
    AppendNumber(bytes, number);
  }
  for (const std::span<const double> values :
       {std::span<const double>(hit_), std::span<const double>(risk_),
        std::span<const double>(beta_), std::span<const double>(evidence_)}) {
    for (const double value : values) AppendNumber(bytes, std::bit_cast<uint64_t>(value));
  }
  return bytes;
}

absl::Status HazardStatistics::Restore(std::string_view bytes) {
  constexpr size_t kSize = kMagic.size() + 8 * (3 + 2 * kBuckets + 2 * kNumbers);
  if (bytes.size() != kSize) {
    return DataLoss("learned state has another size: bytes={} expected={}", bytes.size(), kSize);
  }
  if (!bytes.starts_with(kMagic)) return DataLoss("no learned state: magic expected={}", kMagic);
  bytes.remove_prefix(kMagic.size());
  struct Expected {
    const char* field;
    uint64_t value;
  };
  for (const Expected& expected : {Expected{"version", kVersion}, Expected{"buckets", kBuckets},
                                   Expected{"numbers", kNumbers}}) {
    if (const uint64_t got = TakeNumber(bytes); got != expected.value) {
      return DataLoss("learned state is of another kind: {}={} expected={}", expected.field, got,
                      expected.value);
    }
  }
  HazardStatistics read(options_);
  struct Field {
    const char* name;
    double min, max;
    std::span<double> values;
  };
  for (const Field& field :
       {Field{"hit", 0, kCountMax, read.hit_}, Field{"risk", 0, kCountMax, read.risk_},
        Field{"beta", kBetaMin, kBetaMax, read.beta_},
        Field{"evidence", 0, options_.evidence_max, read.evidence_}}) {
    const absl::Status status = TakeAll(bytes, field.name, field.min, field.max, field.values);
    if (!status.ok()) return status;
  }
  *this = std::move(read);
  return absl::OkStatus();
}

}  // namespace kvasir::eviction
