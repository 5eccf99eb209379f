// The keys of a prefix: one for each chunk of 16 tokens, chained from the root.
//
// What a token stands for beyond its id (the digest of an image behind an id that only marks its
// place) is an extra: it goes into the key of the chunk that its row lies in. Chunks are the same
// for every block size.
//
// Thread-compatible. Cost: Append() about 100 ns a chunk; 1 byte a token.
#ifndef KVASIR_INDEX_PREFIX_CHAIN_H_
#define KVASIR_INDEX_PREFIX_CHAIN_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "index/chain_hasher.h"
#include "index/chain_key.h"

namespace kvasir {

inline constexpr uint32_t kChunkTokens = 16;
inline constexpr uint64_t kExtrasMax = 4096;
inline constexpr uint64_t kExtraBytesMax = 128;  // of one

struct TokenExtra {
  uint64_t row = 0;
  std::string bytes;
  friend bool operator==(const TokenExtra&, const TokenExtra&) = default;
};

class PrefixChain {
 public:
  // Errors: kInvalidArgument for extras that are too many, too long, empty or not ascending by row.
  static absl::StatusOr<PrefixChain> Create(const ChainHasher::Secret& secret,
                                            const ChainKey& scope, std::vector<TokenExtra> extras);

  // Of keys that were made before, by the same secret, of tokens that may be forgotten; `rest`: the
  // tokens behind the last whole chunk. Errors: as Create(), kInvalidArgument for a rest of a chunk
  // or more.
  static absl::StatusOr<PrefixChain> Restore(const ChainHasher::Secret& secret,
                                             const ChainKey& scope, std::vector<TokenExtra> extras,
                                             std::vector<ChainKey> keys,
                                             std::vector<uint32_t> rest);

  void Append(std::span<const uint32_t> tokens);

  // Forgets the tokens from `rows` on; whole chunks below stay, and of a chunk that is cut the
  // caller gives the tokens: those of rows [RoundDown(rows, kChunkTokens), rows).
  // REQUIRES: rows <= rows().
  void Truncate(uint64_t rows, std::span<const uint32_t> rest);

  uint64_t rows() const { return keys_.size() * kChunkTokens + rest_.size(); }
  const ChainKey& scope() const { return scope_; }
  std::span<const ChainKey> keys() const { return keys_; }  // of whole chunks
  std::span<const uint32_t> rest() const { return rest_; }  // tokens behind them
  // Extras of rows [first, last).
  std::span<const TokenExtra> ExtrasOf(uint64_t first, uint64_t last) const;

 private:
  PrefixChain(const ChainHasher::Secret& secret, const ChainKey& scope,
              std::shared_ptr<const std::vector<TokenExtra>> extras)
      : hasher_(secret, scope), scope_(scope), extras_(std::move(extras)) {}
  void AddChunk(std::span<const uint32_t> tokens);

  ChainHasher hasher_;
  ChainKey scope_;
  std::shared_ptr<const std::vector<TokenExtra>> extras_;  // by row; shared by copies
  std::vector<ChainKey> keys_;
  std::vector<uint32_t> rest_;  // fewer than kChunkTokens
  std::string extra_;           // of the chunk that is added
};

}  // namespace kvasir

#endif  // KVASIR_INDEX_PREFIX_CHAIN_H_
