// Rows of [memory].
#include "daemon/config_schema_rows.h"

namespace kvasir::schema {

std::vector<ConfigKey> MemoryKeys() {
  return {
      {.table = "memory",
       .name = "pool_bytes",
       .kind = ConfigKind::kBytes,
       .value = At<&C::memory, &C::Memory::pool_bytes>,
       .unit = "bytes",
       .min = 16 * kMi,
       .max = 64 * kTi,
       .multiple_of = kPage,
       .description = "Host memory that all tenants share."},
      {.table = "memory",
       .name = "extent_bytes",
       .kind = ConfigKind::kBytes,
       .value = At<&C::memory, &C::Memory::extent_bytes>,
       .unit = "bytes",
       .min = kMi,
       .max = 4 * kGi,
       .multiple_of = kPage,
       .description = "Size of one piece of shared memory; it belongs to one tenant for its whole "
                      "life. Larger: fewer file descriptors, more memory charged but not held.",
       .default_note = "32MiB, at most memory.pool_bytes"},
      {.table = "memory",
       .name = "recent_extent_bytes",
       .kind = ConfigKind::kBytes,
       .value = At<&C::memory, &C::Memory::recent_extent_bytes>,
       .unit = "bytes",
       .min = kMi,
       .max = 4 * kGi,
       .multiple_of = kPage,
       .description = "Size of the first extent that a session may write; later ones grow. At most "
                      "extent_bytes.",
       .default_note = "4MiB, at most memory.extent_bytes"},
      {.table = "memory",
       .name = "lock",
       .kind = ConfigKind::kChoice,
       .value = At<&C::memory, &C::Memory::lock>,
       .choices = {"require", "try", "off"},
       .description = "Keeps the pool from being swapped out. require: without it the daemon does "
                      "not start; try: it says so and goes on."},
      {.table = "memory",
       .name = "numa_node",
       .kind = ConfigKind::kInteger,
       .value = At<&C::memory, &C::Memory::numa_node>,
       .unit = "node",
       .min = -1,
       .max = 1023,
       .description = "Node that the pool's memory comes from, and on whose processors the daemon "
                      "runs. -1: any."},
      {.table = "memory",
       .name = "huge_pages",
       .kind = ConfigKind::kChoice,
       .value = At<&C::memory, &C::Memory::huge_pages>,
       .choices = {"off", "try", "require"},
       .description = "Transparent 2 MiB pages, which the host must allow for shared memory "
                      "(/sys/kernel/mm/transparent_hugepage/shmem_enabled). extent_bytes and "
                      "recent_extent_bytes must be multiples of 2 MiB then."},
      {.table = "memory",
       .name = "prefault",
       .kind = ConfigKind::kBoolean,
       .value = At<&C::memory, &C::Memory::prefault>,
       .description = "Keeps ready_bytes touched ahead. Off: each extent is touched when it is "
                      "taken, while somebody waits; a fresh page costs 6 to 15 times a copy."},
      {.table = "memory",
       .name = "ready_bytes",
       .kind = ConfigKind::kBytes,
       .value = At<&C::memory, &C::Memory::ready_bytes>,
       .unit = "bytes",
       .min = 0,
       .max = 64 * kTi,
       .multiple_of = kPage,
       .description = "Prefaulted memory that is kept ready for the next extents, as far as the "
                      "pool has free memory. At most pool_bytes.",
       .default_note = "256MiB, at most memory.pool_bytes"},
      {.table = "memory",
       .name = "pressure",
       .kind = ConfigKind::kChoice,
       .value = At<&C::memory, &C::Memory::pressure>,
       .choices = {"off", "try"},
       .description = "Makes the pool smaller while the kernel tells of memory pressure, by stock "
                      "and cached content that nobody uses, and lets it grow back after. try: what "
                      "the kernel does not tell is said once in the log."},
      {.table = "memory",
       .name = "pressure_dir",
       .kind = ConfigKind::kFolder,
       .value = At<&C::memory, &C::Memory::pressure_dir>,
       .unit = "path",
       .min = 0,
       .max = kPathMax,
       .description = "Folder with memory.pressure, memory.events, memory.high and memory.current "
                      "that are watched, as far as they are there. Empty: that of the daemon's "
                      "cgroup; for memory.pressure, $MEMORY_PRESSURE_WATCH comes before it and "
                      "/proc/pressure/memory of the host after."},
      {.table = "memory",
       .name = "pressure_quiet_ms",
       .kind = ConfigKind::kInteger,
       .value = At<&C::memory, &C::Memory::pressure_quiet_ms>,
       .unit = "ms",
       .min = 10,
       .max = 3'600'000,
       .description = "Time without pressure after which the pool grows by an eighth of its size. "
                      "Doubles, up to 16 times, where pressure comes back so soon."},
      {.table = "memory",
       .name = "handover",
       .kind = ConfigKind::kChoice,
       .value = At<&C::memory, &C::Memory::handover>,
       .choices = {"off", "try"},
       .description =
           "Leaves cached prefixes in memory to the next kvasird, also over SIGKILL: the "
           "service manager keeps the extents (FileDescriptorStoreMax= of the unit). "
           "try: where there is a manager to ask (NOTIFY_SOCKET)."},
      {.table = "memory",
       .name = "take_back_ms",
       .kind = ConfigKind::kInteger,
       .value = At<&C::memory, &C::Memory::take_back_ms>,
       .unit = "ms",
       .min = 0,
       .max = 60'000,
       .description = "How long the sessions of a tenant have to give back memory that it has "
                      "borrowed, once its owner wants it and nothing cached is left to give up. "
                      "Then sequences end, in the order of what engines say of them."},
      {.table = "memory",
       .name = "starving_ms",
       .kind = ConfigKind::kInteger,
       .value = At<&C::memory, &C::Memory::starving_ms>,
       .unit = "ms",
       .min = 0,
       .max = 86'400'000,
       .description =
           "A sequence whose request is older than this is suspended after all others of "
           "its tenant, whatever its priority and its predicted length."},
  };
}

}  // namespace kvasir::schema
