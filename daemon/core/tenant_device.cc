#include "daemon/core/tenant_device.h"

namespace kvasir::core {

bool TenantDevice::ReturnIdle() {
  const uint64_t before = account.charged_bytes();
  kept.ReturnIdleExtents();
  outside.ReturnIdleExtents();
  (void)account.Settle();
  return account.charged_bytes() < before;
}

void TenantDevice::ReturnExtents() {
  if (held_bytes() > 0) {
    (void)ReturnIdle();
    return;
  }
  kept.Clear();
  outside.Clear();
}

}  // namespace kvasir::core
