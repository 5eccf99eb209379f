#include "index/chain_hasher.h"

#include "base/check.h"
#include "base/error.h"

#include <sodium/crypto_shorthash_siphash24.h>

namespace kvasir {
namespace {

static_assert(crypto_shorthash_siphashx24_BYTES == kChainKeyBytes);
static_assert(crypto_shorthash_siphashx24_KEYBYTES == sizeof(ChainHasher::Secret));

void Append(std::vector<uint8_t>& message, uint32_t number) {
  for (int shift = 0; shift < 32; shift += 8) {
    message.push_back(static_cast<uint8_t>(number >> shift));
  }
}

void Append(std::vector<uint8_t>& message, const ChainKey& key) {
  const auto bytes = key.ToBytes();
  message.insert(message.end(), bytes.begin(), bytes.end());
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
  message_.clear();
  Append(message_, scope_);
  Append(message_, parent);
  Append(message_, static_cast<uint32_t>(tokens.size()));
  Append(message_, static_cast<uint32_t>(extra.size()));
  for (const uint32_t token : tokens) Append(message_, token);
  message_.insert(message_.end(), extra.begin(), extra.end());

  std::array<uint8_t, kChainKeyBytes> out;
  const int rc =
      ::crypto_shorthash_siphashx24(out.data(), message_.data(), message_.size(), secret_.data());
  KVASIR_CHECK(rc == 0, "siphash failed: rc={}", rc);
  return ChainKey::FromBytes(out);
}

}  // namespace kvasir
