// What this host offers a daemon, gathered without one: limits, memory, kernel features, sockets,
// GPUs.
#ifndef KVASIR_CLIENT_CTL_HOST_FACTS_H_
#define KVASIR_CLIENT_CTL_HOST_FACTS_H_

#include <cstdint>
#include <limits>
#include <string>

#include "client/ctl/gpu_facts.h"

namespace kvasir::ctl {

inline constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();

enum class SocketState { kUsable, kMissing, kNotASocket, kNoAccess };

struct HostFacts {
  uint64_t memlock_limit_bytes = 0;  // of this process: RLIMIT_MEMLOCK; kUnlimited
  uint64_t open_files_limit = 0;     // RLIMIT_NOFILE
  uint64_t memory_total_bytes = 0;   // 0: unknown, as below
  uint64_t memory_available_bytes = 0;
  uint64_t cgroup_limit_bytes = 0;  // smallest memory limit of the control groups above; 0: none
  uint64_t huge_pages_total = 0;    // reserved, of huge_page_bytes each
  uint64_t huge_pages_free = 0;
  uint64_t huge_page_bytes = 0;
  uint32_t numa_nodes = 0;         // with memory or processors
  bool future_write_seal = false;  // memfds can be sealed against new writers (Linux 5.1)
  bool leases_enabled = false;     // fs.leases-enable
  bool lease_probe = false;        // the kernel says whether a file is open elsewhere
  SocketState socket = SocketState::kMissing;
  std::string socket_path;
  GpuFacts gpu;
};

// Reads /proc, /sys and /dev under `root` ("" = the real ones), asks the kernel with two scratch
// memfds and CUDA for its GPUs, and looks at the socket without connecting. What cannot be read
// stays at its default.
HostFacts GatherHostFacts(const std::string& socket_path, const std::string& root = "");

}  // namespace kvasir::ctl

#endif  // KVASIR_CLIENT_CTL_HOST_FACTS_H_
