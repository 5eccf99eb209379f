// TierKey: the name under which a tier keeps a block's bytes: tenant digest (16 bytes), chain key
// (16) and part (8), in this order. Opaque here: compared and hashed as 40 bytes. Plain value.
#ifndef KVASIR_ALLOCATOR_TIER_TIER_KEY_H_
#define KVASIR_ALLOCATOR_TIER_TIER_KEY_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace kvasir {

inline constexpr size_t kTierKeyBytes = 40;

struct TierKey {
  std::array<uint8_t, kTierKeyBytes> bytes{};

  std::string_view view() const {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  // For messages: never parsed back.
  std::string ToHex() const {
    std::string text;
    for (const uint8_t byte : bytes) text += fmt::format("{:02x}", byte);
    return text;
  }

  friend bool operator==(const TierKey&, const TierKey&) = default;

  template <typename H>
  friend H AbslHashValue(H state, const TierKey& key) {
    return H::combine_contiguous(std::move(state), key.bytes.data(), key.bytes.size());
  }
};

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_TIER_KEY_H_
