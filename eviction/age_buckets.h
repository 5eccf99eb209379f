// Ages of idle blocks in 36 buckets, three an octave from four seconds on.
#ifndef KVASIR_EVICTION_AGE_BUCKETS_H_
#define KVASIR_EVICTION_AGE_BUCKETS_H_

#include <array>
#include <cmath>
#include <cstdint>

namespace kvasir::eviction {

inline constexpr uint32_t kBuckets = 36;
inline constexpr double kPeakAgeMax = 120;  // seconds: a return is likeliest before

// Lower edges in seconds, and the upper one of the last bucket. Bucket b: [edge b, edge b + 1).
inline const std::array<double, kBuckets + 1>& EdgesInSeconds() {
  static const auto edges = [] {
    std::array<double, kBuckets + 1> e{};
    for (uint32_t i = 1; i < kBuckets; ++i) e[i] = 4 * std::exp2((i - 1) / 3.0);
    e[kBuckets] = 1.5 * e[kBuckets - 1];
    return e;
  }();
  return edges;
}

inline const std::array<int64_t, kBuckets + 1>& EdgesInMicros() {
  static const auto edges = [] {
    std::array<int64_t, kBuckets + 1> e{};
    for (uint32_t i = 0; i <= kBuckets; ++i) e[i] = std::llround(EdgesInSeconds()[i] * 1e6);
    return e;
  }();
  return edges;
}

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_AGE_BUCKETS_H_
