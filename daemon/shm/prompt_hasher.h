// PromptHasher: hashes the long prompts of ring commands on a thread of its own, so that the one
// that serves the rings is not kept by them. Tenants in turn, a prompt each, within their shares of
// time.
#ifndef KVASIR_DAEMON_SHM_PROMPT_HASHER_H_
#define KVASIR_DAEMON_SHM_PROMPT_HASHER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <thread>
#include <vector>

#include <absl/container/flat_hash_map.h>
#include <absl/status/status.h>

#include "base/mutex.h"
#include "daemon/core/session.h"
#include "daemon/shared_core.h"
#include "daemon/shm/ring_command.h"
#include "daemon/time_shares.h"

namespace kvasir {

// Thread-safe. Joins its thread when destroyed; what is left then is dropped.
class PromptHasher {
 public:
  struct Task {
    uint32_t session_id = 0;
    size_t place = 0;  // of its tenant
    core::SessionToken token;
    RingCommand command;  // it has its payload
    absl::Status status;  // what Prepare() said
  };

  // `done` is called after each, without any lock. `shared` and `shares` must outlive it.
  PromptHasher(SharedCore& shared, TimeShares& shares, std::function<void()> done);
  ~PromptHasher();
  PromptHasher(const PromptHasher&) = delete;
  PromptHasher& operator=(const PromptHasher&) = delete;

  // How many of a session are here is bounded by its completion ring.
  void Add(Task task);
  // Those that are done. Their sessions may have gone.
  std::vector<Task> TakeDone();

 private:
  void Loop();
  // The next one whose tenant may have it, or until when there is none.
  std::optional<Task> Take(Instant* until) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  SharedCore& shared_;
  TimeShares& shares_;
  const std::function<void()> done_;
  Mutex mutex_;
  CondVar work_;
  absl::flat_hash_map<size_t, std::deque<Task>> tasks_ ABSL_GUARDED_BY(mutex_);  // by tenant
  std::deque<size_t> tenants_ ABSL_GUARDED_BY(mutex_);  // that have any, in their turn
  std::vector<Task> hashed_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_SHM_PROMPT_HASHER_H_
