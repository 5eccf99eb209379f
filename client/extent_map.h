// ExtentMap: the extents that the daemon has handed to this process, mapped, by slot. Rows of a
// pair are imported by the device that has them.
#ifndef KVASIR_CLIENT_EXTENT_MAP_H_
#define KVASIR_CLIENT_EXTENT_MAP_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/clock.h"
#include "base/mapped_region.h"
#include "base/mutex.h"
#include "base/unix_socket.h"
#include "device/device.h"
#include "proto/shm/group_geometry.h"
#include "proto/shm/layout.h"

namespace kvasir {

// Where a group lies. Planes of a pair are addresses of its device.
struct GroupPlace {
  std::byte* planes = nullptr;
  std::byte* trailer = nullptr;      // what lies at pos_off of its geometry
  device::Device* device = nullptr;  // null: host memory
};

// Thread-safe. A mapping lives until another extent takes its slot, at most as long as the map, and
// longer where somebody holds it.
class ExtentMap {
 public:
  // Reads extent notices from `socket`. It and the devices, each of another uuid, must outlive it
  // and what is held of it.
  explicit ExtentMap(const UniqueFd& socket, std::vector<device::Device*> devices = {})
      : socket_(socket), devices_(std::move(devices)) {}
  ~ExtentMap();
  ExtentMap(const ExtentMap&) = delete;
  ExtentMap& operator=(const ExtentMap&) = delete;

  // What is mapped now stays mapped until the hold is given back, also beyond the map's own life.
  // It may hold more than that: what is mapped later and unmapped meanwhile. The daemon counts an
  // extent as its tenant's until nobody maps it. Cost: a lock and a count.
  std::shared_ptr<const void> Hold() const;

  // Address of `offset` in the extent of that slot; waits for its notice if it is on its way.
  // Errors: kUnavailable when the daemon hung up, kDeadlineExceeded, kDataLoss when the daemon
  // names a place outside the extent, or for writing one that is lent for reading; of an extent
  // that cannot be mapped its error, at once: each call tries again.
  absl::StatusOr<std::byte*> At(uint32_t slot, uint32_t generation, uint64_t offset, uint64_t bytes,
                                Instant deadline, Access access = Access::kReadOnly);

  // The group of this geometry at `offset`, in host memory or of a pair. Errors: as At();
  // kFailedPrecondition where the rows lie on a device that this process has not got.
  absl::StatusOr<GroupPlace> GroupAt(uint32_t slot, uint32_t generation, uint64_t offset,
                                     const shm::GroupGeometry& geometry, Instant deadline,
                                     Access access = Access::kReadOnly);

  uint64_t mapped_bytes() const;  // of host memory and of devices

 private:
  struct Entry {
    MappedRegion map;
    uint32_t generation = 0;
    Access access = Access::kReadOnly;
    // Of a pair; null: all is in `map`.
    std::unique_ptr<device::DeviceExtent> rows = {};
    device::Device* device = nullptr;
    uint64_t group_bytes = 0, trailer_bytes = 0;
  };
  // Mappings that went out of use while this was the newest of its kind. Each holds the next one,
  // so that the holder of one holds all that went out of use since.
  struct Retired {
    ~Retired();
    std::vector<Entry> entries;
    std::shared_ptr<Retired> next;
  };
  // What the daemon handed over and could not be mapped. Its descriptors stay open for the next
  // try: they are all that there is of it, since the daemon tells of an extent once.
  struct Unmapped {
    shm::DeviceExtentNotice notice{};  // rows_bytes is 0 where all of it is host memory
    std::vector<UniqueFd> fds;         // none: no device here will ever have it
  };
  // Waits for a notice and maps what it brings. Errors are of the socket and of the message: what
  // cannot be mapped is nobody's but of who asks for it.
  absl::Status ReceiveOne(Instant deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Errors: of the memory or the device; `what` stays for another try.
  absl::Status Map(Unmapped& what) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The slot's entry, once its notice is there.
  absl::StatusOr<const Entry*> EntryOf(uint32_t slot, uint32_t generation, Instant deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes the place of what was in the slot.
  void Put(uint32_t slot, Entry entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const UniqueFd& socket_;
  const std::vector<device::Device*> devices_;
  mutable Mutex mutex_;
  std::map<uint32_t, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  std::map<uint32_t, Unmapped> unmapped_ ABSL_GUARDED_BY(mutex_);  // by slot, not in entries_
  // Shared with holds.
  std::shared_ptr<Retired> newest_ ABSL_GUARDED_BY(mutex_) = std::make_shared<Retired>();
};

}  // namespace kvasir

#endif  // KVASIR_CLIENT_EXTENT_MAP_H_
