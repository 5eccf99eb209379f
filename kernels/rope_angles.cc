#include "kernels/rope_angles.h"

#include <cmath>

namespace kvasir::kernels {

void RopeAngles::Use(double theta, uint32_t rotated_dims) {
  if (theta == theta_ && rotated_dims / 2 == pairs_) {
    return;
  }
  theta_ = theta;
  pairs_ = rotated_dims / 2;
  frequencies_.resize(pairs_);
  for (size_t pair = 0; pair < pairs_; ++pair) {
    frequencies_[pair] = std::pow(theta, -2.0 * static_cast<double>(pair) / rotated_dims);
  }
  low_.resize(kEntries * 2 * pairs_);
  high_.resize(kEntries * 2 * pairs_);
  low_known_.assign(kEntries, false);
  high_known_.assign(kEntries, false);
  high_of_.assign(kEntries, 0);
}

RopeAngles::Turn RopeAngles::Of(int64_t delta) {
  const auto low = static_cast<size_t>(delta & (int64_t{kEntries} - 1));
  const int64_t base = delta - static_cast<int64_t>(low);
  const int64_t high = base / int64_t{kEntries};
  const auto slot = static_cast<size_t>(high & (int64_t{kEntries} - 1));
  float* low_entry = low_.data() + low * 2 * pairs_;
  float* high_entry = high_.data() + slot * 2 * pairs_;
  if (!low_known_[low]) {
    Fill(low_entry, static_cast<int64_t>(low));
    low_known_[low] = true;
  }
  if (!high_known_[slot] || high_of_[slot] != high) {
    Fill(high_entry, base);
    high_known_[slot] = true;
    high_of_[slot] = high;
  }
  return {.high = high_entry, .low = low_entry};
}

void RopeAngles::Fill(float* entry, int64_t positions) const {
  for (size_t pair = 0; pair < pairs_; ++pair) {
    const double angle = static_cast<double>(positions) * frequencies_[pair];
    entry[pair] = static_cast<float>(std::cos(angle));
    entry[pairs_ + pair] = static_cast<float>(std::sin(angle));
  }
}

}  // namespace kvasir::kernels
