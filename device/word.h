// DeviceWord by the processor: raise it, look at it, wait for it. Works across processes that map
// the same page; nothing here needs a device. Thread-safe.
#ifndef KVASIR_DEVICE_WORD_H_
#define KVASIR_DEVICE_WORD_H_

#include <chrono>
#include <cstdint>

#include "device/device.h"

namespace kvasir::device {

// As streams compare: a word may wrap, and what is behind by less than 2^63 has not come.
constexpr bool HasReached(uint64_t word, uint64_t at_least) {
  return static_cast<int64_t>(word - at_least) >= 0;
}

// Makes the word at least `value`, and never smaller; wakes host streams and WaitForWord().
void RaiseWord(DeviceWord& word, uint64_t value);

// Stores `value` and wakes.
void StoreWord(DeviceWord& word, uint64_t value);

// Spins some microseconds, then sleeps, for `at_most` all in all. Returns whether the word has come
// that far. A writer that is a GPU wakes nobody: it is seen within a millisecond.
bool WaitForWord(const DeviceWord& word, uint64_t at_least, std::chrono::nanoseconds at_most);

}  // namespace kvasir::device

#endif  // KVASIR_DEVICE_WORD_H_
