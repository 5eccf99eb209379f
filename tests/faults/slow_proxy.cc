#include "tests/faults/slow_proxy.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/unix_socket.h"

#include <poll.h>

namespace kvasir::testing {
namespace {

constexpr std::chrono::milliseconds kStep{1};

UniqueFd Blocking(UniqueFd socket) {
  EXPECT_EQ(::fcntl(socket.get(), F_SETFL, 0), 0);
  return socket;
}

bool HasHungUp(const UniqueFd& socket) {
  pollfd entry = {.fd = socket.get(), .events = POLLRDHUP, .revents = 0};
  return ::poll(&entry, 1, 0) > 0;
}

bool SendAll(const UniqueFd& socket, const char* data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t sent = ::send(socket.get(), data, bytes, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    data += sent;
    bytes -= static_cast<size_t>(sent);
  }
  return true;
}

}  // namespace

SlowProxy::SlowProxy(std::string socket, std::string server)
    : socket_(std::move(socket)), server_(std::move(server)) {
  absl::StatusOr<UniqueFd> listener = ListenUnix(socket_, SocketType::kStream, 0600);
  EXPECT_TRUE(listener.ok()) << MessageOf(listener.status());
  if (listener.ok()) listener_ = Blocking(*std::move(listener));
  accepting_ = std::thread([this] { Accept(); });
}

SlowProxy::~SlowProxy() {
  (void)::shutdown(listener_.get(), SHUT_RDWR);
  accepting_.join();
  std::list<Link> links;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
    links.swap(links_);
  }
  for (Link& link : links) {
    (void)::shutdown(link.client.get(), SHUT_RDWR);
    (void)::shutdown(link.server.get(), SHUT_RDWR);
    link.up.join();
    link.down.join();
  }
}

void SlowProxy::Accept() {
  for (;;) {
    UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client) return;
    absl::StatusOr<UniqueFd> server = ConnectUnix(server_, SocketType::kStream);
    if (!server.ok()) continue;  // the client is hung up on
    MutexLock lock(mutex_);
    Link& link = links_.emplace_back();
    link.client = std::move(client);
    link.server = Blocking(*std::move(server));
    link.up = std::thread([this, &link] { HandUp(link); });
    link.down = std::thread([this, &link] { HandDown(link); });
  }
}

void SlowProxy::HandUp(Link& link) {
  std::array<char, 1 << 16> buffer;
  for (;;) {
    const ssize_t got = ::recv(link.client.get(), buffer.data(), buffer.size(), 0);
    if (got <= 0 || !SendAll(link.server, buffer.data(), static_cast<size_t>(got))) break;
  }
  (void)::shutdown(link.server.get(), SHUT_RDWR);
}

void SlowProxy::HandDown(Link& link) {
  std::array<char, 1 << 16> buffer;
  for (;;) {
    const ssize_t got = ::recv(link.server.get(), buffer.data(), buffer.size(), 0);
    if (got <= 0 || !Answer(link, buffer.data(), static_cast<size_t>(got))) break;
  }
  (void)::shutdown(link.client.get(), SHUT_RDWR);
}

bool SlowProxy::Answer(Link& link, const char* data, size_t bytes) {
  while (bytes > 0) {
    size_t now = bytes;
    {
      MutexLock lock(mutex_);
      link.waits = pace_ == Pace::kHeld;
      while (pace_ == Pace::kHeld && !stopping_ && !HasHungUp(link.client)) {
        (void)changed_.WaitUntil(mutex_, SystemClock().Now() + kStep);
      }
      link.waits = false;
      if (stopping_) return false;
      if (pace_ == Pace::kTrickle) {
        (void)changed_.WaitUntil(mutex_, SystemClock().Now() + kStep);
        now = 1;
      }
      answered_ += now;
    }
    if (!SendAll(link.client, data, now)) return false;
    data += now;
    bytes -= now;
  }
  return true;
}

void SlowProxy::SetPace(Pace pace) {
  MutexLock lock(mutex_);
  pace_ = pace;
  changed_.NotifyAll();
}

uint64_t SlowProxy::Waiting() {
  MutexLock lock(mutex_);
  return static_cast<uint64_t>(std::count_if(links_.begin(), links_.end(), [](const Link& link) {
    return link.waits && !HasHungUp(link.client);
  }));
}

uint64_t SlowProxy::answered() {
  MutexLock lock(mutex_);
  return answered_;
}

}  // namespace kvasir::testing
