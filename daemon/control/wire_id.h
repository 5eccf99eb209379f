// Names of 16 bytes as the wire has them. Pure functions; thread-safe.
#ifndef KVASIR_DAEMON_CONTROL_WIRE_ID_H_
#define KVASIR_DAEMON_CONTROL_WIRE_ID_H_

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include <absl/status/statusor.h>

#include "base/error.h"

namespace kvasir {

// Errors: kInvalidArgument naming the field, for bytes that are none.
inline absl::StatusOr<std::array<uint8_t, 16>> SixteenBytesOf(std::string_view field,
                                                              const std::string& bytes) {
  std::array<uint8_t, 16> name{};
  if (bytes.size() != name.size()) {
    return InvalidArgument("{} has the wrong size: bytes={} expected={}", field, bytes.size(),
                           name.size());
  }
  std::memcpy(name.data(), bytes.data(), bytes.size());
  return name;
}

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_WIRE_ID_H_
