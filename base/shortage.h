// Shortage: what stands behind a kResourceExhausted. Rides on the status, from where something was
// refused to whoever has to wait.
#ifndef KVASIR_BASE_SHORTAGE_H_
#define KVASIR_BASE_SHORTAGE_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include <absl/status/status.h>

namespace kvasir {

struct Shortage {
  std::string budget;    // key of the configuration that sets it, such as "tenant.limit_bytes"
  uint64_t missing = 0;  // in its unit
  // Who has what is missing, as far as the caller may know: "own sequences", "other tenants".
  std::string holder;
  std::chrono::milliseconds retry_after{0};  // to ask sooner is of no use

  friend bool operator==(const Shortage&, const Shortage&) = default;
};

// The status with it, and with its figures behind the message. REQUIRES: it is an error; budget and
// holder have no line breaks.
absl::Status WithShortage(const absl::Status& status, const Shortage& shortage);
// Nothing: it has none.
std::optional<Shortage> ShortageOf(const absl::Status& status);
// Likewise with a message that has the figures already, as it comes over the wire.
void AttachShortage(const Shortage& shortage, absl::Status* status);

}  // namespace kvasir

#endif  // KVASIR_BASE_SHORTAGE_H_
