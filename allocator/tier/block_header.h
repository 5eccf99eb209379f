// BlockHeader: what stands before every block's payload, in every tier: whose bytes they are, for
// which layout, and a checksum over all of it.
//
// Pure functions; the same bytes in memory, on disk and on a server. Little-endian, 128 bytes:
//   0  magic "KVASIRBK"   8  version u32, header bytes u32   16  layout fingerprint u64
//   24 key, 40 bytes     64  payload bytes u64     72  zero, 40 bytes    112  XXH3-128, low first
// The checksum covers bytes 0 to 111 and the payload. A change of any offset raises kVersion.
#ifndef KVASIR_ALLOCATOR_TIER_BLOCK_HEADER_H_
#define KVASIR_ALLOCATOR_TIER_BLOCK_HEADER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "allocator/tier/tier.h"
#include "allocator/tier/tier_key.h"

struct XXH3_state_s;

namespace kvasir {

inline constexpr size_t kBlockHeaderBytes = 128;
inline constexpr uint32_t kBlockHeaderVersion = 1;

using BlockHeader = std::array<std::byte, kBlockHeaderBytes>;
using ByteParts = std::span<const std::span<const std::byte>>;

// The sum of the parts' lengths.
uint64_t BytesOf(ByteParts parts);

// XXH3-128 in pieces, with the fastest form that this machine has. Not thread-safe. One serves many
// blocks, one after the other.
class BlockChecksum {
 public:
  static constexpr size_t kBytes = 16;

  BlockChecksum();

  // Begins a block with the header's first 112 bytes.
  void Begin(const BlockHeader& header);
  void Add(std::span<const std::byte> bytes);
  // Copies to `to` and adds what was copied, in pieces that are still in the cache.
  void CopyAndAdd(std::span<const std::byte> from, std::byte* to);
  std::array<std::byte, kBytes> Finish() const;

 private:
  struct FreeState {
    void operator()(XXH3_state_s* state) const;
  };
  std::unique_ptr<XXH3_state_s, FreeState> state_;
};

// A header without its checksum, which FinishHeader() puts in.
BlockHeader MakeHeader(uint64_t fingerprint, const TierKey& key, uint64_t payload_bytes);
void FinishHeader(BlockHeader& header, const BlockChecksum& checksum);

// MakeHeader() and the checksum of `parts`. Cost: a pass over the bytes.
BlockHeader SealHeader(uint64_t fingerprint, const TierKey& key, ByteParts parts,
                       BlockChecksum& checksum);

// kHit when the header is of this version and belongs to `key`, this layout and this length;
// `payload_bytes` is what the place holds behind the header. The payload is still to be verified.
ReadOutcome CheckHeader(const BlockHeader& header, uint64_t fingerprint, const TierKey& key,
                        uint64_t payload_bytes);

// kHit or kCorrupt. REQUIRES: `checksum` has seen the header and the whole payload.
ReadOutcome CheckSum(const BlockHeader& header, const BlockChecksum& checksum);

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_BLOCK_HEADER_H_
