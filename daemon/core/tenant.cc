#include "daemon/core/tenant.h"

namespace kvasir::core {
namespace {

constexpr int kRoomsAtOnce = 16;  // of one hold of the core's lock

}  // namespace

bool Tenant::ReturnIdle() {
  const uint64_t before = account.charged_bytes();
  kept.ReturnIdleExtents();
  outside.ReturnIdleExtents();
  (void)account.Settle();
  return account.charged_bytes() < before;
}

bool Tenant::MakeRoom() {
  if (ReturnIdle()) return true;
  if (keeps_cached) return false;
  if (prefixes.MakeRoom() || (adopted != nullptr && adopted->cache().MakeRoom())) {
    if (end_condensing) (void)end_condensing(/*always=*/false);
    (void)ReturnIdle();
    return true;
  }
  if (end_condensing && end_condensing(/*always=*/true)) {
    (void)ReturnIdle();
    return true;
  }
  if (keeps_saved || !snapshots.DropLeastRecentlyUsed(nullptr)) return false;
  ++counters.snapshots_dropped;
  (void)ReturnIdle();
  return true;
}

bool Tenant::SettleDevices() {
  bool held = false;
  for (const std::unique_ptr<TenantDevice>& device : devices) {
    if (sessions == 0) device->ReturnExtents();
    held |= device->account.Settle();
  }
  return held;
}

bool Tenant::GivesUpCachedOn(TenantDevice& device, bool of_use) {
  if (!of_use && !device.AnyUnmapped()) return false;
  if (!device.prefixes.MakeRoom()) {
    if (keeps_saved || !snapshots.DropLeastRecentlyUsed(&device.account.memory())) return false;
    ++counters.snapshots_dropped;
  }
  (void)device.ReturnIdle();
  return true;
}

PrefixCache& Tenant::PrefixesIn(const DeviceMemory* device) {
  const auto found = std::find_if(devices.begin(), devices.end(), [&](const auto& one) {
    return &one->account.memory() == device;
  });
  return found == devices.end() ? prefixes : (*found)->prefixes;
}

void Tenant::ReturnExtents() {
  (void)SettleDevices();
  if (kept.held_bytes() + outside.held_bytes() > 0) {
    (void)ReturnIdle();
    return;
  }
  kept.Clear();
  outside.Clear();
  (void)account.Settle();
}

uint64_t Tenant::DropPrefixes() {
  ++prefix_drops;
  const uint64_t before = prefixes.entries().size();
  if (end_condensing) (void)end_condensing(/*always=*/true);
  (void)prefixes.Clear();
  uint64_t dropped = before - prefixes.entries().size();
  for (const std::unique_ptr<PrefixStore>& store : stores) dropped += store->cache().Clear();
  for (const std::unique_ptr<TenantDevice>& device : devices) {
    dropped += device->prefixes.Clear();
    (void)device->ReturnIdle();
  }
  if (sessions == 0) {
    ReturnExtents();
  } else {
    (void)ReturnIdle();
  }
  return dropped;
}

bool Tenant::ShedCached() {
  const uint64_t before = account.charged_bytes();
  bool shed = ReturnIdle();
  for (int i = 0; i < kRoomsAtOnce && account.charged_bytes() >= before; ++i) {
    if (!kept.AnyUnmapped() && !outside.AnyUnmapped()) break;
    if (!MakeRoom()) break;
    shed = true;
  }
  // Where the kernel cannot be asked who has an extent, the end of all sessions has to do.
  if (sessions == 0) ReturnExtents();
  return shed;
}

bool Tenant::GivesUpPrefix() {
  const uint64_t before = kept_bytes();
  if (!prefixes.MakeRoom() || kept_bytes() >= before) return false;
  (void)ReturnIdle();
  return true;
}

void Tenant::DropCached() {
  while (prefixes.MakeRoom() || snapshots.DropLeastRecentlyUsed(nullptr)) {
  }
  for (const std::unique_ptr<TenantDevice>& device : devices) {
    while (GivesUpCachedOn(*device, /*of_use=*/true)) {
    }
  }
}

}  // namespace kvasir::core
