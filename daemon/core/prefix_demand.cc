#include "daemon/core/prefix_demand.h"

#include <algorithm>
#include <span>

#include "index/prefix_scope.h"

namespace kvasir::core {
namespace {

constexpr double kPublishedHalf = 1 << 20;  // chunks after which the past counts half

std::vector<ChainKey> InForm(std::span<const ChainKey> chain, const ChainKey& form) {
  std::vector<ChainKey> keys;
  keys.reserve(chain.size());
  for (const ChainKey& key : chain) keys.push_back(kvasir::InForm(key, form));
  return keys;
}

}  // namespace

void PrefixDemand::Asked(const PrefixChain& chain, const ChainKey& form, uint64_t rows_max,
                         uint64_t token_bytes) {
  if (published_chunks_ == 0) chunk_bytes_ = token_bytes * kChunkTokens;
  // What was counted while less was of interest would call misses what was merely forgotten.
  const double largest = kDemandTimes.back() * static_cast<double>(limit_bytes_);
  const uint64_t chunks_max =
      std::clamp<uint64_t>(ChunksOf(static_cast<uint64_t>(largest)), 1, eviction::kCurveChunksMax);
  if (chunks_max > curve_.chunks_max()) {
    curve_.Clear(std::min(2 * chunks_max, eviction::kCurveChunksMax));
  }
  const std::span<const ChainKey> keys = chain.keys();
  curve_.Ask(InForm(keys.first(std::min<uint64_t>(keys.size(), rows_max / kChunkTokens)), form));
}

void PrefixDemand::Published(const Snapshot& snapshot) {
  const std::span<const ChainKey> keys = snapshot.chain->keys();
  if (keys.empty()) return;
  published_bytes_ += static_cast<double>(snapshot.held_bytes());
  published_chunks_ += static_cast<double>(keys.size());
  chunk_bytes_ = std::max<uint64_t>(static_cast<uint64_t>(published_bytes_ / published_chunks_), 1);
  if (published_chunks_ >= kPublishedHalf) {
    published_bytes_ /= 2;
    published_chunks_ /= 2;
  }
  curve_.Store(InForm(keys, snapshot.form));
}

PrefixDemandReport PrefixDemand::Report() const {
  PrefixDemandReport report;
  report.limit_bytes = limit_bytes_;
  report.chunk_bytes = chunk_bytes_;
  report.chunks_asked = static_cast<uint64_t>(curve_.asked());
  report.stands_for = curve_.stands_for();
  report.metadata_bytes = curve_.MetadataBytes();
  if (curve_.asked() == 0) return report;
  for (const double times : kDemandTimes) {
    const auto bytes = static_cast<uint64_t>(times * static_cast<double>(limit_bytes_));
    report.points.push_back({times, bytes, ChunksOf(bytes), curve_.HitRatio(ChunksOf(bytes))});
  }
  return report;
}

}  // namespace kvasir::core
