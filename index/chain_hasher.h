// From token ids to the keys of blocks: a keyed hash, chained from the root of a sequence.
//
//   key = SipHash-2-4-128 under the secret of the host, over
//         scope (16 bytes), parent (16), tokens (u32), extra bytes (u32), token ids (u32 each),
//         extra
//
// all numbers little-endian. The root's parent is the zero key. Lengths stand before what they
// measure, so different inputs never make the same bytes. The secret keeps clients from searching
// for two blocks with one key: whoever does not know it can do no better than guess.
//
// Scope: what two blocks must share beside tokens, e.g. tenant and model fingerprint. Extra: what a
// chunk depends on beyond token ids, e.g. the digest of an image in it.
//
// Thread-compatible: calls share a buffer. Cost: about 1 ns a byte; no allocation after the first
// call of a size. Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF", INDOCRYPT
// 2012; libsodium's crypto_shorthash_siphashx24.
#ifndef KVASIR_INDEX_CHAIN_HASHER_H_
#define KVASIR_INDEX_CHAIN_HASHER_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include <absl/status/statusor.h>

#include "index/chain_key.h"

namespace kvasir {

inline constexpr size_t kChunkTokensMax = 65536;
inline constexpr size_t kChunkExtraBytesMax = 4096;

class ChainHasher {
 public:
  using Secret = std::array<uint8_t, 16>;

  ChainHasher(const Secret& secret, const ChainKey& scope) : secret_(secret), scope_(scope) {}

  // The key of the block of `tokens` behind `parent`. Errors: kInvalidArgument unless there are
  // 1..kChunkTokensMax tokens and at most kChunkExtraBytesMax bytes of `extra`.
  absl::StatusOr<ChainKey> Hash(const ChainKey& parent, std::span<const uint32_t> tokens,
                                std::span<const uint8_t> extra = {});

 private:
  Secret secret_;
  ChainKey scope_;
  std::vector<uint8_t> message_;
};

}  // namespace kvasir

#endif  // KVASIR_INDEX_CHAIN_HASHER_H_
