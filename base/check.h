// KVASIR_CHECK(condition, "text {}", args...): a broken invariant of ours ends the process, in
// every build. Never for peer input: that gets an absl::Status.
#ifndef KVASIR_BASE_CHECK_H_
#define KVASIR_BASE_CHECK_H_

#include <cstdio>
#include <cstdlib>

#include <fmt/format.h>

#define KVASIR_CHECK(condition, ...)                                                      \
  do {                                                                                    \
    if (!(condition)) [[unlikely]] {                                                      \
      fmt::print(stderr, "{}:{}: check failed: {}: {}\n", __FILE__, __LINE__, #condition, \
                 fmt::format(__VA_ARGS__));                                               \
      std::abort();                                                                       \
    }                                                                                     \
  } while (false)

#endif  // KVASIR_BASE_CHECK_H_
