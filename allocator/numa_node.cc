#include "allocator/numa_node.h"

#include <errno.h>

#include <cstring>

#include "base/error.h"

#include <numa.h>

namespace kvasir {
namespace {

constexpr int kNodesMax = 64;  // Extent's mask is one word

}  // namespace

absl::Status CheckNumaNode(int node) {
  const int last = ::numa_available() < 0 ? -1 : ::numa_max_node();
  if (node >= 0 && node <= last && node < kNodesMax) return absl::OkStatus();
  return FailedPrecondition("the host has no such NUMA node: memory.numa_node={} max_node={}", node,
                            last);
}

absl::Status RunOnNumaNode(int node) {
  if (::numa_run_on_node(node) == 0) return absl::OkStatus();
  return FailedPrecondition("no processor of the NUMA node can be used: node={} reason={}", node,
                            std::strerror(errno));
}

}  // namespace kvasir
