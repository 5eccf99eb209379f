// What the host can give, by the kernel's own files. Thread-safe. Each call reads them anew.
#ifndef KVASIR_ALLOCATOR_HOST_MEMORY_H_
#define KVASIR_ALLOCATOR_HOST_MEMORY_H_

#include <cstdint>
#include <string>

namespace kvasir {

// MemAvailable of /proc/meminfo, and the cgroup's memory.max minus its use.
struct HostMemory {
  uint64_t total_bytes = 0;
  uint64_t available_bytes = 0;
  uint64_t cgroup_limit_bytes = 0;  // 0: none
  uint64_t cgroup_used_bytes = 0;
};
HostMemory ReadHostMemory();

// Folder of this process's cgroup (version 2), or "".
std::string OwnCgroupFolder();

// A file of the kernel as text; "" where there is none.
std::string ReadKernelFile(const std::string& path);

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_HOST_MEMORY_H_
