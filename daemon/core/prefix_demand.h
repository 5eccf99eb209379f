// PrefixDemand: what a tenant's sequences ask for with their prefixes, and what share of it memory
// of other sizes would have had.
//
// Every chunk that a prompt could have found counts, whether it was there or was ever stored; what
// is published counts as stored. So the curve is that of a cache that keeps every prompt. Sizes are
// multiples of the tenant's limit, in chunks by the mean size of a published one; before any was
// published, of one as the model writes it.
//
// Not thread-safe. Cost and memory: those of HitRateCurve (hit_rate_curve.h), and 16 bytes a chunk
// of the prompt for the time of a call.
#ifndef KVASIR_DAEMON_CORE_PREFIX_DEMAND_H_
#define KVASIR_DAEMON_CORE_PREFIX_DEMAND_H_

#include <array>
#include <cstdint>
#include <vector>

#include "daemon/core/snapshot.h"
#include "eviction/hit_rate_curve.h"
#include "index/prefix_chain.h"

namespace kvasir::core {

// Times the tenant's limit.
inline constexpr std::array<double, 7> kDemandTimes = {0.125, 0.25, 0.5, 1, 2, 4, 8};

struct HitRatePoint {
  double times = 0;
  uint64_t bytes = 0;
  uint64_t chunks = 0;
  double hit_ratio = 0;
};

struct PrefixDemandReport {
  uint64_t limit_bytes = 0;
  uint64_t chunk_bytes = 0;          // 0: nothing was asked for
  uint64_t chunks_asked = 0;         // the past counts less
  uint64_t stands_for = 1;           // one chunk in so many is followed
  uint64_t metadata_bytes = 0;       // of the daemon's own memory
  std::vector<HitRatePoint> points;  // ascending; empty before anything was asked for
};

class PrefixDemand {
 public:
  explicit PrefixDemand(uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}

  // A sequence begins with a prompt of these chunks, of which no more than `rows_max` rows are
  // wanted. `token_bytes` >= 1: of a row of all layers, as written.
  void Asked(const PrefixChain& chain, const ChainKey& form, uint64_t rows_max,
             uint64_t token_bytes);
  // REQUIRES: the snapshot has a chain.
  void Published(const Snapshot& snapshot);

  PrefixDemandReport Report() const;

 private:
  uint64_t ChunksOf(uint64_t bytes) const { return bytes / chunk_bytes_; }

  const uint64_t limit_bytes_;
  uint64_t chunk_bytes_ = 0;  // of a published one, or as it would be written
  double published_bytes_ = 0, published_chunks_ = 0;
  eviction::HitRateCurve curve_{{.chunks_max = 1}};
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_PREFIX_DEMAND_H_
