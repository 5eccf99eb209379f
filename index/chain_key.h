// Names of blocks: a block's key stands for its tokens and everything before them.
//
// Canonical bytes: the 16 bytes as SipHash-2-4-128 puts them out; `low` and `high` are the first
// and the last eight of them, read as little-endian numbers, on every machine. Plain values.
#ifndef KVASIR_INDEX_CHAIN_KEY_H_
#define KVASIR_INDEX_CHAIN_KEY_H_

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace kvasir {

inline constexpr size_t kChainKeyBytes = 16;

struct ChainKey {
  uint64_t low = 0;
  uint64_t high = 0;

  static constexpr ChainKey FromBytes(std::span<const uint8_t, kChainKeyBytes> bytes) {
    ChainKey key;
    for (size_t i = 8; i-- > 0;) {
      key.low = key.low << 8 | bytes[i];
      key.high = key.high << 8 | bytes[i + 8];
    }
    return key;
  }

  constexpr std::array<uint8_t, kChainKeyBytes> ToBytes() const {
    std::array<uint8_t, kChainKeyBytes> bytes{};
    for (size_t i = 0; i < 8; ++i) {
      bytes[i] = static_cast<uint8_t>(low >> 8 * i);
      bytes[i + 8] = static_cast<uint8_t>(high >> 8 * i);
    }
    return bytes;
  }

  // The canonical bytes, in hexadecimal.
  std::string ToHex() const {
    std::string text;
    for (const uint8_t byte : ToBytes()) text += fmt::format("{:02x}", byte);
    return text;
  }

  friend constexpr bool operator==(const ChainKey&, const ChainKey&) = default;

  template <typename H>
  friend H AbslHashValue(H state, const ChainKey& key) {
    return H::combine(std::move(state), key.low, key.high);
  }
};

}  // namespace kvasir

#endif  // KVASIR_INDEX_CHAIN_KEY_H_
