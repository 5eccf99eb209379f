// Extent: one memfd, mapped by the daemon, that block groups are cut from.
//
// It belongs to one owner for its whole life and is destroyed after it: memory that one tenant has
// seen is never handed to another. It can be taken from whoever holds it (TakeBack), but where a
// peer with rights over files has it (SealSize). It may outlive the process that made it: then it
// is frozen, and nobody can ever write it again. Not thread-safe but for RegisterWith(); immutable
// after Seal() but for the bytes themselves.
#ifndef KVASIR_ALLOCATOR_EXTENT_H_
#define KVASIR_ALLOCATOR_EXTENT_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/mapped_region.h"
#include "base/mutex.h"
#include "base/posix.h"
#include "device/device.h"

namespace kvasir {

class DeviceMemory;

enum class ExtentUse {
  kRecent,  // one session writes it: sealed against resizing
  kKept,    // the daemon writes it: sealed against any other writer, and against growing
};

// Who still has an extent open or mapped, by the kernel's word.
enum class ProbeResult { kFree, kHeld, kUnsupported };

// The half of a pair that lies on a device.
struct DeviceRows {
  std::unique_ptr<device::DeviceExtent> memory;
  DeviceMemory* device = nullptr;  // that it was taken from; outlives it
  uint64_t group_bytes = 0;        // of a group in `memory`
  uint64_t trailer_bytes = 0;      // of a group in the extent itself
};

class Extent {
 public:
  struct Options {
    uint64_t bytes = 0;    // multiple of the page size
    bool prefault = true;  // first touch now, not on the hot path
    int numa_node = -1;    // -1: any
    bool transparent_huge_pages = false;
  };

  // Makes a memfd, maps it read-write and touches its pages.
  // Errors: kResourceExhausted when the kernel has no memory or no descriptors left.
  static absl::StatusOr<std::unique_ptr<Extent>> Create(const Options& options, uint64_t id);

  // Takes over a kept extent of another process of ours, whose memfd this is: maps it read-only.
  // Errors: kFailedPrecondition naming what is not as Create() and Seal() left it; the kernel's.
  // Touches no page.
  static absl::StatusOr<std::unique_ptr<Extent>> Adopt(UniqueFd fd, uint64_t bytes, uint64_t id);

  // Gives the pages from `bytes` on back to the kernel. REQUIRES: not sealed, bytes <=
  // this->bytes().
  absl::Status Shrink(uint64_t bytes);

  // Ends changes of size, but for those by TakeBack(), and, for kKept, writes through any mapping
  // but the daemon's present one.
  absl::Status Seal(ExtentUse use);

  // Ends all changes of size. Called before a peer that can override file permissions gets a
  // descriptor: it could open the file for writing and cut it under the daemon's feet. It cannot be
  // taken back any more. Errors: the kernel's.
  absl::Status SealSize() const;

  // Takes the memory from whoever holds it: `data` is no longer mapped here, and the pages go back
  // to the kernel. Of a kept extent holders get SIGBUS from then on; of a recent one zeros, in
  // pages that the kernel makes and charges to them. REQUIRES: sealed, no group is allocated.
  // Errors: kPermissionDenied after SealSize(); the extent is as it was then.
  absl::Status TakeBack();

  // A file descriptor for a peer: a fresh open, read-only for kKept. REQUIRES: sealed.
  absl::StatusOr<UniqueFd> OpenForPeer() const;

  // For whoever keeps it over the end of this process: a duplicate, which Probe() does not see. No
  // peer may get one. Errors: the kernel's.
  absl::StatusOr<UniqueFd> Duplicate() const;

  // Asks the kernel whether any other process holds a descriptor or a mapping (F_SETLEASE).
  // Cost: about 2 us. Peers' unmapped, closed, forked, and in-flight descriptors are all seen.
  ProbeResult Probe() const;

  absl::Status Lock() { return map_.Lock(); }
  // Maps every page of a frozen extent, whose bytes are there, at once: by locking it, or without.
  // False: it could not be done, and faults do it later.
  bool TouchFrozen(bool lock);

  // Has the device reach the bytes for copies, as long as they are mapped here; once for each
  // device, which outlives the extent. Of a frozen one they are read alone. Thread-safe. Errors:
  // the device's. Cost: the first time some 100 us a MiB.
  absl::Status RegisterWith(device::Device& device);

  // Makes a pair of it, or takes it apart. REQUIRES: as many groups fit in either half.
  void AttachRows(DeviceRows rows) { rows_ = std::move(rows); }
  DeviceRows DetachRows() { return std::exchange(rows_, {}); }
  const DeviceRows* device_rows() const { return rows_.memory == nullptr ? nullptr : &rows_; }
  // What groups are cut from: addresses of the device in a pair.
  std::byte* rows() const {
    return rows_.memory == nullptr ? map_.data() : rows_.memory->address();
  }
  uint64_t rows_bytes() const {
    return rows_.memory == nullptr ? map_.bytes() : rows_.memory->bytes();
  }

  uint64_t id() const { return id_; }
  uint64_t bytes() const { return map_.bytes(); }
  std::byte* data() const { return map_.data(); }
  ExtentUse use() const { return use_; }
  bool frozen() const { return frozen_; }  // of Adopt(): `data` is read-only

  // A word for the allocator that cuts the extent, so that Free() finds its books in O(1).
  void* owner_tag() const { return owner_tag_; }
  void set_owner_tag(void* tag) { owner_tag_ = tag; }

 private:
  Extent(uint64_t id, UniqueFd fd, MappedRegion map)
      : id_(id), fd_(std::move(fd)), map_(std::move(map)) {}

  uint64_t id_;
  UniqueFd fd_;
  MappedRegion map_;
  Mutex registering_;  // a leaf, held over a registration
  // Before the mapping goes.
  std::map<device::Device*, std::unique_ptr<device::HostRegistration>> registrations_
      ABSL_GUARDED_BY(registering_);
  DeviceRows rows_;
  ExtentUse use_ = ExtentUse::kRecent;
  bool frozen_ = false;
  void* owner_tag_ = nullptr;
};

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_EXTENT_H_
