// ScriptedServer: listens on a Unix socket and answers each connection's first request with fixed
// bytes, whole or in pieces, and hangs up.
#ifndef KVASIR_TESTS_TIER_SCRIPTED_SERVER_H_
#define KVASIR_TESTS_TIER_SCRIPTED_SERVER_H_

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "base/posix.h"
#include "tests/tier/tier_places.h"

namespace kvasir::testing {

class ScriptedServer {
 public:
  // `piece`: bytes of each send; 0: all at once.
  ScriptedServer(std::string answer, size_t piece)
      : answer_(std::move(answer)), piece_(piece == 0 ? answer_.size() : piece) {
    listener_ = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::copy(socket_.begin(), socket_.end(), address.sun_path);
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(::listen(listener_.get(), 8), 0);
    thread_ = std::thread([this] { Serve(); });
  }
  ~ScriptedServer() {
    (void)::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
  }
  ScriptedServer(const ScriptedServer&) = delete;
  ScriptedServer& operator=(const ScriptedServer&) = delete;

  const std::string& socket() const { return socket_; }

 private:
  void Serve() {
    while (true) {
      const UniqueFd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!peer) return;
      char request[4096];
      if (::recv(peer.get(), request, sizeof(request), 0) <= 0) continue;
      for (size_t at = 0; at < answer_.size(); at += piece_) {
        const size_t bytes = std::min(piece_, answer_.size() - at);
        if (::send(peer.get(), answer_.data() + at, bytes, MSG_NOSIGNAL) < 0) break;
      }
    }
  }

  TempFolder folder_;
  const std::string socket_ = folder_.path() + "/socket";
  const std::string answer_;
  const size_t piece_;
  UniqueFd listener_;
  std::thread thread_;
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_TIER_SCRIPTED_SERVER_H_
