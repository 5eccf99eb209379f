// RingServer: a thread that serves the commands that engines submit in shared memory.
//
// It sleeps in epoll over the sessions' doorbells. A session whose ring is empty costs nothing,
// however many there are: it is looked at when its doorbell rings. Tenants have their turns one
// after the other, and in each of those one session of the tenant has one of its own
// (ring/submission_consumer.h): so a tenant waits for one session of each other tenant at most,
// however many those have, and one that has used up its share of time (daemon/time_shares.h) has
// none before that has come in. A command that has to wait stays with its session until somebody
// makes progress or its deadline is over; how many those are is bounded by the session's completion
// ring. Wrong values end the session.
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
#include <optional>
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
#include "daemon/shm/prompt_hasher.h"
#include "daemon/shm/ring_command.h"
#include "daemon/shm/ring_ends.h"
#include "daemon/time_shares.h"

namespace kvasir {

// Thread-safe. Joins its thread when destroyed.
class RingServer {
 public:
  struct Options {
    std::chrono::milliseconds wait_max{60'000};  // of a command, whatever it asks for
    std::function<void()> extents_taken;         // the pool's stock may have shrunk
    TimeShares* shares = nullptr;                // by the tenants' places; must outlive the server
  };

  // `shared` must outlive it. Errors: the kernel's.
  static absl::StatusOr<std::unique_ptr<RingServer>> Start(SharedCore& shared, Options options);
  ~RingServer();
  RingServer(const RingServer&) = delete;
  RingServer& operator=(const RingServer&) = delete;

  // Serves the session of the tenant at this place from now on. `ends` and `doorbell` are borrowed
  // until Remove(). Errors: the kernel's.
  absl::Status Add(uint32_t session_id, size_t place, const core::SessionToken& token, int doorbell,
                   RingEnds& ends);
  // Neither is touched any more when it returns. Not under the core's lock.
  void Remove(uint32_t session_id);

 private:
  struct Client {
    uint32_t id = 0;
    size_t place = 0;  // of its tenant
    core::SessionToken token;
    int doorbell = -1;
    RingEnds* ends = nullptr;
    std::deque<RingCommand> waiting;
    uint64_t seen = 0;      // of progress, when the commands that wait last ran
    bool has_turn = false;  // it is in turns_
    bool rings = false;     // there may be commands
    bool looks = false;     // those that wait are to run once more
    bool ended = false;
  };

  RingServer(SharedCore& shared, Options options) : shared_(shared), options_(std::move(options)) {}

  void Loop();
  int TimeoutMs() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A turn of one session of every tenant that has any to give.
  void ServeTurns() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void GiveTurn(Client& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Serve(Client& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Has what waits run once more, in every session in which something does; where there was no
  // progress since, only if `always`.
  void LookAtWaiting(bool always) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Runs the long commands that are prepared.
  void RunHashed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunOrKeep(Client& client, RingCommand command) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunWaiting(Client& client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // True: it is completed.
  bool Run(Client& client, RingCommand& command) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Under the share of the client's tenant alone. Nothing: it needs the whole lock.
  std::optional<bool> RunInShare(Client& client, RingCommand& command)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Has progress of others wake this thread while a command waits.
  void Watch() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  SharedCore& shared_;
  const Options options_;
  UniqueFd epoll_, wake_;
  std::optional<Progress::Watcher> watcher_;  // by wake_
  Mutex mutex_;                               // before the core's
  absl::flat_hash_map<uint32_t, std::unique_ptr<Client>> clients_ ABSL_GUARDED_BY(mutex_);
  // Sessions that have a turn due, by tenant, and the tenants that have any, in their order.
  absl::flat_hash_map<size_t, std::deque<uint32_t>> turns_ ABSL_GUARDED_BY(mutex_);
  std::deque<size_t> tenants_ ABSL_GUARDED_BY(mutex_);
  std::set<uint32_t> waiting_ ABSL_GUARDED_BY(mutex_);  // by id: a command waits
  std::vector<std::byte> buffer_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
  std::unique_ptr<PromptHasher> hasher_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_SHM_RING_SERVER_H_
