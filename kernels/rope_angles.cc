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
  low_.resize(kLowEntries * 2 * pairs_);
  middle_.resize(kEntries * 2 * pairs_);
  high_.resize(kEntries * 2 * pairs_);
  base_entry_.resize(2 * pairs_);
  base_ = kNoBase;
  low_known_.assign(kLowEntries, false);
  middle_known_.assign(kEntries, false);
  high_of_.assign(kEntries, kNoBase);
}

void RopeAngles::Prepare(int64_t base, size_t low, Product product) {
  if (!low_known_[low]) {
    Fill(low_.data() + low * 2 * pairs_, static_cast<int64_t>(low));
    low_known_[low] = true;
  }
  if (base == base_) {
    return;
  }
  const int64_t high = base >> kTableBits;
  const auto middle = static_cast<size_t>(base & (kEntries - 1));
  const auto slot = static_cast<size_t>(high & (kEntries - 1));
  float* m = middle_.data() + middle * 2 * pairs_;
  float* h = high_.data() + slot * 2 * pairs_;
  if (!middle_known_[middle]) {
    Fill(m, static_cast<int64_t>(middle) * kLowEntries);
    middle_known_[middle] = true;
  }
  if (high_of_[slot] != high) {
    Fill(h, high * kEntries * kLowEntries);
    high_of_[slot] = high;
  }
  product(h, m, pairs_, base_entry_.data());
  base_ = base;
}

void RopeAngles::Fill(float* entry, int64_t positions) const {
  for (size_t pair = 0; pair < pairs_; ++pair) {
    const double angle = static_cast<double>(positions) * frequencies_[pair];
    entry[pair] = static_cast<float>(std::cos(angle));
    entry[pairs_ + pair] = static_cast<float>(std::sin(angle));
  }
}

}  // namespace kvasir::kernels
