#include "kernels/rope_angles.h"

#include <cmath>

#include "base/check.h"

#include <hwy/cache_control.h>

namespace kvasir::kernels {

void RopeAngles::Use(double theta, uint32_t rotated_dims, RopeOrder order) {
  if (theta == theta_ && rotated_dims / 2 == pairs_ && order == order_) {
    return;
  }
  theta_ = theta;
  pairs_ = rotated_dims / 2;
  order_ = order;
  frequencies_.resize(pairs_);
  for (size_t pair = 0; pair < pairs_; ++pair) {
    frequencies_[pair] = std::pow(theta, -2.0 * static_cast<double>(pair) / rotated_dims);
  }
  low_ = Entries(kLowEntries);
  middle_ = Entries(kEntries);
  high_ = Entries(kEntries);
  base_entry_ = Entries(1);
  base_ = kNoBase;
  low_known_.assign(kLowEntries, false);
  middle_known_.assign(kEntries, false);
  high_of_.assign(kEntries, kNoBase);
}

RopeAngles::Floats RopeAngles::Entries(size_t entries) const {
  // One float more: without rotated dimensions there would be none.
  Floats floats = hwy::AllocateAligned<float>(entries * 2 * pairs_ + 1);
  KVASIR_CHECK(floats != nullptr, "no memory for the angles of {} pairs", pairs_);
  return floats;
}

void RopeAngles::Prepare(int64_t base, size_t low, Product product) {
  if (!low_known_[low]) {
    Fill(low_.get() + low * 2 * pairs_, static_cast<int64_t>(low));
    low_known_[low] = true;
  }
  if (base == base_) {
    return;
  }
  const int64_t high = base >> kTableBits;
  const auto middle = static_cast<size_t>(base & (kEntries - 1));
  const auto slot = static_cast<size_t>(high & (kEntries - 1));
  float* m = middle_.get() + middle * 2 * pairs_;
  float* h = high_.get() + slot * 2 * pairs_;
  if (!middle_known_[middle]) {
    Fill(m, static_cast<int64_t>(middle) * kLowEntries);
    middle_known_[middle] = true;
  }
  if (high_of_[slot] != high) {
    Fill(h, high * kEntries * kLowEntries);
    high_of_[slot] = high;
  }
  product(h, m, pairs_, base_entry_.get());
  base_ = base;
  // In a compaction deltas only fall: the next base is likely the one before this, and its entry
  // has left the first-level cache.
  const float* next = middle_.get() + ((middle + kEntries - 1) & (kEntries - 1)) * 2 * pairs_;
  for (size_t at = 0; at < 2 * pairs_; at += 16) {
    hwy::Prefetch(next + at);
  }
}

void RopeAngles::Fill(float* entry, int64_t positions) const {
  for (size_t pair = 0; pair < pairs_; ++pair) {
    const double angle = static_cast<double>(positions) * frequencies_[pair];
    const size_t at = order_.At(pair, pairs_);
    entry[at] = static_cast<float>(std::cos(angle));
    entry[pairs_ + at] = static_cast<float>(std::sin(angle));
  }
}

}  // namespace kvasir::kernels
