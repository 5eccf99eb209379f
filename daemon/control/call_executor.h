// CallExecutor: runs gRPC calls, tenants in turn.
//
// A call is a row of tasks, each of which runs on one of a few threads when its caller has a turn;
// between them, while it waits for progress of the core, and while its answer waits for a reader,
// it has no thread. So the number of calls never makes threads. At most kRunning tasks of a caller
// run at a time, so that however many calls one tenant makes, the others meet no more than those of
// it in front of the core's lock; no caller gets more processor time than its share while others
// are there; and at most so many calls of one are in the daemon at all. Long tasks, as decoding and
// hashing a prompt of a million tokens, have threads of their own, behind all others where
// processors are scarce.
//
// Thread-safe.
#ifndef KVASIR_DAEMON_CONTROL_CALL_EXECUTOR_H_
#define KVASIR_DAEMON_CONTROL_CALL_EXECUTOR_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <absl/functional/any_invocable.h>
#include <absl/status/statusor.h>

#include "base/clock.h"
#include "base/mutex.h"
#include "daemon/shared_core.h"
#include "daemon/time_shares.h"

namespace kvasir {

class CallExecutor {
 public:
  // One runs while another wakes up.
  static constexpr uint32_t kRunning = 2;
  using Task = absl::AnyInvocable<void()>;

  struct Options {
    size_t callers = 0;      // numbers below: the tenants by their place, then others
    uint32_t calls_max = 0;  // of a caller, inside
    uint32_t threads = 0;    // more than kRunning, or one caller has them all at times; half as
                             // many, at least one, run what is long
  };
  // `progress` and `shares` must outlive it.
  CallExecutor(Options options, Progress& progress, TimeShares& shares);
  // Tasks that wait then are dropped. Joins its threads.
  ~CallExecutor();
  CallExecutor(const CallExecutor&) = delete;
  CallExecutor& operator=(const CallExecutor&) = delete;

  // A call that is in the daemon, until it is destroyed.
  class Place {
   public:
    Place(Place&& other) noexcept
        : executor_(std::exchange(other.executor_, nullptr)), caller_(other.caller_) {}
    Place& operator=(Place&&) = delete;
    ~Place() {
      if (executor_ != nullptr) executor_->Leave(caller_);
    }
    size_t caller() const { return caller_; }

   private:
    friend class CallExecutor;
    Place(CallExecutor& executor, size_t caller) : executor_(&executor), caller_(caller) {}
    CallExecutor* executor_;
    size_t caller_;
  };
  // Counts what gRPC itself does for a call as its caller's time, also where it is refused. Errors:
  // kResourceExhausted (limits.calls_per_tenant_max), with a Shortage.
  absl::StatusOr<Place> Enter(size_t caller);

  // Of a task: kShort for what others may wait for.
  enum Length : uint8_t { kShort, kLong };
  void Run(size_t caller, Task task, Length length = kShort);
  // A short one: on this thread if nobody has to wait for it, since the caller is alone
  // (TimeShares) and no short task runs or is ready; else as Run(). A thread's wake-up, some 5 to
  // 20 us, is more than most calls take. So at most one thread of those who call this is busy with
  // a task, and where there are several callers they take turns as ever.
  void RunHere(size_t caller, Task task);

  // Runs it when there was progress since `seen` and it is `not_before`, or when it is `at_latest`,
  // or when `cancelled` is set, whichever comes first.
  struct Wait {
    uint64_t seen = 0;
    Instant not_before{}, at_latest{};
    const std::atomic<bool>* cancelled = nullptr;  // never null
  };
  void RunAfter(size_t caller, const Wait& wait, Task task);
  // `cancelled` has been set: what waits with it waits no longer.
  void NoteCancelled(const std::atomic<bool>* cancelled);

  // Calls that were refused for their number, and those that are in now.
  uint64_t refused(size_t caller) const;
  uint32_t inside(size_t caller) const;

 private:
  struct Caller {
    uint32_t inside = 0;
    uint64_t refused = 0;
    struct Tasks {
      std::deque<Task> ready;
      uint32_t running = 0;
      bool has_turn = false;  // it is in turns
    };
    std::array<Tasks, 2> tasks;  // by length
  };
  struct Waiting {
    size_t caller = 0;
    Wait wait;
    Task task;
  };

  void Leave(size_t caller);
  void Loop(Length length);
  // Runs what was taken, and counts it.
  void RunTaken(size_t caller, Task task, Length length);
  void Watch();
  // The next task whose caller may run it, or until when there is none.
  std::optional<std::pair<size_t, Task>> Take(Length length, Instant* until)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void GiveTurn(size_t caller, Length length) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunLocked(size_t caller, Task task, Length length = kShort)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  Progress& progress_;
  TimeShares& shares_;
  mutable Mutex mutex_;          // behind the core's, before Progress's
  std::array<CondVar, 2> work_;  // by length
  std::vector<Caller> callers_ ABSL_GUARDED_BY(mutex_);
  // By length: callers with tasks that may run.
  std::array<std::deque<size_t>, 2> turns_ ABSL_GUARDED_BY(mutex_);
  uint32_t short_running_ ABSL_GUARDED_BY(mutex_) = 0;  // tasks, of all callers
  std::list<Waiting> waiting_ ABSL_GUARDED_BY(mutex_);
  CondVar waits_;                                    // there is one that waits, or stop_
  Instant watched_until_ ABSL_GUARDED_BY(mutex_){};  // what Watch() sleeps to at most
  std::atomic<bool> look_again_ = false;             // it is to look before that
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_CALL_EXECUTOR_H_
