#include "daemon/pool_size.h"

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "daemon/config_schema.h"

namespace kvasir {
namespace {

absl::Status CheckBounds(uint64_t pool_bytes) {
  const ConfigKey& key = *FindConfigKey("memory", "pool_bytes");
  const auto min = static_cast<uint64_t>(key.min), max = static_cast<uint64_t>(key.max);
  const auto unit = static_cast<uint64_t>(key.multiple_of);
  if (pool_bytes >= min && pool_bytes <= max && pool_bytes % unit == 0) return absl::OkStatus();
  return InvalidArgument("pool_bytes is out of bounds: value={} min={} max={} multiple_of={}",
                         pool_bytes, min, max, unit);
}

}  // namespace

absl::Status PoolSize::Set(uint64_t pool_bytes, const std::function<bool()>& cancelled) {
  KVASIR_RETURN_IF_ERROR(CheckBounds(pool_bytes));
  MutexLock lock(mutex_);
  const uint64_t before = pool_.counts().pool_bytes;
  KVASIR_RETURN_IF_ERROR(pool_.Resize(pool_bytes));
  wanted_ = pool_bytes;
  GiveUpCached(pool_bytes, cancelled);
  wake_refill_();
  const HostPoolCounts now = pool_.counts();
  spdlog::info(
      "an administrator has changed the pool's size: pool_bytes={} was={} charged_bytes={}",
      now.pool_bytes, before, now.charged_bytes);
  return absl::OkStatus();
}

bool PoolSize::Shrink(uint64_t pool_bytes) {
  MutexLock lock(mutex_);
  const HostPoolCounts before = pool_.counts();
  if (before.pool_bytes <= pool_bytes || !pool_.Resize(pool_bytes).ok()) return false;
  ++pressure_shrinks_;
  GiveUpCached(pool_bytes, [] { return false; });
  const HostPoolCounts now = pool_.counts();
  spdlog::warn(
      "memory pressure: the pool is made smaller: pool_bytes={} was={} charged_bytes={} was={} "
      "ready_bytes={} was={}",
      now.pool_bytes, before.pool_bytes, now.charged_bytes, before.charged_bytes, now.ready_bytes,
      before.ready_bytes);
  return true;
}

absl::Status PoolSize::Grow(uint64_t pool_bytes) {
  MutexLock lock(mutex_);
  const uint64_t size = std::min<uint64_t>(pool_bytes, wanted_);
  const uint64_t before = pool_.counts().pool_bytes;
  if (size <= before) return absl::OkStatus();
  KVASIR_RETURN_IF_ERROR(pool_.Resize(size));
  wake_refill_();
  spdlog::info("no memory pressure: the pool grows back: pool_bytes={} was={} wanted_bytes={}",
               size, before, wanted_.load());
  return absl::OkStatus();
}

void PoolSize::GiveUpCached(uint64_t charged_max, const std::function<bool()>& cancelled) {
  for (bool more = true; more && !cancelled();) {
    MutexLock lock(shared_.mutex);
    more = !shared_.stopping && shared_.core.GiveUpCached(charged_max);
  }
}

}  // namespace kvasir
