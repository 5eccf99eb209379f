// Numbers that a person may give a test: KVASIR_SEED, so that a failure is repeated, and counts of
// rounds, so that a long run is the same test.
#ifndef KVASIR_TESTS_SUPPORT_ENVIRONMENT_H_
#define KVASIR_TESTS_SUPPORT_ENVIRONMENT_H_

#include <cstdint>
#include <cstdlib>

#include <fmt/format.h>

namespace kvasir::testing {

// The variable's value, or `fallback`; prints which.
inline uint64_t FromEnvironment(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  const uint64_t value = text != nullptr ? std::strtoull(text, nullptr, 10) : fallback;
  fmt::print("{}={}\n", name, value);
  return value;
}

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_SUPPORT_ENVIRONMENT_H_
