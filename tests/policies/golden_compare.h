// What the runners of golden cases share: a difference or a bad size throws std::runtime_error.
#ifndef KVASIR_TESTS_POLICIES_GOLDEN_COMPARE_H_
#define KVASIR_TESTS_POLICIES_GOLDEN_COMPARE_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <absl/status/statusor.h>

#include "base/error.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace kvasir::testing {

inline constexpr uint32_t kMax = 1U << 20U;  // of every size parameter

template <typename T>
T Value(absl::StatusOr<T> got) {
  if (!got.ok()) throw std::runtime_error(MessageOf(got.status()));
  return *std::move(got);
}

inline void Check(const absl::Status& status) {
  if (!status.ok()) throw std::runtime_error(MessageOf(status));
}

inline uint32_t Small(uint64_t value) {
  if (value > kMax) throw std::runtime_error(fmt::format("size {} is above {}", value, kMax));
  return static_cast<uint32_t>(value);
}

template <typename Got>
void Equal(const std::string& what, const Got& got, std::span<const int32_t> want) {
  if (!std::equal(got.begin(), got.end(), want.begin(), want.end(),
                  [](auto a, int32_t b) { return b >= 0 && a == static_cast<uint32_t>(b); })) {
    throw std::runtime_error(
        fmt::format("{}: got [{}], want [{}]", what, fmt::join(got, " "), fmt::join(want, " ")));
  }
}

inline void Near(const std::string& what, std::span<const float> got, std::span<const float> want) {
  if (got.size() != want.size()) {
    throw std::runtime_error(fmt::format("{}: {} values, not {}", what, got.size(), want.size()));
  }
  float largest = 0;
  for (const float x : want) largest = std::max(largest, std::abs(x));
  for (size_t i = 0; i < want.size(); ++i) {
    if (!(std::abs(got[i] - want[i]) <= 1e-5F * largest)) {
      throw std::runtime_error(fmt::format("{}[{}]: got {}, want {}", what, i, got[i], want[i]));
    }
  }
}

// Row `index` of a padded matrix, up to the first -1.
inline std::span<const int32_t> Unpadded(const std::vector<int32_t>& values, size_t index,
                                         size_t width) {
  const auto row = std::span(values).subspan(index * width, width);
  const auto end = std::find(row.begin(), row.end(), -1);
  return row.subspan(0, static_cast<size_t>(end - row.begin()));
}

inline uint32_t GroupOf(uint64_t heads, uint64_t kv_heads) {
  if (kv_heads == 0 || heads == 0 || heads % kv_heads != 0) {
    throw std::runtime_error(fmt::format("{} heads on {} kv heads", heads, kv_heads));
  }
  return Small(heads / kv_heads);
}

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_POLICIES_GOLDEN_COMPARE_H_
