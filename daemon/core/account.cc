#include "daemon/core/account.h"

#include <utility>

#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir::core {

Account::~Account() {
  // The daemon is stopping: whatever peers still map lives on in them until they let go.
  for (auto& extent : quarantine_) pool_.Return(std::move(extent));
}

absl::StatusOr<std::unique_ptr<Extent>> Account::TakeExtent(uint64_t bytes, ExtentUse use) {
  if (charged_bytes_ + bytes > limit_bytes_) {
    return ResourceExhausted(
        "tenant is over its limit: tenant={} wanted_bytes={} charged_bytes={} limit_bytes={}",
        tenant_, bytes, charged_bytes_, limit_bytes_);
  }
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<Extent> extent, pool_.Take(bytes, use));
  charged_bytes_ += bytes;
  return extent;
}

void Account::ReturnExtent(std::unique_ptr<Extent> extent) {
  quarantine_.push_back(std::move(extent));
}

bool Account::Settle() {
  for (size_t i = 0; i < quarantine_.size();) {
    // Where the kernel has no leases on memfds, the end of the session has to do.
    if (quarantine_[i]->Probe() == ProbeResult::kHeld) {
      ++i;
      continue;
    }
    charged_bytes_ -= quarantine_[i]->bytes();
    pool_.Return(std::move(quarantine_[i]));
    quarantine_[i] = std::move(quarantine_.back());
    quarantine_.pop_back();
  }
  return !quarantine_.empty();
}

uint64_t Account::quarantined_bytes() const {
  uint64_t bytes = 0;
  for (const auto& extent : quarantine_) bytes += extent->bytes();
  return bytes;
}

}  // namespace kvasir::core
