// What return-hazard learns: how likely idle blocks return at an age, and what moves that.
//
// A proportional-hazards model, learned online. An age histogram gives the base hazard of a bucket;
// a score, the sum of one number for each of a tail's features, multiplies it by exp(score). One
// observation is a share of a tail that was at risk in a bucket, and how much of it came back.
//
// Doubles, in the order of the calls, without fast-math: replays agree. Thread-compatible. Cost: an
// observation is eight look-ups and one exp(). 131,648 bytes.
#ifndef KVASIR_EVICTION_HAZARD_STATISTICS_H_
#define KVASIR_EVICTION_HAZARD_STATISTICS_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/status.h>

#include "eviction/age_buckets.h"
#include "eviction/return_hazard_options.h"

namespace kvasir::eviction {

inline constexpr uint32_t kFeatures = 8;
inline constexpr uint32_t kFeatureGroups = 8;
inline constexpr uint32_t kFeatureValues = 128;

// What a request found when its tail was made; equal tails have equal scores.
struct TailFeatures {
  uint8_t group = 0;          // 2 * type + first turn
  uint8_t count = kFeatures;  // features that count: the first so many
  std::array<uint8_t, kFeatures> values{};
};

class HazardStatistics {
 public:
  explicit HazardStatistics(const ReturnHazardOptions& options);

  double Base(uint32_t bucket) const {
    return (hit_[bucket] + options_.hazard_prior * options_.prior_weight) /
           (risk_[bucket] + options_.prior_weight);
  }
  double Score(const TailFeatures& features) const;
  // The score in steps of a quarter, 0 (hopeless) to 18; 12 is a score of 0.
  uint8_t LevelOf(const TailFeatures& features) const;

  void AddRisk(uint32_t bucket, double share) { risk_[bucket] += share; }
  // Of `at_risk` in `bucket`, `returned` came back.
  void Observe(const TailFeatures& features, uint32_t bucket, double returned, double at_risk);
  // The past of the age histogram counts a little less.
  void Decay();

  // The first bucket above the quantile of returns; kBuckets while too few were seen.
  uint32_t OldBucket() const;

  // Magic, version and counts, then little-endian doubles. Restore is all or nothing. Errors:
  // kDataLoss naming the field and its bound.
  std::string Save() const;
  absl::Status Restore(std::string_view bytes);

  uint64_t MetadataBytes() const { return sizeof(*this) + 2 * beta_.capacity() * sizeof(double); }

 private:
  static size_t At(uint32_t feature, const TailFeatures& features) {
    return (size_t{feature} * kFeatureGroups + features.group) * kFeatureValues +
           features.values[feature];
  }

  ReturnHazardOptions options_;
  std::array<double, kBuckets> hit_{};
  std::array<double, kBuckets> risk_{};
  std::vector<double> beta_;      // [feature][group][value]
  std::vector<double> evidence_;  // expected returns that a beta was learned from
};

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_HAZARD_STATISTICS_H_
