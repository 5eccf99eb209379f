#include "policies/fairness/fair_shares.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace kvasir::fairness {
namespace {

// Bytes times weights of up to 1,024 tenants go beyond 64 bits.
using Wide = unsigned __int128;

struct Bounds {
  uint64_t floor = 0;
  uint64_t cap = 0;
  uint64_t weight = 1;
};

// A level of water, as a fraction: at it a tenant has weight * bytes / weights.
struct Level {
  uint64_t bytes = 0;
  uint64_t weight = 1;
  friend bool operator<(const Level& a, const Level& b) {
    return Wide{a.bytes} * b.weight < Wide{b.bytes} * a.weight;
  }
};

uint64_t At(const Bounds& bounds, const Level& level) {
  const Wide share = Wide{bounds.weight} * level.bytes / level.weight;
  return share >= bounds.cap ? bounds.cap : std::max(bounds.floor, static_cast<uint64_t>(share));
}

Wide SumAt(std::span<const Bounds> all, const Level& level) {
  Wide sum = 0;
  for (const Bounds& bounds : all) sum += At(bounds, level);
  return sum;
}

// REQUIRES: the floors fit.
std::vector<uint64_t> Fill(uint64_t capacity, std::span<const Bounds> all) {
  // The level stands between two neighbours of those at which a tenant begins or ceases to rise.
  std::vector<Level> levels = {{0, 1}};
  for (const Bounds& bounds : all) {
    levels.push_back({bounds.floor, bounds.weight});
    levels.push_back({bounds.cap, bounds.weight});
  }
  std::sort(levels.begin(), levels.end());
  const auto above = std::partition_point(levels.begin(), levels.end(), [&](const Level& level) {
    return SumAt(all, level) <= capacity;
  });
  const Level below = above == levels.begin() ? levels.front() : *std::prev(above);
  std::vector<uint64_t> shares(all.size());
  if (above == levels.end()) {
    for (size_t i = 0; i < all.size(); ++i) shares[i] = all[i].cap;
    return shares;
  }
  // Between the two the same ones rise, in proportion to their weights.
  uint64_t left = capacity;
  uint64_t weights = 0;
  std::vector<bool> rises(all.size());
  for (size_t i = 0; i < all.size(); ++i) {
    const Level floor{all[i].floor, all[i].weight}, cap{all[i].cap, all[i].weight};
    rises[i] = !(below < floor) && below < cap;
    shares[i] = below < floor ? all[i].floor : all[i].cap;
    if (rises[i]) {
      weights += all[i].weight;
    } else {
      left -= shares[i];
    }
  }
  uint64_t given = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!rises[i]) continue;
    shares[i] = At(all[i], {left, weights});
    given += shares[i];
  }
  for (size_t i = 0; given < left; i = (i + 1) % all.size()) {
    if (!rises[i] || shares[i] >= all[i].cap) continue;
    ++shares[i];
    ++given;
  }
  return shares;
}

}  // namespace

std::vector<uint64_t> FairShares(uint64_t capacity, std::span<const Claim> claims) {
  std::vector<Bounds> all;
  Wide floors = 0;
  for (const Claim& claim : claims) {
    const uint64_t cap = std::min(claim.limit, claim.wanted);
    const uint64_t floor = std::min(claim.reserved, cap);
    all.push_back({floor, cap, std::clamp<uint32_t>(claim.weight, 1, kWeightMax)});
    floors += floor;
  }
  if (floors > capacity) {
    // A weight of bytes would not fit into Level's products: in steps of a 2^-32nd of the largest.
    uint64_t largest = 1;
    for (const Bounds& bounds : all) largest = std::max(largest, bounds.floor);
    for (Bounds& bounds : all) {
      const Wide part = (Wide{bounds.floor} << 32) / largest;
      bounds = {0, bounds.floor, std::max<uint64_t>(1, static_cast<uint64_t>(part))};
    }
  }
  return Fill(capacity, all);
}

}  // namespace kvasir::fairness
