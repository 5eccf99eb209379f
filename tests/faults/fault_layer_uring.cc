// Requests of an io_uring, changed before the kernel takes them: what fails does so in the kernel,
// on a file that answers everything with the error that is wanted.
#include <fcntl.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "tests/faults/fault_layer.h"

#include <liburing.h>

namespace kvasir::testing {
namespace {

// A file on which reads and writes end with `error`.
int FileThatAnswers(int error) {
  static const int no_memory_there = ::open("/proc/self/mem", O_RDWR | O_CLOEXEC);  // EIO at 0
  static const int full = ::open("/dev/full", O_RDWR | O_CLOEXEC);                  // ENOSPC
  if (error == EIO) return no_memory_there;
  if (error == ENOSPC) return full;
  if (error == EBADF) return -1;
  std::fprintf(stderr, "fault layer: no file answers a request like this: errno=%d\n", error);
  std::abort();
}

void Strike(io_uring_sqe& entry) {
  const bool read = entry.opcode == IORING_OP_READV, write = entry.opcode == IORING_OP_WRITEV;
  if (!read && !write) return;
  const FaultPlace place = read ? FaultPlace::kSegmentRead : FaultPlace::kSegmentWrite;
  if (read) HoldRead(entry.fd);
  const int error = StrikeAt(entry.fd, place, place);
  if (error == 0) return;
  if (error != kShortTransfer) {
    entry.fd = FileThatAnswers(error);
    entry.off = 0;
  } else if (entry.len > 1) {
    entry.len /= 2;  // of its parts
  } else {
    entry.opcode = IORING_OP_NOP;  // ends with 0
  }
}

// Those that the kernel does not know of yet and that were not looked at.
void StrikeNew(io_uring* ring) {
  if (BoardOfLayer() == nullptr) return;
  io_uring_sq& queue = ring->sq;
  for (unsigned at = queue.sqe_head; at != queue.sqe_tail; ++at) {
    Strike(queue.sqes[at & *queue.kring_mask]);
  }
}

}  // namespace
}  // namespace kvasir::testing

using kvasir::testing::BoardOfLayer;
using kvasir::testing::NextOf;

extern "C" {

int io_uring_queue_init(unsigned entries, io_uring* ring, unsigned flags) {
  static auto* const next = NextOf<int(unsigned, io_uring*, unsigned)>("io_uring_queue_init");
  const auto* const board = BoardOfLayer();
  return board != nullptr && board->without_uring ? -ENOSYS : next(entries, ring, flags);
}

int io_uring_submit(io_uring* ring) {
  static auto* const next = NextOf<int(io_uring*)>("io_uring_submit");
  kvasir::testing::StrikeNew(ring);
  return next(ring);
}

int io_uring_submit_and_wait(io_uring* ring, unsigned wait) {
  static auto* const next = NextOf<int(io_uring*, unsigned)>("io_uring_submit_and_wait");
  kvasir::testing::StrikeNew(ring);
  return next(ring, wait);
}

}  // extern "C"
