#include "daemon/core/tenant.h"

namespace kvasir::core {

bool Tenant::ReturnIdle() {
  const uint64_t before = account.charged_bytes();
  kept.ReturnIdleExtents();
  outside.ReturnIdleExtents();
  (void)account.Settle();
  return account.charged_bytes() < before;
}

bool Tenant::MakeRoom() {
  if (ReturnIdle()) return true;
  if (!snapshots.DropLeastRecentlyUsed()) return false;
  ++counters.snapshots_dropped;
  (void)ReturnIdle();
  return true;
}

void Tenant::ReturnExtents() {
  if (snapshots.size() > 0) {
    (void)ReturnIdle();
    return;
  }
  kept.Clear();
  outside.Clear();
  (void)account.Settle();
}

}  // namespace kvasir::core
