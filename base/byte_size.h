// Sizes as people write them in configurations and commands. Thread-safe.
#ifndef KVASIR_BASE_BYTE_SIZE_H_
#define KVASIR_BASE_BYTE_SIZE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kvasir {

// "512MiB", "4096B" as bytes: a whole number and B, KiB, MiB, GiB or TiB, exactly.
// Empty for anything else, and for what does not fit 63 bits (TOML's own integers end there).
std::optional<uint64_t> ParseByteSize(std::string_view text);

// The largest unit that divides exactly: 536870912 -> "512MiB", 4097 -> "4097B".
std::string FormatByteSize(uint64_t bytes);

}  // namespace kvasir

#endif  // KVASIR_BASE_BYTE_SIZE_H_
