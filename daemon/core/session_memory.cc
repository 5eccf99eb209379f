#include "daemon/core/session_memory.h"

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir::core {

SegmentSizes SegmentSizesFor(const SessionLimits& limits) {
  SegmentSizes sizes{};
  sizes.seq_off = shm::kHeaderBytes;
  sizes.arena_off =
      RoundUp(sizes.seq_off + sizeof(shm::SeqBoard) * limits.sequences_max, kPageBytes);
  sizes.ring_d_off = RoundUp(sizes.arena_off + limits.arena_bytes, kPageBytes);
  sizes.e_desk_off = shm::kHeaderBytes;
  sizes.ring_e_off =
      RoundUp(sizes.e_desk_off + sizeof(shm::SeqDesk) * limits.sequences_max, kPageBytes);
  const shm::RingSegmentBytes ring = shm::RingSegmentBytesFor(limits.ring);
  sizes.d_bytes = sizes.ring_d_off + ring.d;
  sizes.e_bytes = sizes.ring_e_off + ring.e;
  return sizes;
}

absl::StatusOr<ExtentTable::Ref> ExtentTable::RefOf(const Extent& extent) {
  const auto known = slots_.find(extent.id());
  if (known != slots_.end()) return known->second;
  if (slots_.size() >= extents_max_) {
    return ResourceExhausted("session has too many extents: limits.extents_per_session_max={}",
                             extents_max_);
  }
  if (seals_size_) KVASIR_RETURN_IF_ERROR(extent.SealSize());
  const Ref ref = free_.empty() ? Ref{static_cast<uint32_t>(slots_.size()), 1} : free_.back();
  shm::ExtentNotice notice{};
  notice.kind = static_cast<uint32_t>(shm::MessageKind::kExtent);
  notice.extent_kind = static_cast<uint32_t>(
      extent.use() == ExtentUse::kKept ? shm::ExtentKind::kKept : shm::ExtentKind::kRecent);
  notice.slot = ref.slot;
  notice.generation = ref.generation;
  notice.bytes = extent.bytes();
  notice.extent_id = extent.id();
  KVASIR_RETURN_IF_ERROR(sender_.SendExtent(notice, extent));
  slots_.emplace(extent.id(), ref);
  if (!free_.empty()) free_.pop_back();
  return ref;
}

void ExtentTable::Forget(uint64_t extent_id) {
  const auto found = slots_.find(extent_id);
  if (found == slots_.end()) return;
  free_.push_back({found->second.slot, found->second.generation + 1});
  slots_.erase(found);
}

}  // namespace kvasir::core
