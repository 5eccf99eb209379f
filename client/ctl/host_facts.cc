#include "client/ctl/host_facts.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "base/bytes.h"
#include "base/posix.h"

namespace kvasir::ctl {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kNodesMax = 1024;  // of the kernel

uint64_t LimitOf(__rlimit_resource resource) {
  rlimit limit{};
  if (::getrlimit(resource, &limit) != 0) return 0;
  return limit.rlim_cur == RLIM_INFINITY ? kUnlimited : limit.rlim_cur;
}

void ReadMeminfo(const std::string& root, HostFacts* facts) {
  std::ifstream file(root + "/proc/meminfo");
  std::string name;
  std::string rest;
  for (uint64_t value = 0; file >> name >> value && std::getline(file, rest);) {
    if (name == "MemTotal:") facts->memory_total_bytes = value * kKiB;
    if (name == "MemAvailable:") facts->memory_available_bytes = value * kKiB;
    if (name == "HugePages_Total:") facts->huge_pages_total = value;
    if (name == "HugePages_Free:") facts->huge_pages_free = value;
    if (name == "Hugepagesize:") facts->huge_page_bytes = value * kKiB;
  }
}

// Of a list as "0-1,3".
uint32_t CountNodes(const std::string& root) {
  std::ifstream file(root + "/sys/devices/system/node/online");
  uint32_t nodes = 0;
  for (uint32_t first = 0; file >> first;) {
    uint32_t last = first;
    char next = static_cast<char>(file.get());
    if (next == '-') {
      file >> last;
      next = static_cast<char>(file.get());
    }
    if (last >= first && last < kNodesMax) nodes += last - first + 1;
    if (next != ',') break;
  }
  return nodes;
}

// The smallest memory.max on the way from the process's control group to the top (version 2), or
// the limit of version 1.
uint64_t CgroupLimit(const std::string& root) {
  uint64_t limit = kUnlimited;
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first == std::string::npos ? first : first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && controllers != "memory") continue;
    const fs::path top = root + (v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory");
    fs::path group = fs::path(line.substr(second + 1)).relative_path();
    for (bool more = true; more; group = group.parent_path()) {
      more = !group.empty();
      std::ifstream max(top / group / (v2 ? "memory.max" : "memory.limit_in_bytes"));
      if (uint64_t value = 0; max >> value) limit = std::min(limit, value);
    }
  }
  // Version 1 says "no limit" with the largest multiple of a page.
  return limit >= (uint64_t{1} << 62) ? 0 : limit;
}

SocketState StateOfSocket(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    return errno == EACCES ? SocketState::kNoAccess : SocketState::kMissing;
  }
  if (!S_ISSOCK(info.st_mode)) return SocketState::kNotASocket;
  return ::access(path.c_str(), R_OK | W_OK) == 0 ? SocketState::kUsable : SocketState::kNoAccess;
}

UniqueFd ScratchMemfd() {
  UniqueFd fd(::memfd_create("kvasirctl-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd && ::ftruncate(fd.get(), static_cast<off_t>(kPageBytes)) != 0) fd.reset();
  return fd;
}

bool HasFutureWriteSeal() {
  const UniqueFd fd = ScratchMemfd();
  return fd && ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_FUTURE_WRITE) == 0;
}

// A write lease is granted only while nobody else has the file open: the daemon asks so whether an
// engine still maps an extent. Both answers must be right. The kernel counts reopened descriptors
// of a memfd only, not the first one.
bool HasLeaseProbe() {
  const UniqueFd origin = ScratchMemfd();
  if (!origin) return false;
  auto probe = Reopen(origin, O_RDONLY);
  auto lent = Reopen(origin, O_RDWR);
  if (!probe.ok() || !lent.ok()) return false;
  const bool busy = ::fcntl(probe->get(), F_SETLEASE, F_WRLCK) != 0;
  lent->reset();
  const bool idle = ::fcntl(probe->get(), F_SETLEASE, F_WRLCK) == 0;
  return busy && idle;
}

}  // namespace

HostFacts GatherHostFacts(const std::string& socket_path, const std::string& root) {
  HostFacts facts;
  facts.memlock_limit_bytes = LimitOf(RLIMIT_MEMLOCK);
  facts.open_files_limit = LimitOf(RLIMIT_NOFILE);
  ReadMeminfo(root, &facts);
  facts.numa_nodes = CountNodes(root);
  facts.cgroup_limit_bytes = CgroupLimit(root);
  facts.future_write_seal = HasFutureWriteSeal();
  std::ifstream leases(root + "/proc/sys/fs/leases-enable");
  if (int value = 0; leases >> value) facts.leases_enabled = value == 1;
  facts.lease_probe = HasLeaseProbe();
  facts.socket_path = socket_path;
  facts.socket = StateOfSocket(socket_path);
  facts.gpu = GatherGpuFacts(root);
  return facts;
}

}  // namespace kvasir::ctl
