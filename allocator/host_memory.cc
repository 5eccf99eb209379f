#include "allocator/host_memory.h"

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "base/bytes.h"

namespace kvasir {
namespace {

// Value in bytes of a `Name:   123 kB` line, or 0.
uint64_t MeminfoBytes(const std::string& text, const std::string& name) {
  const auto at = text.find(name + ":");
  if (at == std::string::npos) return 0;
  return std::strtoull(text.c_str() + at + name.size() + 1, nullptr, 10) * kKiB;
}

}  // namespace

std::string ReadKernelFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string OwnCgroupFolder() {
  const std::string groups = ReadKernelFile("/proc/self/cgroup");
  const size_t at = groups.find("0::");  // the line of version 2: `0::/path`
  if (at == std::string::npos || (at > 0 && groups[at - 1] != '\n')) return "";
  return "/sys/fs/cgroup" + groups.substr(at + 3, groups.find('\n', at) - at - 3);
}

HostMemory ReadHostMemory() {
  HostMemory host;
  const std::string meminfo = ReadKernelFile("/proc/meminfo");
  host.total_bytes = MeminfoBytes(meminfo, "MemTotal");
  host.available_bytes = MeminfoBytes(meminfo, "MemAvailable");
  const std::string folder = OwnCgroupFolder();
  const std::string limit = folder.empty() ? "" : ReadKernelFile(folder + "/memory.max");
  if (!limit.empty() && limit[0] != 'm') {
    host.cgroup_limit_bytes = std::strtoull(limit.c_str(), nullptr, 10);
    host.cgroup_used_bytes =
        std::strtoull(ReadKernelFile(folder + "/memory.current").c_str(), nullptr, 10);
  }
  return host;
}

}  // namespace kvasir
