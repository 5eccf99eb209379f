// Two processes over one ring: a child, and the socket by whose hang-up each sees the other's
// death.
#ifndef KVASIR_TESTS_RING_TWO_PROCESSES_H_
#define KVASIR_TESTS_RING_TWO_PROCESSES_H_

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/ring/ring_pair.h"

#include <poll.h>

namespace kvasir::ring {

// No wait that somebody should end lasts longer: then the test fails.
inline constexpr int kNeverMs = 60'000;

inline bool IsHungUp(int socket) {
  pollfd entry{socket, POLLIN, 0};
  return ::poll(&entry, 1, 0) == 1;  // nobody sends anything
}

struct Sockets {
  Sockets() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    parent = UniqueFd(ends[0]);
    child = UniqueFd(ends[1]);
  }
  UniqueFd parent, child;
};

// Runs `body` in a child of its own, whose exit code is its result.
inline pid_t Fork(Sockets& sockets, const auto& body) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    sockets.parent.reset();
    ::_exit(body());
  }
  EXPECT_GT(pid, 0);
  sockets.child.reset();
  return pid;
}
inline int WaitFor(pid_t pid) {
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return status;
}

}  // namespace kvasir::ring

#endif  // KVASIR_TESTS_RING_TWO_PROCESSES_H_
