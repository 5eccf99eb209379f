// RingServer: serves the commands that engines submit in shared memory.
//
// One thread, epoll over the sessions' doorbells. A session whose ring is empty costs nothing,
// however many there are: it is looked at when its doorbell rings. Each session has a turn at a
// time (ring/submission_consumer.h). A command that has to wait stays with its session until
// somebody makes progress or its deadline is over; how many those are is bounded by the session's
// completion ring. Wrong values end the session.
//
// Below it is the same core as below gRPC: a command does what the call of its name does.
#ifndef KVASIR_DAEMON_SHM_RING_SERVER_H_
#define KVASIR_DAEMON_SHM_RING_SERVER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include <absl/container/flat_hash_map.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/mutex.h"
#include "base/posix.h"
#include "daemon/core/session.h"
#include "daemon/shared_core.h"
#include "daemon/shm/ring_command.h"
#include "daemon/shm/ring_ends.h"

namespace kvasir {

// Thread-safe. Joins its thread when destroyed.
class RingServer {
 public:
  struct Options {
    std::chrono::milliseconds wait_max{60'000};  // of a command, whatever it asks for
    std::function<void()> extents_taken;         // the pool's stock may have shrunk
  };

  // `shared` must outlive it. Errors: the kernel's.
  static absl::StatusOr<std::unique_ptr<RingServer>> Start(SharedCore& shared, Options options);
  ~RingServer();
  RingServer(const RingServer&) = delete;
  RingServer& operator=(const RingServer&) = delete;

  // Serves the session from now on. `ends` and `doorbell` are borrowed until Remove(). Errors: the
  // kernel's.
  absl::Status Add(uint32_t session_id, const core::SessionToken& token, int doorbell,
                   RingEnds& ends);
  // Neither is touched any more when it returns. Not under the core's lock.
  void Remove(uint32_t session_id);

 private:
  struct Client {
    core::SessionToken token;
    int doorbell = -1;
    RingEnds* ends = nullptr;
    std::deque<RingCommand> waiting;
    bool ended = false;
  };

  RingServer(SharedCore& shared, Options options) : shared_(shared), options_(std::move(options)) {}

  void Loop();
  int TimeoutMs() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Serve(uint32_t session_id, Client& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Runs what waits once more, in every session in which something does.
  void LookAtWaiting() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // True: it is completed.
  bool Run(Client& client, RingCommand& command) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Has progress of others wake this thread while a command waits.
  void Watch() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  SharedCore& shared_;
  const Options options_;
  UniqueFd epoll_, wake_;
  Mutex mutex_;  // before the core's
  absl::flat_hash_map<uint32_t, std::unique_ptr<Client>> clients_ ABSL_GUARDED_BY(mutex_);
  // Of them, by id: a turn is due; a command waits.
  std::set<uint32_t> ready_ ABSL_GUARDED_BY(mutex_), waiting_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::byte> buffer_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_SHM_RING_SERVER_H_
