#include "ring/doorbell.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace kvasir::ring {

absl::StatusOr<UniqueFd> MakeDoorbell() {
  UniqueFd doorbell(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!doorbell) return ErrnoStatus(errno, "eventfd");
  return doorbell;
}

absl::Status WatchDoorbell(int epoll, int doorbell, uint64_t data) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;  // an edge for each write, though nobody reads
  event.data.u64 = data;
  if (::epoll_ctl(epoll, EPOLL_CTL_ADD, doorbell, &event) != 0) {
    return ErrnoStatus(errno, "epoll_ctl doorbell");
  }
  return absl::OkStatus();
}

absl::Status RingDoorbell(int doorbell) {
  const uint64_t one = 1;
  if (::write(doorbell, &one, sizeof(one)) != static_cast<ssize_t>(sizeof(one))) {
    return ErrnoStatus(errno, "write doorbell");
  }
  return absl::OkStatus();
}

}  // namespace kvasir::ring
