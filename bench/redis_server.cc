#include "bench/redis_server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

#include <filesystem>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"

#include <fmt/format.h>
#include <spawn.h>
#include <stdlib.h>

extern char** environ;

namespace kvasir::bench {
namespace {

constexpr const char* kProgram = "/usr/bin/redis-check-rdb";

// True when `fd` said `text`, false at its end.
bool ReadUntil(int fd, const std::string& text) {
  std::string seen;
  char buffer[512];
  while (seen.find(text) == std::string::npos) {
    const ssize_t got = ::read(fd, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    seen.append(buffer, static_cast<size_t>(got));
  }
  return true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RedisServer>> RedisServer::Start(const Options& options) {
  if (::access(kProgram, X_OK) != 0) return NotFound("no Redis here: path={}", kProgram);
  std::unique_ptr<RedisServer> server(new RedisServer);
  server->options_ = options;
  std::string folder = (std::filesystem::temp_directory_path() / "kvasir-redis-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) return ErrnoStatus(errno, "mkdtemp");
  server->folder_ = folder;
  std::error_code error;
  std::filesystem::create_symlink(kProgram, folder + "/redis-server", error);
  if (error) return ErrnoStatus(error.value(), "symlink of redis-server");
  KVASIR_RETURN_IF_ERROR(server->Spawn());
  return server;
}

absl::Status RedisServer::Spawn() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe2");
  output_ = UniqueFd(ends[0]);
  UniqueFd output_end(ends[1]);
  std::vector<std::string> words = {folder_ + "/redis-server",
                                    "--port",
                                    "0",
                                    "--unixsocket",
                                    socket(),
                                    "--dir",
                                    folder_,
                                    "--save",
                                    "",
                                    "--appendonly",
                                    "no",
                                    "--maxmemory",
                                    fmt::format("{}", options_.maxmemory_bytes),
                                    "--maxmemory-policy",
                                    "noeviction"};
  if (!options_.password.empty()) {
    words.insert(words.end(), {"--requirepass", options_.password});
  }
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, output_end.get(), STDOUT_FILENO);
  const int error =
      ::posix_spawn(&pid_, words[0].c_str(), &actions, nullptr, pointers.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return ErrnoStatus(error, fmt::format("posix_spawn of {}", words[0]));
  output_end.reset();  // so that its death ends the output
  if (ReadUntil(output_.get(), "ready to accept connections")) return absl::OkStatus();
  Kill();
  return Unavailable("Redis did not start: folder={}", folder_);
}

void RedisServer::Signal(int number) const {
  if (pid_ > 0) (void)::kill(pid_, number);
}

void RedisServer::Kill() {
  if (pid_ <= 0) return;
  Signal(SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
}

absl::Status RedisServer::Restart() {
  Kill();
  return Spawn();
}

RedisServer::~RedisServer() {
  Kill();
  std::error_code ignored;
  if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
}

}  // namespace kvasir::bench
