#include "base/mutex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <ctime>

namespace kvasir {

void Mutex::LockLater() {
  waiting_.fetch_add(1, std::memory_order_relaxed);
  mutex_.lock();
  waiting_.fetch_sub(1, std::memory_order_relaxed);
  came_.fetch_add(1);
  if (letting_.load() == 0) return;
  (void)::syscall(SYS_futex, &came_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

void Mutex::LetOthers(std::chrono::microseconds most) {
  if (waiting_.load(std::memory_order_relaxed) == 0) return;
  const timespec time_out{most.count() / 1'000'000, most.count() % 1'000'000 * 1000};
  letting_.fetch_add(1);
  const uint32_t came = came_.load();
  if (waiting_.load() > 0) {
    (void)::syscall(SYS_futex, &came_, FUTEX_WAIT_PRIVATE, came, &time_out, nullptr, 0);
  }
  letting_.fetch_sub(1);
}

}  // namespace kvasir
