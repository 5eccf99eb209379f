#include "daemon/control/read_gate.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <utility>

#include <absl/container/flat_hash_map.h>

#include "base/status_macros.h"
#include "base/unix_socket.h"

#include <dlfcn.h>

namespace kvasir {
namespace {

// Until a tenant's next connection reads, so that what the one before has brought is charged.
constexpr std::chrono::milliseconds kBetween{1};
constexpr size_t kAll = SIZE_MAX;
constexpr size_t kPiecesMax = 64;  // of one recvmsg(); gRPC uses 4

// The next one of this name: libc's, or a sanitizer's in front of it.
template <typename Function>
Function* Real(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

ssize_t RealReceive(int fd, msghdr* message, int flags) {
  static const auto call = Real<ssize_t(int, msghdr*, int)>("recvmsg");
  return call(fd, message, flags);
}

int RealEpollCtl(int epoll, int operation, int fd, epoll_event* event) noexcept {
  static const auto call = Real<int(int, int, int, epoll_event*)>("epoll_ctl");
  return call(epoll, operation, fd, event);
}

// At most so many bytes of it.
ssize_t ReceiveSome(int fd, msghdr* message, int flags, size_t bytes) {
  std::array<iovec, kPiecesMax> pieces;
  msghdr some = *message;
  some.msg_iov = pieces.data();
  size_t count = 0;
  for (; count < std::min(message->msg_iovlen, pieces.size()) && bytes > 0; ++count) {
    pieces[count] = message->msg_iov[count];
    pieces[count].iov_len = std::min(pieces[count].iov_len, bytes);
    bytes -= pieces[count].iov_len;
  }
  some.msg_iovlen = count;
  const ssize_t received = RealReceive(fd, &some, flags);
  message->msg_namelen = some.msg_namelen;
  message->msg_controllen = some.msg_controllen;
  message->msg_flags = some.msg_flags;
  return received;
}

}  // namespace

struct ReadGate::Connection {
  ReadGate* gate = nullptr;
  size_t caller = 0;
  uint64_t cookie = 0;
  int epoll = -1;  // gRPC's
  epoll_event event{};
  bool waits = false;     // it is in its caller's turns
  bool may_read = false;  // it has its turn, and has not read since
};

// Of the process: what gRPC calls knows no gate.
struct ReadGates {
  using Connection = ReadGate::Connection;

  static ReadGates& Get() {
    static ReadGates* const gates = new ReadGates;  // gRPC's threads may outlive static objects
    return *gates;
  }

  size_t BytesNow(int fd) {
    MutexLock lock(mutex);
    const auto found = connections.find(fd);
    if (found == connections.end()) return kAll;
    const Instant now = SystemClock().Now();
    const size_t bytes = found->second.gate->BytesNow(fd, found->second, now);
    if (bytes > 0) return bytes;
    // The number may be another socket's by now.
    const absl::StatusOr<uint64_t> cookie = SocketCookieOf(fd);
    if (cookie.ok() && *cookie == found->second.cookie) return 0;
    connections.erase(found);
    return kAll;
  }
  void NoteEnd(int fd) {
    MutexLock lock(mutex);
    connections.erase(fd);
  }
  // Under the lock, so that nobody says of a number what was asked for the one before.
  int Watch(int epoll, int operation, int fd, epoll_event* event) {
    MutexLock lock(mutex);
    const int result = RealEpollCtl(epoll, operation, fd, event);
    const auto found = connections.find(fd);
    if (result != 0 || found == connections.end()) return result;
    if (operation == EPOLL_CTL_DEL) {
      found->second.epoll = -1;
    } else {
      found->second.epoll = epoll;
      found->second.event = *event;
    }
    return result;
  }

  Mutex mutex;  // a leaf
  absl::flat_hash_map<int, Connection> connections ABSL_GUARDED_BY(mutex);
};

ReadGate::ReadGate(TimeShares& shares) : shares_(shares), thread_([this] { Loop(); }) {}

ReadGate::~ReadGate() {
  ReadGates& gates = ReadGates::Get();
  {
    MutexLock lock(gates.mutex);
    stop_ = true;
    absl::erase_if(gates.connections,
                   [this](const auto& each) { return each.second.gate == this; });
  }
  wake_.NotifyAll();
  thread_.join();
}

absl::Status ReadGate::Add(int fd, size_t caller) {
  KVASIR_ASSIGN_OR_RETURN(const uint64_t cookie, SocketCookieOf(fd));
  ReadGates& gates = ReadGates::Get();
  MutexLock lock(gates.mutex);
  Connection& connection = gates.connections[fd];
  connection = {};
  connection.gate = this;
  connection.caller = caller;
  connection.cookie = cookie;
  return absl::OkStatus();
}

size_t ReadGate::BytesNow(int fd, Connection& connection, Instant now) {
  if (std::exchange(connection.may_read, false)) return kPieceBytes;
  if (connection.epoll < 0 || shares_.IsAlone(connection.caller, now)) return kAll;
  Turns& turns = turns_[connection.caller];
  const bool others_wait = !turns.waiting.empty();
  if (!others_wait && shares_.ReadyAt(connection.caller, now) <= now) return kPieceBytes;
  if (!std::exchange(connection.waits, true)) turns.waiting.push_back(fd);
  if (!others_wait) wake_.NotifyOne();
  return 0;
}

void ReadGate::LetOneRead(Turns& turns, Instant now) {
  ReadGates& gates = ReadGates::Get();
  gates.mutex.AssertHeld();
  const int fd = turns.waiting.front();
  turns.waiting.pop_front();
  const auto found = gates.connections.find(fd);
  if (found == gates.connections.end() || !found->second.waits) return;  // it has ended
  Connection& connection = found->second;
  connection.waits = false;
  connection.may_read = true;
  // Fails where gRPC has closed it meanwhile.
  (void)RealEpollCtl(connection.epoll, EPOLL_CTL_MOD, fd, &connection.event);
  turns.next = now + kBetween;
}

void ReadGate::Loop() {
  ReadGates& gates = ReadGates::Get();
  MutexLock lock(gates.mutex);
  while (!stop_) {
    const Instant now = SystemClock().Now();
    Instant until = Instant::max();
    for (auto& [caller, turns] : turns_) {
      if (turns.waiting.empty()) continue;
      if (std::max(turns.next, shares_.ReadyAt(caller, now)) <= now) LetOneRead(turns, now);
      if (turns.waiting.empty()) continue;
      until = std::min(until, std::max(turns.next, shares_.ReadyAt(caller, now)));
    }
    if (until == Instant::max()) {
      wake_.Wait(gates.mutex);
    } else {
      (void)wake_.WaitUntil(gates.mutex, until);
    }
  }
}

}  // namespace kvasir

// Instead of libc's.
extern "C" ssize_t recvmsg(int fd, msghdr* message, int flags) {
  kvasir::ReadGates& gates = kvasir::ReadGates::Get();
  const size_t bytes = gates.BytesNow(fd);
  if (bytes == 0) {
    errno = EAGAIN;
    return -1;
  }
  if (bytes == kvasir::kAll) return kvasir::RealReceive(fd, message, flags);
  const ssize_t received = kvasir::ReceiveSome(fd, message, flags, bytes);
  if (received == 0) gates.NoteEnd(fd);
  return received;
}

extern "C" int epoll_ctl(int epoll, int operation, int fd, epoll_event* event) noexcept {
  return kvasir::ReadGates::Get().Watch(epoll, operation, fd, event);
}
