#include "daemon/shm/prompt_hasher.h"

#include <sys/resource.h>
#include <unistd.h>

#include <optional>
#include <utility>

namespace kvasir {
namespace {

constexpr int kNice = 10;

}  // namespace

PromptHasher::PromptHasher(SharedCore& shared, std::function<void()> done)
    : shared_(shared), done_(std::move(done)) {
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

void PromptHasher::Loop() {
  // Behind what others wait for, where processors are scarce.
  (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNice);
  for (;;) {
    std::optional<Task> task;
    {
      MutexLock lock(mutex_);
      while (tenants_.empty() && !stop_) work_.Wait(mutex_);
      if (stop_) return;
      const size_t place = tenants_.front();
      tenants_.pop_front();
      std::deque<Task>& tasks = tasks_[place];
      task.emplace(std::move(tasks.front()));
      tasks.pop_front();
      if (!tasks.empty()) tenants_.push_back(place);
    }
    task->status = task->command.Prepare(shared_, task->token);
    {
      MutexLock lock(mutex_);
      hashed_.push_back(*std::move(task));
    }
    done_();
  }
}

}  // namespace kvasir
