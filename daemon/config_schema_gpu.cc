// Rows of [[gpu]] and [[tenant.gpu]].
#include "daemon/config_schema_rows.h"

namespace kvasir::schema {
namespace {

constexpr int64_t kGranularity = 2 * kMi;  // of CUDA's memory on every GPU so far

}  // namespace

std::vector<ConfigKey> GpuKeys() {
  return {
      {.table = "gpu",
       .name = "name",
       .kind = ConfigKind::kName,
       .value = OfGpu<&C::Gpu::name>,
       .min = 1,
       .max = 40,
       .description = "By which engines (ModelSpec::pool), tenants and statistics name the pool. "
                      "Required, unique.",
       .default_note = "none"},
      {.table = "gpu",
       .name = "device",
       .kind = ConfigKind::kDevice,
       .value = OfGpu<&C::Gpu::device>,
       .min = 1,
       .max = 64,
       .description = "cuda:<number> as CUDA counts them, or GPU-<uuid>. host: host memory that "
                      "behaves as a device's, for trying things without a GPU; it is not of "
                      "memory.pool_bytes. Required; a GPU has one pool.",
       .default_note = "none"},
      {.table = "gpu",
       .name = "pool_bytes",
       .kind = ConfigKind::kBytes,
       .value = OfGpu<&C::Gpu::pool_bytes>,
       .unit = "bytes",
       .min = kGranularity,
       .max = 64 * kTi,
       .multiple_of = kGranularity,
       .description = "Memory of the device that all tenants share."},
      {.table = "gpu",
       .name = "extent_bytes",
       .kind = ConfigKind::kBytes,
       .value = OfGpu<&C::Gpu::extent_bytes>,
       .unit = "bytes",
       .min = kMi,
       .max = 4 * kGi,
       .multiple_of = kPage,
       .description = "About the size of one piece of it, which is cut to whole groups. Each takes "
                      "a multiple of the device's granularity: the larger, the less is wasted."},
      {.table = "gpu",
       .name = "recent_extent_bytes",
       .kind = ConfigKind::kBytes,
       .value = OfGpu<&C::Gpu::recent_extent_bytes>,
       .unit = "bytes",
       .min = kMi,
       .max = 4 * kGi,
       .multiple_of = kPage,
       .description = "Likewise of the first one of a session; later ones grow. At most "
                      "extent_bytes."},
  };
}

std::vector<ConfigKey> TenantGpuKeys() {
  return {
      {.table = "tenant.gpu",
       .name = "name",
       .kind = ConfigKind::kName,
       .value = OfTenantGpu<&C::TenantGpu::name>,
       .min = 1,
       .max = 64,
       .description = "Of the [[gpu]] that these are bounds of. Required.",
       .default_note = "none"},
      {.table = "tenant.gpu",
       .name = "limit_bytes",
       .kind = ConfigKind::kBytes,
       .value = OfTenantGpu<&C::TenantGpu::limit_bytes>,
       .unit = "bytes",
       .min = 0,
       .max = 64 * kTi,
       .multiple_of = kPage,
       .needs_restart = false,
       .description = "What the tenant may own of that pool, rounding to the granularity counted; "
                      "0: nothing. At most gpu.pool_bytes.",
       .default_note = "gpu.pool_bytes"},
      {.table = "tenant.gpu",
       .name = "reserved_bytes",
       .kind = ConfigKind::kBytes,
       .value = OfTenantGpu<&C::TenantGpu::reserved_bytes>,
       .unit = "bytes",
       .min = 0,
       .max = 64 * kTi,
       .multiple_of = kPage,
       .needs_restart = false,
       .description = "Of that pool, kept free for this tenant: memory of a device cannot be taken "
                      "back, so it is lent to nobody. At most limit_bytes; all tenants' together "
                      "at most gpu.pool_bytes."},
      {.table = "tenant.gpu",
       .name = "weight",
       .kind = ConfigKind::kInteger,
       .value = OfTenantGpu<&C::TenantGpu::weight>,
       .min = 1,
       .max = 10'000,
       .needs_restart = false,
       .description = "Its part of what nobody has reserved. While somebody lacks its part, who "
                      "has more than its own gets nothing."},
  };
}

}  // namespace kvasir::schema
