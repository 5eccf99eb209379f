// ReadGate: when gRPC reads a connection, and how much of it at a time.
//
// gRPC begins every call that one read brings before it looks at another connection, and has no way
// to hold a connection back: who sends calls of 60 bytes as fast as a socket takes them has
// hundreds begun in front of everybody's. So recvmsg(), by which gRPC reads, is here in front of
// libc's. While others are there, a connection gives a piece at a time, and one whose tenant has
// used up its share (TimeShares) has nothing to read until more has come in; its tenant's
// connections go in turn. A connection that is held back fills up, and its peer waits.
//
// gRPC waits for an edge of its epoll instance, and a connection that is no longer held back has to
// have one: EPOLL_CTL_MOD makes it, with what gRPC itself has asked for, for which epoll_ctl() is
// here, too. What was not given to a gate is read and watched as ever.
//
// Thread-safe. Cost: a lock for a few instructions for each recvmsg() of the process.
#ifndef KVASIR_DAEMON_CONTROL_READ_GATE_H_
#define KVASIR_DAEMON_CONTROL_READ_GATE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <thread>

#include <absl/status/status.h>

#include "base/clock.h"
#include "base/mutex.h"
#include "daemon/time_shares.h"

namespace kvasir {

class ReadGate {
 public:
  // What is read at once while others are there: some 70 of the shortest calls.
  static constexpr size_t kPieceBytes = 4096;

  // `shares` must outlive it.
  explicit ReadGate(TimeShares& shares);
  // What is held back then is so for good: the server has been shut down.
  ~ReadGate();
  ReadGate(const ReadGate&) = delete;
  ReadGate& operator=(const ReadGate&) = delete;

  // Before gRPC has the connection. `caller`: whose, as TimeShares has it. Forgotten when it ends,
  // or when its number is another socket's. Errors: ErrnoStatus() for what is no socket.
  absl::Status Add(int fd, size_t caller);

 private:
  friend struct ReadGates;
  struct Connection;
  // Of those that are held back, in their turn.
  struct Turns {
    std::deque<int> waiting;
    Instant next{};  // not before
  };

  size_t BytesNow(int fd, Connection& connection, Instant now);
  void LetOneRead(Turns& turns, Instant now);
  void Loop();

  TimeShares& shares_;
  std::map<size_t, Turns> turns_;  // by caller; under the lock of all gates
  bool stop_ = false;              // likewise
  CondVar wake_;                   // likewise
  std::thread thread_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_READ_GATE_H_
