// BlockIo: reads and writes of open files with many in flight: by io_uring, or one after the other
// where the kernel does not allow it. Tests put faults in between.
#ifndef KVASIR_ALLOCATOR_TIER_BLOCK_IO_H_
#define KVASIR_ALLOCATOR_TIER_BLOCK_IO_H_

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <span>

#include <absl/status/statusor.h>

namespace kvasir {

struct IoRequest {
  bool write = false;
  int fd = -1;
  uint64_t offset = 0;
  std::span<const iovec> parts;  // they and their memory live until the request is done
  uint64_t tag = 0;
};

struct IoDone {
  uint64_t tag = 0;
  int64_t result = 0;  // bytes moved, or minus errno
};

// One caller's requests. Not thread-safe. REQUIRES: nothing in flight when it is destroyed.
class IoQueue {
 public:
  virtual ~IoQueue() = default;
  // False when as many are in flight as the queue is deep: Wait() first.
  virtual bool Submit(const IoRequest& request) = 0;
  // Waits for any one. REQUIRES: something is in flight. A device that never answers holds it for
  // ever: the kernel still has the caller's memory then.
  virtual IoDone Wait() = 0;
};

// Thread-safe.
class BlockIo {
 public:
  virtual ~BlockIo() = default;
  virtual absl::StatusOr<std::unique_ptr<IoQueue>> OpenQueue(uint32_t depth) = 0;
  // fdatasync. 0 or minus errno.
  virtual int Sync(int fd) = 0;
};

// io_uring where the kernel has it and allows it, else one call after the other; says which in the
// log, once a process.
std::unique_ptr<BlockIo> MakeSystemIo();
// Never io_uring.
std::unique_ptr<BlockIo> MakePlainIo();

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_BLOCK_IO_H_
