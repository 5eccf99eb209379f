// Counts of device pools for the wire.
#ifndef KVASIR_DAEMON_CONTROL_DEVICE_COUNTS_H_
#define KVASIR_DAEMON_CONTROL_DEVICE_COUNTS_H_

#include "daemon/metrics.h"
#include "kvasir/v1/admin.pb.h"

namespace kvasir {

inline void FillPool(const DevicePoolSnapshot& pool, v1::DevicePoolStats* out) {
  out->set_pool(pool.pool);
  out->set_device_name(pool.device_name);
  out->set_device_uuid(pool.device_uuid);
  out->set_pool_bytes(pool.pool_bytes);
  out->set_charged_bytes(pool.charged_bytes);
  out->set_idle_bytes(pool.idle_bytes);
  out->set_waste_bytes(pool.waste_bytes);
  out->set_granularity_bytes(pool.granularity_bytes);
  out->set_extents(pool.extents);
  out->set_device_free_bytes(pool.device_free_bytes);
  out->set_device_total_bytes(pool.device_total_bytes);
  out->set_lost(pool.lost);
}

inline void FillDevice(const TenantDeviceSnapshot& device, v1::TenantDeviceStats* out) {
  out->set_pool(device.pool);
  out->set_held_bytes(device.held_bytes);
  out->set_charged_bytes(device.charged_bytes);
  out->set_waste_bytes(device.waste_bytes);
  out->set_own_bytes(device.own_bytes);
  out->set_offload_stores(device.offloads.stores);
  out->set_offload_stored_bytes(device.offloads.stored_bytes);
  out->set_offload_loads(device.offloads.loads);
  out->set_offload_loaded_bytes(device.offloads.loaded_bytes);
  out->set_offload_failures(device.offloads.failures);
}

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_DEVICE_COUNTS_H_
