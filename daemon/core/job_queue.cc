#include "daemon/core/job_queue.h"

#include <algorithm>
#include <utility>

namespace kvasir::core {

void JobQueue::Push(std::unique_ptr<SequenceJob> job) {
  {
    MutexLock lock(mutex_);
    jobs_[job->place].push_back({next_number_++, std::move(job)});
    count_.fetch_add(1, std::memory_order_relaxed);
  }
  comes_.NotifyOne();
}

std::unique_ptr<SequenceJob> JobQueue::TakeLocked() {
  const auto next = std::min_element(jobs_.begin(), jobs_.end(), [&](const auto& a, const auto& b) {
    mutex_.AssertHeld();
    const uint64_t a_at = served_at_[a.first], b_at = served_at_[b.first];
    if (a_at != b_at) return a_at < b_at;
    return a.second.front().number < b.second.front().number;  // neither has ever been served
  });
  if (next == jobs_.end()) return nullptr;
  served_at_[next->first] = ++turn_;
  std::unique_ptr<SequenceJob> job = std::move(next->second.front().job);
  next->second.pop_front();
  if (next->second.empty()) jobs_.erase(next);
  count_.fetch_sub(1, std::memory_order_relaxed);
  return job;
}

std::unique_ptr<SequenceJob> JobQueue::Take() {
  MutexLock lock(mutex_);
  return TakeLocked();
}

std::unique_ptr<SequenceJob> JobQueue::WaitAndTake() {
  MutexLock lock(mutex_);
  while (!stopped()) {
    if (std::unique_ptr<SequenceJob> job = TakeLocked()) return job;
    comes_.Wait(mutex_);
  }
  return nullptr;
}

std::vector<std::unique_ptr<SequenceJob>> JobQueue::Remove(
    const std::function<bool(const SequenceJob&)>& which) {
  std::vector<std::unique_ptr<SequenceJob>> removed;
  MutexLock lock(mutex_);
  for (auto of = jobs_.begin(); of != jobs_.end();) {
    for (Entry& entry : of->second) {
      if (which(*entry.job)) removed.push_back(std::move(entry.job));
    }
    std::erase_if(of->second, [](const Entry& entry) { return entry.job == nullptr; });
    of = of->second.empty() ? jobs_.erase(of) : std::next(of);
  }
  count_.fetch_sub(removed.size(), std::memory_order_relaxed);
  return removed;
}

void JobQueue::Stop() {
  MutexLock lock(mutex_);
  stopped_.store(true, std::memory_order_relaxed);
  comes_.NotifyAll();
}

}  // namespace kvasir::core
