// Byte counts: literals, checked arithmetic, rounding, parse and print ("32MiB").
#ifndef KVASIR_BASE_BYTES_H_
#define KVASIR_BASE_BYTES_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include <fmt/format.h>

namespace kvasir {

inline constexpr uint64_t kKiB = uint64_t{1} << 10;
inline constexpr uint64_t kMiB = uint64_t{1} << 20;
inline constexpr uint64_t kGiB = uint64_t{1} << 30;
inline constexpr uint64_t kPageBytes = 4096;  // smallest page of x86-64 and most Arm hosts

// Rounds up to a multiple of `unit`. REQUIRES: unit > 0, value + unit does not overflow.
constexpr uint64_t RoundUp(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}
constexpr uint64_t RoundDown(uint64_t value, uint64_t unit) { return value / unit * unit; }
constexpr uint64_t DivideUp(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit; }

// Stores a * b in *product and returns true, or returns false when it does not fit 64 bits.
[[nodiscard]] inline bool CheckedMultiply(uint64_t a, uint64_t b, uint64_t* product) {
  return !__builtin_mul_overflow(a, b, product);
}

// "512 B", "24.5 KiB", "1.25 GiB": for people, never parsed back.
inline std::string HumanBytes(uint64_t bytes) {
  if (bytes < kKiB) return fmt::format("{} B", bytes);
  if (bytes < kMiB) return fmt::format("{:.1f} KiB", static_cast<double>(bytes) / kKiB);
  if (bytes < kGiB) return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / kMiB);
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / kGiB);
}

}  // namespace kvasir

#endif  // KVASIR_BASE_BYTES_H_
