// RedisServer: a Redis server of a test's or benchmark's own, on a Unix socket in its own folder,
// without persistence. Not thread-safe. Killed and its folder removed when destroyed.
//
// Debian's redis-tools holds the server's program under another name and picks it by argv[0], so
// nothing has to be installed that starts a service.
#ifndef KVASIR_BENCH_REDIS_SERVER_H_
#define KVASIR_BENCH_REDIS_SERVER_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/posix.h"

namespace kvasir::bench {

class RedisServer {
 public:
  struct Options {
    std::string password = {};     // empty: none
    uint64_t maxmemory_bytes = 0;  // 0: no limit; else a write beyond it gets OOM
  };

  // Returns when the server answers. Errors: kNotFound without redis-tools.
  static absl::StatusOr<std::unique_ptr<RedisServer>> Start(const Options& options);
  ~RedisServer();
  RedisServer(const RedisServer&) = delete;
  RedisServer& operator=(const RedisServer&) = delete;

  std::string socket() const { return folder_ + "/socket"; }

  void Kill();             // SIGKILL, and waits for its end
  absl::Status Restart();  // empty, on the same socket; kills it first
  void Signal(int number) const;

 private:
  RedisServer() = default;
  absl::Status Spawn();

  Options options_;
  std::string folder_;
  pid_t pid_ = -1;
  UniqueFd output_;
};

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_REDIS_SERVER_H_
