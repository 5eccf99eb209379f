// memcached on a Unix socket, by its text protocol.
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "bench/peer.h"
#include "bench/peer_text.h"

#include <fmt/format.h>
#include <spawn.h>
#include <stdlib.h>

extern char** environ;

namespace kvasir::bench {
namespace {

constexpr const char* kProgram = "/usr/bin/memcached";

// A server of this bench's own. Killed, and its folder removed, when destroyed.
class MemcachedServer {
 public:
  static absl::StatusOr<std::unique_ptr<MemcachedServer>> Start() {
    if (::access(kProgram, X_OK) != 0) return NotFound("no memcached here: path={}", kProgram);
    std::unique_ptr<MemcachedServer> server(new MemcachedServer);
    std::string folder =
        (std::filesystem::temp_directory_path() / "kvasir-memcached-XXXXXX").string();
    if (::mkdtemp(folder.data()) == nullptr) return ErrnoStatus(errno, "mkdtemp");
    server->folder_ = folder;
    // Values of 2 MiB, and room for all of them; -u is needed where root runs it.
    std::vector<std::string> words = {
        kProgram, "-s", server->socket(), "-m", "3072", "-I", "4m", "-t", "2", "-u", "root"};
    if (::geteuid() != 0) words.resize(words.size() - 2);
    std::vector<char*> pointers;
    for (std::string& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    const int error =
        ::posix_spawn(&server->pid_, kProgram, nullptr, nullptr, pointers.data(), environ);
    if (error != 0) return ErrnoStatus(error, "posix_spawn of memcached");
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!TextSocket::Connect(server->socket()).ok()) {
      if (std::chrono::steady_clock::now() > deadline) {
        return Unavailable("memcached did not start: folder={}", folder);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return server;
  }
  ~MemcachedServer() {
    if (pid_ > 0) {
      (void)::kill(pid_, SIGKILL);
      while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
      }
    }
    std::error_code ignored;
    if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
  }
  std::string socket() const { return folder_ + "/socket"; }

 private:
  MemcachedServer() = default;
  std::string folder_;
  pid_t pid_ = -1;
};

absl::Status Expect(TextSocket& socket, std::string_view expected) {
  KVASIR_ASSIGN_OR_RETURN(const std::string_view line, socket.ReadLine());
  if (line.substr(0, expected.size()) == expected) return absl::OkStatus();
  return NotFound("memcached says something else: answer={} expected={}", line, expected);
}

constexpr TextProtocol kProtocol = {
    .get = [](const std::string& key) { return fmt::format("get {}\r\n", key); },
    .read_value_head = [](TextSocket& socket, uint64_t) { return Expect(socket, "VALUE "); },
    .read_value_tail =
        [](TextSocket& socket) {
          KVASIR_RETURN_IF_ERROR(socket.ReadLineEnd());
          return Expect(socket, "END");
        },
    .set = [](const std::string& key,
              uint64_t bytes) { return fmt::format("set {} 0 0 {}\r\n", key, bytes); },
    .read_stored = [](TextSocket& socket) { return Expect(socket, "STORED"); },
    // A meta get without flags: whether the key is there, and no value.
    .look = [](const std::string& key) { return fmt::format("mg {}\r\n", key); },
    .read_found = [](TextSocket& socket) { return Expect(socket, "HD"); },
};

}  // namespace

absl::StatusOr<std::unique_ptr<Peer>> StartMemcached(const PeerData& data) {
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<MemcachedServer> server, MemcachedServer::Start());
  const std::string path = server->socket();
  return TextPeer::Fill(kProtocol, path, std::shared_ptr<MemcachedServer>(std::move(server)), data);
}

absl::StatusOr<std::unique_ptr<Peer>> JoinMemcached(const std::string& address) {
  return TextPeer::Join(kProtocol, address);
}

}  // namespace kvasir::bench
