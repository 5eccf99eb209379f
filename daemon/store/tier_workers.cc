#include "daemon/store/tier_workers.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "daemon/store/run_tier_job.h"
#include "daemon/store/tier_catalogue.h"

namespace kvasir {

namespace {

// Between two times that a tier which fails is asked what it holds.
constexpr std::chrono::seconds kAskAgainMin{1}, kAskAgainMax{60};

}  // namespace

TierWorkers::TierWorkers(SharedCore& shared, std::vector<TierPlace> places, const Options& options)
    : shared_(shared), places_(std::move(places)), options_(options) {
  for (size_t tier = 0; tier < places_.size(); ++tier) {
    refreshed_.push_back(!places_[tier].config.shared && Refresh(tier));
  }
  for (size_t tier = 0; tier < places_.size(); ++tier) {
    threads_.emplace_back([this, tier] { Loop(tier, core::TierLane::kReads); });
    threads_.emplace_back([this, tier] { Loop(tier, core::TierLane::kWrites); });
  }
}

bool TierWorkers::Refresh(size_t tier) {
  const TierPlace& place = places_[tier];
  const absl::StatusOr<CatalogueCounts> counts =
      ReadCatalogue(shared_, tier, place, options_.secret);
  if (!counts.ok()) {
    spdlog::warn("a tier did not say what it holds: tier={} reason={}", place.config.name,
                 MessageOf(counts.status()));
    return false;
  }
  if (counts->prefixes + counts->dropped + counts->forgotten > 0) {
    spdlog::info("prefixes found in a tier: tier={} prefixes={} dropped={} forgotten_values={}",
                 place.config.name, counts->prefixes, counts->dropped, counts->forgotten);
  }
  if (counts->unread == 0) return true;
  spdlog::warn("a tier could not read what it holds: tier={} manifests={}", place.config.name,
               counts->unread);
  return false;
}

void TierWorkers::Loop(size_t tier, core::TierLane lane) {
  const TierPlace& place = places_[tier];
  // Beside the writes, so that nothing is under way that nobody names yet.
  Instant next_refresh = Instant::max();
  if (lane == core::TierLane::kWrites && !refreshed_[tier]) next_refresh = SystemClock().Now();
  std::chrono::milliseconds ask_again = kAskAgainMin;
  for (;;) {
    std::unique_ptr<core::TierJob> job;
    {
      MutexLock lock(shared_.mutex);
      for (;;) {
        const Instant now = SystemClock().Now();
        shared_.core.set_now(now);
        if (stopping_) return;
        job = shared_.core.TakeTierJob(tier, lane);
        if (job != nullptr || now >= next_refresh) break;
        // A drain of what is all there already ends without a job.
        if (lane == core::TierLane::kWrites) shared_.progress.NotifyAll();
        if (next_refresh == Instant::max()) {
          shared_.mutex.Wait(shared_.tier_work);
        } else {
          (void)shared_.mutex.WaitUntil(shared_.tier_work, next_refresh);
        }
      }
    }
    if (job == nullptr) {
      const bool refreshed = Refresh(tier);
      const Instant now = SystemClock().Now();
      if (place.config.shared) {
        next_refresh = now + options_.refresh;
      } else {
        next_refresh = refreshed ? Instant::max() : now + ask_again;
        ask_again = std::min<std::chrono::milliseconds>(2 * ask_again, kAskAgainMax);
      }
      continue;
    }
    RunTierJob(*job, *place.tier, options_.secret, cancel_);
    if (!job->status.ok() && job->status.code() != absl::StatusCode::kCancelled) {
      spdlog::warn("a tier's job failed: tier={} tenant={} reason={}", place.config.name,
                   job->tenant->config.name, MessageOf(job->status));
    }
    MutexLock lock(shared_.mutex);
    shared_.core.set_now(SystemClock().Now());
    shared_.core.FinishTierJob(std::move(job));
    shared_.progress.NotifyAll();
    shared_.tier_work.NotifyAll();
  }
}

void TierWorkers::Drain(std::chrono::milliseconds limit) {
  const Instant deadline = SystemClock().Now() + limit;
  MutexLock lock(shared_.mutex);
  if (!shared_.core.StartDrain("").ok()) return;
  shared_.tier_work.NotifyAll();
  core::DrainState state = shared_.core.DrainStateOf("");
  while (state.pending > 0 && SystemClock().Now() < deadline) {
    (void)shared_.progress.WaitUntil(shared_.mutex, deadline);
    state = shared_.core.DrainStateOf("");
  }
  spdlog::info("prefixes written before the stop: stored={} not_stored={} memory_only={}",
               state.stored, state.not_stored, state.memory_only);
}

std::vector<TierSnapshot> TierWorkers::Snapshots() {
  std::vector<core::TierReport> reports;
  if (!places_.empty()) {
    MutexLock lock(shared_.mutex);
    reports = shared_.core.TierReports();
  }
  std::vector<TierSnapshot> snapshots;
  for (const TierPlace& place : places_) {
    TierSnapshot& snapshot = snapshots.emplace_back();
    snapshot.tier = place.config.name;
    snapshot.left_out = place.IsLeftOut();
    const TierStats stats = place.tier->Stats();
    for (size_t i = 0; i < kReadOutcomes; ++i) {
      snapshot.reads.emplace_back(NameOf(static_cast<ReadOutcome>(i)), stats.reads[i]);
    }
    for (const core::TierReport& report : reports) {
      if (report.tier != snapshot.tier) continue;
      const core::PrefixStoreCounters& counters = report.counters;
      snapshot.tenants.push_back({report.tenant, report.prefixes, report.stored_bytes,
                                  counters.stores, counters.store_failures, counters.loads,
                                  counters.load_rows, counters.load_failures,
                                  counters.loads_declined});
    }
  }
  return snapshots;
}

void TierWorkers::Stop(std::chrono::milliseconds drain) {
  if (threads_.empty()) return;
  if (drain.count() > 0) Drain(drain);
  {
    MutexLock lock(shared_.mutex);
    stopping_ = true;
    shared_.tier_work.NotifyAll();
  }
  cancel_.Cancel();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  for (const TierPlace& place : places_) {
    const absl::Status flushed = place.tier->Flush();
    if (flushed.ok()) continue;
    spdlog::warn("a tier was not flushed: tier={} reason={}", place.config.name,
                 MessageOf(flushed));
  }
}

}  // namespace kvasir
