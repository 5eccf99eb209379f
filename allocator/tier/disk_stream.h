// A block as it lies in segment files: a page with the header, then the payload, padded to a page.
// These functions lay a slot's memory out for it.
#ifndef KVASIR_ALLOCATOR_TIER_DISK_STREAM_H_
#define KVASIR_ALLOCATOR_TIER_DISK_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "allocator/tier/block_header.h"
#include "allocator/tier/block_transfer.h"
#include "base/bytes.h"

namespace kvasir {

inline constexpr uint64_t DiskBytesOf(uint64_t payload_bytes) {
  return kPageBytes + RoundUp(payload_bytes, kPageBytes);
}

// The stream of a write: from the caller's parts where each begins at a page and all but the last
// are page multiples, else from a copy. Zeros fill the last page.
void LayOutWrite(const BlockHeader& header, ByteParts parts, BlockTransfer::Slot& slot);

// The stream of a read: into the caller's memory where that begins at a page, but for the last part
// of a page; else into the slot's.
void LayOutRead(std::span<std::byte> into, BlockTransfer::Slot& slot);

// After a read: the header that came.
BlockHeader HeaderOf(const BlockTransfer::Slot& slot);

// After a read: brings what is in the slot's memory to `into`, and adds the payload to `checksum`.
void TakePayload(const BlockTransfer::Slot& slot, std::span<std::byte> into,
                 BlockChecksum& checksum);

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_DISK_STREAM_H_
