// A node of the host's memory, and the processors that are near it.
#ifndef KVASIR_ALLOCATOR_NUMA_NODE_H_
#define KVASIR_ALLOCATOR_NUMA_NODE_H_

#include <absl/status/status.h>

namespace kvasir {

// Whether the host has it. Errors: kFailedPrecondition naming memory.numa_node.
absl::Status CheckNumaNode(int node);

// Keeps this thread, and those that it starts from then on, on processors of the node. Errors:
// kFailedPrecondition for a node that has none that this process may use; then all is as before.
absl::Status RunOnNumaNode(int node);

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_NUMA_NODE_H_
