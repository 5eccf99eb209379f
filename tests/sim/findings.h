// Findings: the first thing that was wrong. What comes after it follows from it.
#ifndef KVASIR_TESTS_SIM_FINDINGS_H_
#define KVASIR_TESTS_SIM_FINDINGS_H_

#include <string>
#include <utility>

#include <fmt/format.h>

namespace kvasir::sim {

class Findings {
 public:
  template <typename... Args>
  void Add(fmt::format_string<Args...> format, Args&&... args) {
    if (first_.empty()) first_ = fmt::format(format, std::forward<Args>(args)...);
  }
  bool any() const { return !first_.empty(); }
  const std::string& first() const { return first_; }

 private:
  std::string first_;
};

}  // namespace kvasir::sim

#endif  // KVASIR_TESTS_SIM_FINDINGS_H_
