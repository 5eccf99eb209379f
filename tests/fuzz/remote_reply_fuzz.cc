// A Redis server's answers: any bytes are refused or read, within the bounds that are promised. The
// server is this program's own end of a Unix socket, which has said all and hung up.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "allocator/tier/remote_connection.h"
#include "allocator/tier/tier.h"

#include <hiredis/hiredis.h>

namespace {

constexpr size_t kAnswerBytesMax = 64
                                   << 10;  // fits a socket's buffer, so that one thread is enough
constexpr size_t kRepliesMax = 64;
constexpr size_t kTextMax = 200;

void Expect(bool holds) {
  if (!holds) std::abort();
}

class Server {
 public:
  Server() : path_("/tmp/kvasir-remote-reply-fuzz-" + std::to_string(::getpid()) + ".sock") {
    listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
    (void)::unlink(path_.c_str());
    Expect(::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    Expect(::listen(listener_, 4) == 0);
  }
  ~Server() {
    ::close(listener_);
    (void)::unlink(path_.c_str());
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // A connection to a server that says this.
  std::unique_ptr<kvasir::RemoteConnection> Say(const uint8_t* data, size_t size) {
    kvasir::RemoteServer server;
    server.unix_path = path_;
    auto connection = kvasir::RemoteConnection::Connect(server, std::chrono::seconds(5));
    Expect(connection.ok());
    const int socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    const auto bytes = static_cast<ssize_t>(size);
    Expect(socket >= 0 && ::send(socket, data, size, MSG_NOSIGNAL | MSG_DONTWAIT) == bytes);
    ::close(socket);
    return *std::move(connection);
  }

 private:
  const std::string path_;
  int listener_ = -1;
};

// Everything of a tree is read: a sanitizer sees what is not there.
size_t Count(const redisReply& reply) {
  size_t count = reply.str == nullptr ? 1 : 1 + reply.len;
  for (size_t i = 0; i < reply.elements; ++i) count += Count(*reply.element[i]);
  return count;
}

void ReadReplies(kvasir::RemoteConnection& connection, kvasir::Instant deadline) {
  std::array<std::byte, 256> some{};
  for (size_t i = 0; i < kRepliesMax; ++i) {
    const absl::StatusOr<kvasir::RemoteReply> reply = connection.ReadReply(deadline);
    if (!reply.ok()) return;
    Expect(reply->text.size() <= kTextMax);
    Expect(std::all_of(reply->text.begin(), reply->text.end(),
                       [](char c) { return c >= ' ' && c <= '~'; }));
    (void)kvasir::RemoteErrorStatus(reply->text);
    if (reply->kind != kvasir::RemoteReply::Kind::kBulk) continue;
    const size_t head = std::min<uint64_t>(reply->bytes, some.size());
    if (!connection.TakeAll(std::span(some).first(head), deadline).ok()) return;
    if (!connection.Skip(reply->bytes - head, deadline).ok()) return;
    if (!connection.EndBulk(deadline).ok()) return;
  }
}

}  // namespace

// The first byte chooses replies, one by one, or a tree.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Server server;
  if (size < 2 || size > kAnswerBytesMax) return 0;
  const std::unique_ptr<kvasir::RemoteConnection> connection = server.Say(data + 1, size - 1);
  // Far away: the server has hung up, so that nothing waits for it.
  const kvasir::Instant deadline = kvasir::SystemClock().Now() + std::chrono::seconds(20);
  if (data[0] % 2 == 0) {
    ReadReplies(*connection, deadline);
  } else {
    const auto tree = connection->ReadTree(deadline);
    if (tree.ok()) Expect(Count(**tree) > 0);
  }
  return 0;
}
