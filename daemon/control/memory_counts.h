// Fill: a tenant's host memory for the wire.
#ifndef KVASIR_DAEMON_CONTROL_MEMORY_COUNTS_H_
#define KVASIR_DAEMON_CONTROL_MEMORY_COUNTS_H_

#include "kvasir/v1/types.pb.h"

namespace kvasir {

// From core::TenantReport or TenantSnapshot, which name these fields alike.
template <typename Tenant>
void Fill(const Tenant& tenant, v1::MemoryCounts* out) {
  out->set_held_bytes(tenant.held_bytes);
  out->set_charged_bytes(tenant.charged_bytes);
  out->set_limit_bytes(tenant.limit_bytes);
  out->set_reserved_bytes(tenant.reserved_bytes);
  out->set_weight(tenant.weight);
  out->set_own_bytes(tenant.own_bytes);
  out->set_wanted_back_bytes(tenant.wanted_back_bytes);
  out->set_taken_back_bytes(tenant.taken_back_bytes);
}

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_MEMORY_COUNTS_H_
