#include "allocator/tier/guarded_tier.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "base/log.h"

namespace kvasir {
namespace {

// What says that the place is ill. A full tier, a bad argument and a cancelled batch do not.
bool IsFailure(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kCancelled:
      return false;
    default:
      return true;
  }
}

absl::Status LeftOut() {
  return Unavailable("the tier fails and is left out until it is tried again");
}

}  // namespace

bool GuardedTier::Admit() {
  MutexLock lock(mutex_);
  if (!open_) return true;
  if (trying_ || clock_.Now() < next_try_) return false;
  trying_ = true;
  return true;
}

void GuardedTier::Report(bool failed) {
  MutexLock lock(mutex_);
  if (!failed) {
    if (open_) spdlog::info("a tier answers again and is used again");
    open_ = trying_ = false;
    failures_ = 0;
    wait_ = options_.wait_min;
    return;
  }
  ++failures_;
  if (open_) {
    // A call that had begun before the guard opened says nothing new.
    if (!trying_) return;
    trying_ = false;
    wait_ = std::min(2 * wait_, options_.wait_max);
  } else if (failures_ < options_.failures_max) {
    return;
  } else {
    open_ = true;
    spdlog::warn("a tier fails and is left out: failures={} wait_ms={}", failures_, wait_.count());
  }
  next_try_ = clock_.Now() + wait_;
}

void GuardedTier::Write(std::span<const WriteItem> items, std::span<absl::Status> results,
                        const CancelToken* cancel) {
  KVASIR_CHECK(items.size() == results.size(), "a result for each item");
  if (!Admit()) {
    std::fill(results.begin(), results.end(), LeftOut());
    refused_.CountWrites(results, 0, 0, 0);
    return;
  }
  tier_->Write(items, results, cancel);
  Report(std::any_of(results.begin(), results.end(),
                     [](const absl::Status& status) { return IsFailure(status); }));
}

void GuardedTier::Read(std::span<const ReadItem> items, std::span<ReadOutcome> results,
                       const CancelToken* cancel) {
  KVASIR_CHECK(items.size() == results.size(), "a result for each item");
  if (!Admit()) {
    std::fill(results.begin(), results.end(), ReadOutcome::kFailed);
    refused_.CountReads(items, results, 0);
    return;
  }
  tier_->Read(items, results, cancel);
  Report(std::any_of(results.begin(), results.end(),
                     [](ReadOutcome outcome) { return kvasir::IsFailure(outcome); }));
}

absl::Status GuardedTier::Guard(const std::function<absl::Status()>& call) {
  if (!Admit()) return LeftOut();
  absl::Status status = call();
  Report(IsFailure(status));
  return status;
}

absl::Status GuardedTier::Erase(std::span<const TierKey> keys) {
  return Guard([&] { return tier_->Erase(keys); });
}

absl::Status GuardedTier::ForEach(const std::function<void(const TierKey&, uint64_t)>& visit) {
  return Guard([&] { return tier_->ForEach(visit); });
}

absl::Status GuardedTier::Flush() {
  return Guard([&] { return tier_->Flush(); });
}

TierStats GuardedTier::Stats() const {
  TierStats stats = tier_->Stats();
  AddCounts(refused_.Read(), &stats);
  return stats;
}

bool GuardedTier::IsOpen() const {
  MutexLock lock(mutex_);
  return open_ && (trying_ || clock_.Now() < next_try_);
}

}  // namespace kvasir
