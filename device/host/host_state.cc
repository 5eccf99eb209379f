#include "device/host/host_state.h"

#include <fcntl.h>

#include <mutex>
#include <utility>

#include "base/error.h"

namespace kvasir::device {

absl::Status HostState::Health() {
  if (!lost()) return absl::OkStatus();
  // Streams look at lost() with this lock held shared: whoever was before it is done.
  { const std::unique_lock<std::shared_mutex> nobody_touches(touching); }
  MutexLock lock(mutex_);
  return Unavailable("the device is lost: device={} reason={}", facts.uuid, reason_);
}

void HostState::Lose(const std::string& reason) {
  {
    MutexLock lock(mutex_);
    if (reason_.empty()) reason_ = reason.empty() ? "unknown" : reason;
  }
  lost_.store(true, std::memory_order_release);
  const std::unique_lock<std::shared_mutex> nobody_touches(touching);
}

absl::Status HostState::Charge(uint64_t bytes) {
  Reap();
  MutexLock lock(mutex_);
  const uint64_t free = facts.total_bytes - used_bytes_;
  if (bytes > free) {
    return ResourceExhausted(
        "CreateExtent: the device is full: charged_bytes={} free_bytes={} total_bytes={}", bytes,
        free, facts.total_bytes);
  }
  used_bytes_ += bytes;
  return absl::OkStatus();
}

void HostState::Uncharge(uint64_t bytes) {
  MutexLock lock(mutex_);
  used_bytes_ -= bytes;
}

void HostState::Leave(UniqueFd probe, uint64_t bytes) {
  {
    MutexLock lock(mutex_);
    left_.push_back({std::move(probe), bytes});
  }
  Reap();
}

uint64_t HostState::FreeBytes() {
  Reap();
  MutexLock lock(mutex_);
  return facts.total_bytes - used_bytes_;
}

void HostState::Reap() {
  std::vector<Left> looked_at;
  {
    MutexLock lock(mutex_);
    looked_at.swap(left_);
  }
  uint64_t freed = 0;
  std::vector<Left> held;
  for (Left& left : looked_at) {
    // The kernel grants it only when no other open file or mapping of it is left (ADR 8).
    const bool free = ::fcntl(left.probe.get(), F_SETLEASE, F_WRLCK) == 0;
    if (free) {
      (void)::fcntl(left.probe.get(), F_SETLEASE, F_UNLCK);
      freed += left.bytes;
    } else {
      held.push_back(std::move(left));
    }
  }
  MutexLock lock(mutex_);
  used_bytes_ -= freed;
  for (Left& left : held) left_.push_back(std::move(left));
}

void HostState::Hide(const std::byte* shown, uint64_t bytes, std::byte* real) {
  MutexLock lock(mutex_);
  hidden_[reinterpret_cast<uint64_t>(shown)] = {bytes, real};
}

void HostState::Unhide(const std::byte* shown) {
  MutexLock lock(mutex_);
  hidden_.erase(reinterpret_cast<uint64_t>(shown));
}

std::byte* HostState::Real(const std::byte* shown) {
  const auto at = reinterpret_cast<uint64_t>(shown);
  MutexLock lock(mutex_);
  auto found = hidden_.upper_bound(at);
  if (found != hidden_.begin()) {
    --found;
    if (at - found->first < found->second.bytes) return found->second.real + (at - found->first);
  }
  return const_cast<std::byte*>(shown);
}

bool HostState::TakeCopyFault() {
  uint64_t before = copies_before_fault.load();
  while (before > 0) {
    if (copies_before_fault.compare_exchange_weak(before, before - 1)) return false;
  }
  uint64_t faults = copy_faults.load();
  while (faults > 0) {
    if (copy_faults.compare_exchange_weak(faults, faults - 1)) return true;
  }
  return false;
}

}  // namespace kvasir::device
