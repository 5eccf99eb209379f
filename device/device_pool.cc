#include "device/device_pool.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"

namespace kvasir::device {

absl::StatusOr<std::unique_ptr<DevicePool>> DevicePool::Create(Device& device,
                                                               uint64_t pool_bytes) {
  const DeviceFacts& facts = device.facts();
  if (pool_bytes % facts.granularity_bytes != 0 || pool_bytes > facts.total_bytes) {
    return InvalidArgument(
        "the pool is a multiple of the device's granularity, and no larger than it: pool_bytes={} "
        "granularity_bytes={} total_bytes={}",
        pool_bytes, facts.granularity_bytes, facts.total_bytes);
  }
  return std::unique_ptr<DevicePool>(new DevicePool(device, pool_bytes));
}

DevicePool::~DevicePool() {
  MutexLock lock(mutex_);
  KVASIR_CHECK(taken_.empty(), "extents outlive their pool: extents={}", taken_.size());
}

absl::StatusOr<std::unique_ptr<DeviceExtent>> DevicePool::Take(uint64_t bytes, uint64_t owner) {
  if (bytes == 0 || bytes > pool_bytes_) {
    return bytes == 0 ? InvalidArgument("Take: bytes out of bounds: bytes=0 min=1")
                      : ResourceExhausted(
                            "the device pool is smaller than that: wanted_bytes={} pool_bytes={}",
                            bytes, pool_bytes_);
  }
  const uint64_t charged = RoundUp(bytes, device_.facts().granularity_bytes);
  uint64_t id = 0;
  {
    MutexLock lock(mutex_);
    if (charged > pool_bytes_ - charged_) {
      return ResourceExhausted(
          "the device pool is full: wanted_bytes={} idle_bytes={} charged_bytes={} pool_bytes={}",
          charged, pool_bytes_ - charged_, charged_, pool_bytes_);
    }
    id = next_id_++;
    taken_[id] = {owner, bytes, charged};
    charged_by_owner_[owner] += charged;
    charged_ += charged;
    waste_ += charged - bytes;
  }
  absl::StatusOr<std::unique_ptr<DeviceExtent>> extent = device_.CreateExtent(bytes, id);
  if (!extent.ok()) {
    MutexLock lock(mutex_);
    ForgetLocked(id);
    return extent.status();
  }
  KVASIR_CHECK((*extent)->charged_bytes() == charged, "device and pool round differently");
  return extent;
}

void DevicePool::Return(std::unique_ptr<DeviceExtent> extent) {
  const uint64_t id = extent->id();
  extent.reset();
  MutexLock lock(mutex_);
  ForgetLocked(id);
}

void DevicePool::ForgetLocked(uint64_t id) {
  const auto taken = taken_.find(id);
  KVASIR_CHECK(taken != taken_.end(), "an extent of another pool: id={}", id);
  charged_ -= taken->second.charged_bytes;
  waste_ -= taken->second.charged_bytes - taken->second.bytes;
  const auto owner = charged_by_owner_.find(taken->second.owner);
  owner->second -= taken->second.charged_bytes;
  if (owner->second == 0) charged_by_owner_.erase(owner);
  taken_.erase(taken);
}

DevicePoolCounts DevicePool::counts() const {
  MutexLock lock(mutex_);
  return {pool_bytes_, charged_, pool_bytes_ - charged_, waste_, taken_.size()};
}

uint64_t DevicePool::ChargedBytes(uint64_t owner) const {
  MutexLock lock(mutex_);
  const auto found = charged_by_owner_.find(owner);
  return found == charged_by_owner_.end() ? 0 : found->second;
}

absl::Status DevicePool::CheckConservation() const {
  MutexLock lock(mutex_);
  uint64_t charged = 0, waste = 0, by_owner = 0;
  for (const auto& [id, taken] : taken_) {
    charged += taken.charged_bytes;
    waste += taken.charged_bytes - taken.bytes;
  }
  for (const auto& [owner, bytes] : charged_by_owner_) by_owner += bytes;
  if (charged != charged_ || waste != waste_ || by_owner != charged_ || charged_ > pool_bytes_) {
    return Internal(
        "device pool bytes do not add up: extents={} charged={} owners={} waste={} of_extents={} "
        "pool={}",
        charged, charged_, by_owner, waste_, waste, pool_bytes_);
  }
  return absl::OkStatus();
}

}  // namespace kvasir::device
