#include "index/chain_hasher.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"
#include "base/error.h"

#include <sodium/crypto_shorthash_siphash24.h>

namespace kvasir {
namespace {

static_assert(crypto_shorthash_siphashx24_BYTES == kChainKeyBytes);
static_assert(crypto_shorthash_siphashx24_KEYBYTES == sizeof(ChainHasher::Secret));

uint8_t* Put(uint8_t* at, uint32_t number) {
  if constexpr (std::endian::native == std::endian::little) {
    std::memcpy(at, &number, sizeof(number));
  } else {
    for (int i = 0; i < 4; ++i) at[i] = static_cast<uint8_t>(number >> 8 * i);
  }
  return at + sizeof(number);
}

uint8_t* Put(uint8_t* at, std::span<const uint32_t> numbers) {
  if constexpr (std::endian::native == std::endian::little) {
    std::memcpy(at, numbers.data(), numbers.size_bytes());
    return at + numbers.size_bytes();
  } else {
    for (const uint32_t number : numbers) at = Put(at, number);
    return at;
  }
}

uint8_t* Put(uint8_t* at, const ChainKey& key) {
  if constexpr (std::endian::native == std::endian::little) {
    std::memcpy(at, &key.low, sizeof(key.low));
    std::memcpy(at + sizeof(key.low), &key.high, sizeof(key.high));
  } else {
    const auto bytes = key.ToBytes();
    std::copy(bytes.begin(), bytes.end(), at);
  }
  return at + kChainKeyBytes;
}

}  // namespace

absl::StatusOr<ChainKey> ChainHasher::Hash(const ChainKey& parent, std::span<const uint32_t> tokens,
                                           std::span<const uint8_t> extra) {
  if (tokens.empty() || tokens.size() > kChunkTokensMax) {
    return InvalidArgument("token count of a chunk out of bounds: tokens={} min=1 max={}",
                           tokens.size(), kChunkTokensMax);
  }
  if (extra.size() > kChunkExtraBytesMax) {
    return InvalidArgument("extra key of a chunk is too long: extra_bytes={} max={}", extra.size(),
                           kChunkExtraBytesMax);
  }
  message_.resize(2 * kChainKeyBytes + 2 * sizeof(uint32_t) + tokens.size_bytes() + extra.size());
  uint8_t* at = Put(Put(message_.data(), scope_), parent);
  at = Put(Put(at, static_cast<uint32_t>(tokens.size())), static_cast<uint32_t>(extra.size()));
  at = Put(at, tokens);
  std::copy(extra.begin(), extra.end(), at);

  std::array<uint8_t, kChainKeyBytes> out;
  const int rc =
      ::crypto_shorthash_siphashx24(out.data(), message_.data(), message_.size(), secret_.data());
  KVASIR_CHECK(rc == 0, "siphash failed: rc={}", rc);
  return ChainKey::FromBytes(out);
}

}  // namespace kvasir
