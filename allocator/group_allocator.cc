#include "allocator/group_allocator.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"

namespace kvasir {

GroupAllocator::~GroupAllocator() {
  for (std::unique_ptr<Extent>& extent : ReleaseExtents()) source_.ReturnExtent(std::move(extent));
}

std::vector<std::unique_ptr<Extent>> GroupAllocator::ReleaseExtents() {
  KVASIR_CHECK(held_groups_ == 0, "groups are still allocated: groups={}", held_groups_);
  std::vector<std::unique_ptr<Extent>> extents;
  for (auto& slab : slabs_) extents.push_back(std::move(slab->extent));
  slabs_.clear();
  with_room_.clear();
  charged_bytes_ = 0;
  return extents;
}

void GroupAllocator::ReturnIdleExtents() {
  for (size_t i = 0; i < slabs_.size();) {
    const std::unique_ptr<Slab>& slab = slabs_[i];
    if (slab->free.size() != slab->used.size() || slab->extent->Probe() != ProbeResult::kFree) {
      ++i;
      continue;
    }
    std::erase(with_room_, slab.get());
    charged_bytes_ -= slab->extent->bytes();
    source_.ReturnExtent(std::move(slab->extent));
    slabs_.erase(slabs_.begin() + static_cast<ptrdiff_t>(i));
  }
}

bool GroupAllocator::AnyUnmapped() const {
  return std::any_of(slabs_.begin(), slabs_.end(), [](const std::unique_ptr<Slab>& slab) {
    return slab->extent->Probe() != ProbeResult::kHeld;
  });
}

absl::Status GroupAllocator::AddExtent() {
  uint64_t groups = std::max<uint64_t>(1, next_extent_bytes_ / options_.group_bytes);
  for (;;) {
    absl::StatusOr<std::unique_ptr<Extent>> extent =
        source_.TakeExtent(groups * options_.group_bytes, options_.use);
    if (!extent.ok()) {
      if (groups == 1 || extent.status().code() != absl::StatusCode::kResourceExhausted) {
        return extent.status();
      }
      groups /= 2;
      continue;
    }
    auto slab = std::make_unique<Slab>();
    for (uint64_t i = groups; i-- > 0;) slab->free.push_back(static_cast<uint32_t>(i));
    slab->used.assign(groups, false);
    slab->extent = *std::move(extent);
    charged_bytes_ += slab->extent->bytes();
    slab->extent->set_owner_tag(slab.get());
    with_room_.push_back(slab.get());
    slabs_.push_back(std::move(slab));
    next_extent_bytes_ = std::min(next_extent_bytes_ * 2, options_.extent_bytes);
    return absl::OkStatus();
  }
}

absl::StatusOr<Group> GroupAllocator::Allocate() {
  while (with_room_.empty()) {
    absl::Status status = AddExtent();
    if (status.ok()) break;
    if (status.code() != absl::StatusCode::kResourceExhausted || !source_.MakeRoom()) return status;
  }
  Slab* slab = with_room_.back();
  const uint32_t index = slab->free.back();
  slab->free.pop_back();
  slab->used[index] = true;
  if (slab->free.empty()) with_room_.pop_back();
  ++held_groups_;
  return Group{slab->extent.get(), uint64_t{index} * options_.group_bytes};
}

void GroupAllocator::Free(const Group& group) {
  auto* slab = static_cast<Slab*>(group.extent->owner_tag());
  const auto index = static_cast<uint32_t>(group.offset / options_.group_bytes);
  KVASIR_CHECK(index < slab->used.size() && slab->used[index], "double free: index={}", index);
  slab->used[index] = false;
  if (slab->free.empty()) with_room_.push_back(slab);
  slab->free.push_back(index);
  --held_groups_;
}

}  // namespace kvasir
