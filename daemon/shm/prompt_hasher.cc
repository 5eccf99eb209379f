#include "daemon/shm/prompt_hasher.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/clock.h"

namespace kvasir {
namespace {

constexpr int kNice = 10;

}  // namespace

PromptHasher::PromptHasher(SharedCore& shared, TimeShares& shares, std::function<void()> done)
    : shared_(shared), shares_(shares), done_(std::move(done)) {
  thread_ = std::thread([this] { Loop(); });
}

PromptHasher::~PromptHasher() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
    work_.NotifyAll();
  }
  thread_.join();
}

void PromptHasher::Add(Task task) {
  MutexLock lock(mutex_);
  std::deque<Task>& tasks = tasks_[task.place];
  if (tasks.empty()) tenants_.push_back(task.place);
  tasks.push_back(std::move(task));
  work_.NotifyOne();
}

std::vector<PromptHasher::Task> PromptHasher::TakeDone() {
  MutexLock lock(mutex_);
  return std::exchange(hashed_, {});
}

std::optional<PromptHasher::Task> PromptHasher::Take(Instant* until) {
  *until = Instant::max();
  const Instant now = SystemClock().Now();
  for (size_t i = tenants_.size(); i > 0; --i) {
    const size_t place = tenants_.front();
    tenants_.pop_front();
    const Instant ready = shares_.ReadyAt(place, now);
    if (ready > now) {
      *until = std::min(*until, ready);
      tenants_.push_back(place);
      continue;
    }
    std::deque<Task>& tasks = tasks_[place];
    std::optional<Task> task(std::move(tasks.front()));
    tasks.pop_front();
    if (!tasks.empty()) tenants_.push_back(place);
    return task;
  }
  return std::nullopt;
}

void PromptHasher::Loop() {
  // Behind what others wait for, where processors are scarce.
  (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNice);
  for (;;) {
    std::optional<Task> task;
    {
      MutexLock lock(mutex_);
      for (Instant until; !stop_ && !(task = Take(&until));) {
        if (until == Instant::max()) {
          work_.Wait(mutex_);
        } else {
          (void)work_.WaitUntil(mutex_, until);
        }
      }
      if (stop_) return;
    }
    const Instant::duration before = ThreadTime();
    task->status = task->command.Prepare(shared_, task->token);
    shares_.Charge(task->place, SystemClock().Now(), ThreadTime() - before);
    {
      MutexLock lock(mutex_);
      hashed_.push_back(*std::move(task));
    }
    done_();
  }
}

}  // namespace kvasir
