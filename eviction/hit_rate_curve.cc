#include "eviction/hit_rate_curve.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace kvasir::eviction {

HitRateCurve::HitRateCurve(const Options& options)
    : samples_max_(options.samples_max),
      asked_half_(options.asked_half),
      chunks_max_(options.chunks_max) {
  KVASIR_CHECK(samples_max_ >= 16 && samples_max_ <= 1U << 20, "samples_max={}", samples_max_);
  KVASIR_CHECK(chunks_max_ >= 1 && chunks_max_ <= kCurveChunksMax, "chunks_max={}", chunks_max_);
  KVASIR_CHECK(asked_half_ >= 1, "asked_half={}", asked_half_);
}

uint32_t HitRateCurve::BucketOf(uint64_t chunks) {
  if (chunks < kSteps) return static_cast<uint32_t>(chunks);
  const auto octave = static_cast<uint32_t>(std::bit_width(chunks)) - 5;  // 16..31: 0
  const auto step = static_cast<uint32_t>(chunks >> octave);              // 16..31
  return std::min(octave * kSteps + step, kBuckets - 1);
}

uint64_t HitRateCurve::FirstOf(uint32_t bucket) {
  if (bucket < 2 * kSteps) return bucket;
  return uint64_t{kSteps + bucket % kSteps} << (bucket / kSteps - 1);
}

void HitRateCurve::Choose(std::span<const ChainKey> chain) {
  if (hash_at_.empty()) {  // the first one
    hash_at_.resize(size_t{2} * samples_max_);
    ranks_ = RecencyRanks(2 * samples_max_);
    place_of_.reserve(size_t{samples_max_} + 1);
  }
  chosen_.clear();
  for (const ChainKey& key : chain) {
    if (Follows(key.high)) chosen_.push_back(key.high);
  }
}

void HitRateCurve::Ask(std::span<const ChainKey> chain) {
  Choose(chain);
  asked_ += static_cast<double>(chain.size());
  const auto weight = static_cast<double>(stands_for());
  for (const uint64_t hash : chosen_) {
    const auto found = place_of_.find(hash);
    if (found == place_of_.end()) {
      unknown_ += weight;
    } else {
      from_[BucketOf((uint64_t{ranks_.Behind(found->second)} << shift_) + 1)] += weight;
    }
  }
  TouchChosen();
  if (asked_ >= static_cast<double>(asked_half_)) {
    asked_ /= 2;
    unknown_ /= 2;
    for (double& chunks : from_) chunks /= 2;
  }
}

void HitRateCurve::Store(std::span<const ChainKey> chain) {
  Choose(chain);
  TouchChosen();
}

void HitRateCurve::TouchChosen() {
  for (size_t i = chosen_.size(); i-- > 0;) {
    if (Follows(chosen_[i])) Touch(chosen_[i]);  // k may have risen since
  }
  // One prompt of a million chunks is not to keep its memory.
  if (chosen_.capacity() > samples_max_) std::vector<uint64_t>().swap(chosen_);
}

void HitRateCurve::Touch(uint64_t hash) {
  if (next_place_ == hash_at_.size()) Pack();
  const auto [at, added] = place_of_.try_emplace(hash, next_place_);
  if (!added) {
    ranks_.Unmark(at->second);
    at->second = next_place_;
  }
  hash_at_[next_place_] = hash;
  ranks_.Mark(next_place_++);
  while (uint64_t{ranks_.marked()} << shift_ > chunks_max_ && ranks_.marked() > 1) DropOldest();
  if (ranks_.marked() > samples_max_) Thin();
}

bool HitRateCurve::IsCurrent(uint32_t place) const {
  const auto found = place_of_.find(hash_at_[place]);
  return found != place_of_.end() && found->second == place;
}

void HitRateCurve::DropOldest() {
  while (!IsCurrent(oldest_place_)) ++oldest_place_;
  ranks_.Unmark(oldest_place_);
  place_of_.erase(hash_at_[oldest_place_++]);
}

void HitRateCurve::Thin() {
  ++shift_;
  for (uint32_t place = oldest_place_; place < next_place_; ++place) {
    if (!IsCurrent(place) || Follows(hash_at_[place])) continue;
    ranks_.Unmark(place);
    place_of_.erase(hash_at_[place]);
  }
}

void HitRateCurve::Pack() {
  ranks_.Clear();
  uint32_t packed = 0;
  for (uint32_t place = oldest_place_; place < next_place_; ++place) {
    if (!IsCurrent(place)) continue;
    hash_at_[packed] = hash_at_[place];
    place_of_[hash_at_[packed]] = packed;
    ranks_.Mark(packed++);
  }
  oldest_place_ = 0;
  next_place_ = packed;
}

double HitRateCurve::HitRatio(uint64_t chunks) const {
  if (asked_ == 0 || chunks == 0) return 0;
  const uint32_t bucket = BucketOf(chunks);
  double missed = unknown_;
  for (uint32_t b = bucket + 1; b < kBuckets; ++b) missed += from_[b];
  // Of the bucket that the size lies in, the part above it.
  const uint64_t first = FirstOf(bucket), end = FirstOf(bucket + 1);
  if (chunks < end) {
    missed +=
        from_[bucket] * static_cast<double>(end - 1 - chunks) / static_cast<double>(end - first);
  }
  return std::clamp(1 - missed / asked_, 0.0, 1.0);
}

void HitRateCurve::Clear(uint64_t chunks_max) {
  KVASIR_CHECK(chunks_max >= 1 && chunks_max <= kCurveChunksMax, "chunks_max={}", chunks_max);
  chunks_max_ = chunks_max;
  shift_ = 0;
  ranks_ = RecencyRanks(static_cast<uint32_t>(hash_at_.size()));
  place_of_.clear();
  next_place_ = oldest_place_ = 0;
  asked_ = unknown_ = 0;
  from_.fill(0);
}

uint64_t HitRateCurve::MetadataBytes() const {
  return sizeof(*this) + ranks_.MetadataBytes() + hash_at_.capacity() * sizeof(uint64_t) +
         place_of_.capacity() * (sizeof(std::pair<const uint64_t, uint32_t>) + 1) +
         chosen_.capacity() * sizeof(uint64_t);
}

}  // namespace kvasir::eviction
