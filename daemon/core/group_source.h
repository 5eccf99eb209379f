// GroupSource: where groups of rows come from: host memory, or the memory of a device.
#ifndef KVASIR_DAEMON_CORE_GROUP_SOURCE_H_
#define KVASIR_DAEMON_CORE_GROUP_SOURCE_H_

#include "allocator/group_allocator.h"
#include "proto/shm/group_geometry.h"

namespace kvasir::core {

// Not thread-safe.
class GroupSource {
 public:
  virtual ~GroupSource() = default;
  // Of groups that lie like this, made when first asked for. Lives as long as the source.
  virtual GroupAllocator& For(const shm::GroupGeometry& geometry) = 0;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_GROUP_SOURCE_H_
