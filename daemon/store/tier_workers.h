// TierWorkers: the threads between the core and its tiers, two for each: one reads what somebody
// waits for, one writes down and forgets. They sleep while there is nothing to do; the writer of a
// shared tier wakes now and then to see what other hosts have written, and that of a tier which
// failed to say what it holds to ask again.
#ifndef KVASIR_DAEMON_STORE_TIER_WORKERS_H_
#define KVASIR_DAEMON_STORE_TIER_WORKERS_H_

#include <chrono>
#include <cstddef>
#include <thread>
#include <vector>

#include "allocator/tier/tier.h"
#include "base/clock.h"
#include "daemon/metrics.h"
#include "daemon/shared_core.h"
#include "daemon/store/tier_place.h"
#include "index/chain_hasher.h"

namespace kvasir {

// Thread-safe. Joins its threads when destroyed.
class TierWorkers {
 public:
  struct Options {
    ChainHasher::Secret secret{};
    std::chrono::milliseconds refresh{60'000};  // of what a shared tier holds
  };

  // `shared` must outlive it; its core has the tiers of `places`, in this order. Reads what is in
  // the tiers that are not shared, then starts the threads.
  TierWorkers(SharedCore& shared, std::vector<TierPlace> places, const Options& options);
  ~TierWorkers() { Stop({}); }
  TierWorkers(const TierWorkers&) = delete;
  TierWorkers& operator=(const TierWorkers&) = delete;

  // Writes down what can go down for at most `drain`, then cancels what is under way and joins.
  void Stop(std::chrono::milliseconds drain);

  const std::vector<TierPlace>& places() const { return places_; }
  // For the metrics; takes the lock.
  std::vector<TierSnapshot> Snapshots();

 private:
  void Loop(size_t tier, core::TierLane lane);
  // False: the tier failed to say all that it holds.
  bool Refresh(size_t tier);
  void Drain(std::chrono::milliseconds limit);

  SharedCore& shared_;
  const std::vector<TierPlace> places_;
  const Options options_;
  CancelToken cancel_;
  bool stopping_ = false;        // under shared_.mutex
  std::vector<bool> refreshed_;  // each tier, before its threads began
  std::vector<std::thread> threads_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_STORE_TIER_WORKERS_H_
