#include "kernels/cuda/rope_table.h"

#include <cmath>
#include <cstddef>

#include "base/error.h"

namespace kvasir::kernels::cuda {
namespace {

constexpr uint32_t kDimsMax = 1U << 16U;

// The turn by `positions`, behind what `numbers` has. As RopeAngles computes it.
void AddEntry(int64_t positions, RopeNumbers& numbers) {
  const size_t at = numbers.entries.size();
  numbers.entries.resize(at + size_t{2} * numbers.pairs);
  for (size_t pair = 0; pair < numbers.pairs; ++pair) {
    const double angle = static_cast<double>(positions) * numbers.frequencies[pair];
    numbers.entries[at + pair] = static_cast<float>(std::cos(angle));
    numbers.entries[at + numbers.pairs + pair] = static_cast<float>(std::sin(angle));
  }
}

}  // namespace

absl::StatusOr<RopeNumbers> MakeRopeNumbers(double theta, uint32_t rotated_dims, uint32_t highs) {
  if (!(theta > 0) || !std::isfinite(theta)) {
    return InvalidArgument("theta is no finite number above 0: theta={}", theta);
  }
  if (rotated_dims % 2 != 0 || rotated_dims > kDimsMax) {
    return InvalidArgument("rotated dims out of bounds: rotated_dims={} max={} multiple_of=2",
                           rotated_dims, kDimsMax);
  }
  if (highs > kRopeHighsMax) {
    return InvalidArgument("highs out of bounds: highs={} max={}", highs, kRopeHighsMax);
  }
  RopeNumbers numbers;
  numbers.pairs = rotated_dims / 2;
  numbers.highs = highs;
  for (uint32_t pair = 0; pair < numbers.pairs; ++pair) {
    numbers.frequencies.push_back(std::pow(theta, -2.0 * static_cast<double>(pair) / rotated_dims));
  }
  const int64_t lows = int64_t{1} << kRopeLowBits;
  const int64_t middles = int64_t{1} << kRopeMiddleBits;
  for (int64_t low = 0; low < lows; ++low) {
    AddEntry(low, numbers);
  }
  for (int64_t middle = 0; middle < middles; ++middle) {
    AddEntry(middle * lows, numbers);
  }
  for (int64_t high = -numbers.highs; high < numbers.highs; ++high) {
    AddEntry(high * middles * lows, numbers);
  }
  return numbers;
}

}  // namespace kvasir::kernels::cuda
