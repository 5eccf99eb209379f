#include "device/word.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <climits>
#include <ctime>

namespace kvasir::device {
namespace {

// About 10 us: what a wake-up by the kernel costs. A spin of that length at most doubles a wait.
constexpr int kSpins = 400;
constexpr std::chrono::nanoseconds kNap = std::chrono::milliseconds(1);

static_assert(std::endian::native == std::endian::little, "the futex is the word's low half");

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void Wake(DeviceWord& word) {
  // Not FUTEX_PRIVATE_FLAG: who waits may be another process.
  (void)::syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr,
                  nullptr, 0);
}

void Sleep(const DeviceWord& word, uint64_t seen, std::chrono::nanoseconds at_most) {
  const timespec time_out{0, static_cast<long>(at_most.count())};
  (void)::syscall(SYS_futex, reinterpret_cast<const uint32_t*>(&word), FUTEX_WAIT,
                  static_cast<uint32_t>(seen), &time_out, nullptr, 0);
}

}  // namespace

void RaiseWord(DeviceWord& word, uint64_t value) {
  uint64_t seen = word.load(std::memory_order_relaxed);
  // release: pairs with acquire in WaitForWord().
  while (!HasReached(seen, value) &&
         !word.compare_exchange_weak(seen, value, std::memory_order_release,
                                     std::memory_order_relaxed)) {
  }
  Wake(word);
}

void StoreWord(DeviceWord& word, uint64_t value) {
  word.store(value, std::memory_order_release);  // pairs with acquire in WaitForWord()
  Wake(word);
}

bool WaitForWord(const DeviceWord& word, uint64_t at_least, std::chrono::nanoseconds at_most) {
  // acquire: pairs with release in RaiseWord() and StoreWord(), of this process or another.
  for (int spin = 0; spin < kSpins; ++spin) {
    if (HasReached(word.load(std::memory_order_acquire), at_least)) return true;
    Pause();
  }
  const auto until = std::chrono::steady_clock::now() + at_most;
  for (;;) {
    const uint64_t seen = word.load(std::memory_order_acquire);
    if (HasReached(seen, at_least)) return true;
    const auto left = until - std::chrono::steady_clock::now();
    if (left <= left.zero()) return false;
    Sleep(word, seen, std::min<std::chrono::nanoseconds>(left, kNap));
  }
}

}  // namespace kvasir::device
