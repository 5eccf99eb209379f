#include "daemon/control/call_executor.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "base/check.h"
#include "base/error.h"
#include "base/shortage.h"
#include "base/thread_slice.h"

namespace kvasir {
namespace {

constexpr std::chrono::milliseconds kRetry{100};
// What a call costs threads of gRPC's, about: what a flood of the shortest calls had them use.
constexpr std::chrono::microseconds kCallTime{80};
constexpr int kNiceOfLong = 10;

}  // namespace

CallExecutor::CallExecutor(Options options, Progress& progress, TimeShares& shares)
    : options_(options), progress_(progress), shares_(shares), callers_(options.callers) {
  for (uint32_t i = 0; i < options_.threads; ++i) threads_.emplace_back([this] { Loop(kShort); });
  for (uint32_t i = 0; i < std::max(1U, options_.threads / 2); ++i) {
    threads_.emplace_back([this] {
      SetThreadSlice(ThreadSlice::kOrdinary);
      (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNiceOfLong);
      Loop(kLong);
    });
  }
  threads_.emplace_back([this] { Watch(); });
}

CallExecutor::~CallExecutor() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
  }
  for (CondVar& work : work_) work.NotifyAll();
  waits_.NotifyAll();
  look_again_ = true;
  progress_.Interrupt();
  for (std::thread& thread : threads_) thread.join();
}

absl::StatusOr<CallExecutor::Place> CallExecutor::Enter(size_t caller) {
  KVASIR_CHECK(caller < options_.callers, "unknown caller: {}", caller);
  shares_.Charge(caller, SystemClock().Now(), kCallTime);
  MutexLock lock(mutex_);
  Caller& one = callers_[caller];
  if (one.inside >= options_.calls_max) {
    ++one.refused;
    return WithShortage(
        ResourceExhausted("tenant has too many calls under way: limits.calls_per_tenant_max={}",
                          options_.calls_max),
        {"limits.calls_per_tenant_max", 1, "own calls", kRetry});
  }
  ++one.inside;
  return Place(*this, caller);
}

void CallExecutor::Leave(size_t caller) {
  MutexLock lock(mutex_);
  --callers_[caller].inside;
}

void CallExecutor::GiveTurn(size_t caller, Length length) {
  Caller::Tasks& tasks = callers_[caller].tasks[length];
  if (tasks.has_turn || tasks.ready.empty() || tasks.running >= kRunning) return;
  tasks.has_turn = true;
  turns_[length].push_back(caller);
  work_[length].NotifyOne();
}

void CallExecutor::RunLocked(size_t caller, Task task, Length length) {
  callers_[caller].tasks[length].ready.push_back(std::move(task));
  GiveTurn(caller, length);
}

void CallExecutor::Run(size_t caller, Task task, Length length) {
  MutexLock lock(mutex_);
  RunLocked(caller, std::move(task), length);
}

void CallExecutor::RunHere(size_t caller, Task task) {
  {
    MutexLock lock(mutex_);
    const bool idle = short_running_ == 0 && turns_[kShort].empty();
    if (stop_ || !idle || !shares_.IsAlone(caller, SystemClock().Now())) {
      RunLocked(caller, std::move(task));
      return;
    }
    ++short_running_;
    ++callers_[caller].tasks[kShort].running;
  }
  RunTaken(caller, std::move(task), kShort);
}

void CallExecutor::RunAfter(size_t caller, const Wait& wait, Task task) {
  MutexLock lock(mutex_);
  const bool progressed = progress_.seen() != wait.seen;
  if (*wait.cancelled || (progressed && SystemClock().Now() >= wait.not_before)) {
    RunLocked(caller, std::move(task));
    return;
  }
  waiting_.push_back({caller, wait, std::move(task)});
  if (waiting_.size() == 1) waits_.NotifyOne();
  if (progressed || wait.at_latest < watched_until_) {
    look_again_ = true;
    progress_.Interrupt();
  }
}

void CallExecutor::NoteCancelled(const std::atomic<bool>* cancelled) {
  MutexLock lock(mutex_);
  for (auto one = waiting_.begin(); one != waiting_.end(); ++one) {
    if (one->wait.cancelled != cancelled) continue;
    RunLocked(one->caller, std::move(one->task));
    waiting_.erase(one);
    return;
  }
}

std::optional<std::pair<size_t, CallExecutor::Task>> CallExecutor::Take(Length length,
                                                                        Instant* until) {
  *until = Instant::max();
  const Instant now = SystemClock().Now();
  std::deque<size_t>& turns = turns_[length];
  for (size_t i = turns.size(); i > 0; --i) {
    const size_t caller = turns.front();
    turns.pop_front();
    const Instant ready = shares_.ReadyAt(caller, now);
    if (ready > now) {
      *until = std::min(*until, ready);
      turns.push_back(caller);
      continue;
    }
    Caller::Tasks& tasks = callers_[caller].tasks[length];
    Task task = std::move(tasks.ready.front());
    tasks.ready.pop_front();
    ++tasks.running;
    if (length == kShort) ++short_running_;
    tasks.has_turn = false;
    GiveTurn(caller, length);
    return std::make_pair(caller, std::move(task));
  }
  return std::nullopt;
}

void CallExecutor::Loop(Length length) {
  for (;;) {
    std::optional<std::pair<size_t, Task>> next;
    {
      MutexLock lock(mutex_);
      for (Instant until; !(next = Take(length, &until));) {
        if (stop_) return;
        if (until == Instant::max()) {
          work_[length].Wait(mutex_);
        } else {
          (void)work_[length].WaitUntil(mutex_, until);
        }
      }
    }
    RunTaken(next->first, std::move(next->second), length);
  }
}

void CallExecutor::RunTaken(size_t caller, Task task, Length length) {
  const Instant::duration before = ThreadTime();
  task();
  task = nullptr;
  shares_.Charge(caller, SystemClock().Now(), ThreadTime() - before);
  MutexLock lock(mutex_);
  if (length == kShort) --short_running_;
  --callers_[caller].tasks[length].running;
  GiveTurn(caller, length);
}

void CallExecutor::Watch() {
  for (;;) {
    uint64_t seen = 0;
    Instant until = Instant::max();
    {
      MutexLock lock(mutex_);
      while (waiting_.empty() && !stop_) waits_.Wait(mutex_);
      if (stop_) return;
      look_again_ = false;
      seen = progress_.seen();
      const Instant now = SystemClock().Now();
      for (auto one = waiting_.begin(); one != waiting_.end();) {
        const bool progressed = one->wait.seen != seen;
        if (now >= one->wait.at_latest || (progressed && now >= one->wait.not_before)) {
          RunLocked(one->caller, std::move(one->task));
          one = waiting_.erase(one);
          continue;
        }
        until = std::min(until, progressed ? std::min(one->wait.not_before, one->wait.at_latest)
                                           : one->wait.at_latest);
        ++one;
      }
      watched_until_ = until;
      if (waiting_.empty()) continue;
    }
    progress_.WaitPast(seen, until, look_again_);
  }
}

uint64_t CallExecutor::refused(size_t caller) const {
  MutexLock lock(mutex_);
  return callers_[caller].refused;
}

uint32_t CallExecutor::inside(size_t caller) const {
  MutexLock lock(mutex_);
  return callers_[caller].inside;
}

}  // namespace kvasir
