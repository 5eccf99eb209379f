#include "daemon/core/account.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/error.h"
#include "base/shortage.h"
#include "base/status_macros.h"

namespace kvasir::core {
namespace {

// It is the tenant that has to give something up: to ask often is of no use.
constexpr std::chrono::milliseconds kOwnRetry{1000};
constexpr char kOwn[] = "own sequences and prefixes";
constexpr char kOthers[] = "other tenants";

}  // namespace

Account::~Account() {
  // The daemon is stopping: whatever peers still map lives on in them until they let go.
  for (Returned& returned : quarantine_) pool_.Return(std::move(returned.extent));
}

absl::StatusOr<std::unique_ptr<Extent>> Account::TakeOwnExtent(uint64_t bytes, ExtentUse use) {
  if (!stands_ && lender_ != nullptr) {
    const uint64_t own = lender_->GuaranteedBytes(*this), wanted = pool_bytes() + bytes;
    if (wanted > own) {
      return WithShortage(
          ResourceExhausted("the tenant has its own part of the pool, and this is not lent: "
                            "tenant={} wanted_bytes={} charged_bytes={} own_bytes={}",
                            tenant_, bytes, charged_bytes_, own),
          {"tenant.reserved_bytes", wanted - own, kOwn, kOwnRetry});
    }
  }
  return TakeExtent(bytes, use);
}

absl::StatusOr<std::unique_ptr<Extent>> Account::TakeExtent(uint64_t bytes, ExtentUse use) {
  if (stands_) {
    was_asked_ = true;
    // Of a kind that nobody tries again with less.
    return absl::UnavailableError("memory of the pool is not taken under a tenant's share alone");
  }
  if (charged_bytes_ + bytes > budget_.limit_bytes) {
    return WithShortage(
        ResourceExhausted(
            "tenant is over its limit: tenant={} wanted_bytes={} charged_bytes={} limit_bytes={}",
            tenant_, bytes, charged_bytes_, budget_.limit_bytes),
        {"tenant.limit_bytes", charged_bytes_ + bytes - budget_.limit_bytes, kOwn, kOwnRetry});
  }
  if (lender_ != nullptr) KVASIR_RETURN_IF_ERROR(lender_->Admit(*this, bytes));
  absl::StatusOr<std::unique_ptr<Extent>> extent = pool_.Take(bytes, use);
  if (!extent.ok()) {
    if (extent.status().code() != absl::StatusCode::kResourceExhausted) return extent.status();
    const HostPoolCounts counts = pool_.counts();
    const uint64_t free = std::min(bytes, counts.idle_bytes + counts.ready_bytes);
    const absl::Status scarce = WithShortage(
        extent.status(), {"memory.pool_bytes", bytes - free,
                          charged_bytes_ == counts.charged_bytes ? kOwn : kOthers, Lender::kRetry});
    return lender_ != nullptr ? lender_->Refused(*this, bytes, scarce) : scarce;
  }
  charged_bytes_ += bytes;
  if (lender_ != nullptr) lender_->Took(*this, bytes);
  return extent;
}

void Account::ReturnExtent(std::unique_ptr<Extent> extent) {
  const uint64_t bytes = extent->bytes();
  quarantine_.push_back({std::move(extent), bytes});
}

bool Account::Settle() {
  // Where the kernel has no leases on memfds, the end of the session has to do.
  for (size_t i = 0; i < quarantine_.size();) {
    if (quarantine_[i].extent->Probe() == ProbeResult::kHeld) {
      ++i;
      continue;
    }
    charged_bytes_ -= quarantine_[i].bytes;
    pool_.Return(std::move(quarantine_[i].extent));
    quarantine_[i] = std::move(quarantine_.back());
    quarantine_.pop_back();
  }
  std::erase_if(taken_back_, [this](const Returned& returned) {
    if (returned.extent->Probe() == ProbeResult::kHeld) return false;
    charged_bytes_ -= returned.bytes;
    taken_back_bytes_ -= returned.bytes;
    return true;
  });
  return !quarantine_.empty() || !taken_back_.empty();
}

std::vector<uint64_t> Account::TakeBack(Instant now, Instant before) {
  std::vector<uint64_t> ids;
  for (size_t i = 0; i < quarantine_.size();) {
    Returned& returned = quarantine_[i];
    if (!returned.since) returned.since = now;
    returned.stays =
        returned.stays || (*returned.since <= before && !returned.extent->TakeBack().ok());
    if (*returned.since > before || returned.stays) {
      ++i;
      continue;
    }
    ids.push_back(returned.extent->id());
    pool_.TakenBack(returned.extent->id(), returned.bytes);
    taken_back_bytes_ += returned.bytes;
    taken_back_.push_back(std::move(returned));
    quarantine_[i] = std::move(quarantine_.back());
    quarantine_.pop_back();
  }
  return ids;
}

uint64_t Account::quarantined_bytes() const {
  uint64_t bytes = 0;
  for (const Returned& returned : quarantine_) bytes += returned.bytes;
  return bytes;
}

uint64_t Account::coming_bytes() const {
  uint64_t bytes = 0;
  for (const Returned& returned : quarantine_) bytes += returned.stays ? 0 : returned.bytes;
  return bytes;
}

}  // namespace kvasir::core
