// Waiting for what other threads and processes bring about.
#ifndef KVASIR_TESTS_SUPPORT_EVENTUALLY_H_
#define KVASIR_TESTS_SUPPORT_EVENTUALLY_H_

#include <chrono>
#include <functional>
#include <thread>

namespace kvasir::testing {

// Until something is so; nothing is said about when, but that it is not never: false after two
// minutes.
inline bool Eventually(const std::function<bool()>& is_so) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(2);
  while (!is_so()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_SUPPORT_EVENTUALLY_H_
