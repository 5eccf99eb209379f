#include "allocator/group_allocator.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"

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
    if (slab->groups > 0 || slab->extent->Probe() != ProbeResult::kFree) {
      ++i;
      continue;
    }
    Drop(i);
  }
}

void GroupAllocator::Drop(size_t index) {
  const std::unique_ptr<Slab>& slab = slabs_[index];
  std::erase(with_room_, slab.get());
  charged_bytes_ -= slab->extent->bytes();
  source_.ReturnExtent(std::move(slab->extent));
  slabs_.erase(slabs_.begin() + static_cast<ptrdiff_t>(index));
}

absl::Status GroupAllocator::Adopt(std::unique_ptr<Extent> extent) {
  if (!extent->frozen() || extent->use() != options_.use || extent->bytes() == 0 ||
      extent->bytes() % options_.group_bytes != 0) {
    const absl::Status status =
        InvalidArgument("an extent is not one of frozen groups: id={} bytes={} group_bytes={}",
                        extent->id(), extent->bytes(), options_.group_bytes);
    source_.ReturnExtent(std::move(extent));
    return status;
  }
  auto slab = std::make_unique<Slab>();
  slab->used.assign(extent->bytes() / options_.group_bytes, false);
  charged_bytes_ += extent->bytes();
  slab->extent = std::move(extent);
  slab->extent->set_owner_tag(slab.get());
  slabs_.push_back(std::move(slab));
  adopting_ = true;
  return absl::OkStatus();
}

absl::StatusOr<Group> GroupAllocator::Claim(Extent& extent, uint64_t offset) {
  auto* slab = static_cast<Slab*>(extent.owner_tag());
  const uint64_t index = offset / options_.group_bytes;
  if (offset % options_.group_bytes != 0 || index >= slab->used.size() || slab->used[index]) {
    return InvalidArgument("no group of an extent, or claimed twice: id={} offset={} bytes={}",
                           extent.id(), offset, extent.bytes());
  }
  slab->used[index] = true;
  ++slab->groups;
  ++held_groups_;
  return Group{&extent, offset};
}

void GroupAllocator::EndAdoption() {
  adopting_ = false;
  for (size_t i = 0; i < slabs_.size();) {
    if (slabs_[i]->extent->frozen() && slabs_[i]->groups == 0) {
      Drop(i);
    } else {
      ++i;
    }
  }
}

std::vector<GroupAllocator::Frozen> GroupAllocator::FrozenExtents() const {
  std::vector<Frozen> frozen;
  for (const std::unique_ptr<Slab>& slab : slabs_) {
    if (!slab->extent->frozen()) continue;
    frozen.push_back({slab->extent.get(),
                      static_cast<double>(slab->groups) / static_cast<double>(slab->used.size())});
  }
  std::stable_sort(frozen.begin(), frozen.end(),
                   [](const Frozen& a, const Frozen& b) { return a.share < b.share; });
  return frozen;
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
  return TakeFree();
}

absl::StatusOr<Group> GroupAllocator::AllocateWithoutMakingRoom() {
  if (with_room_.empty()) KVASIR_RETURN_IF_ERROR(AddExtent());
  return TakeFree();
}

Group GroupAllocator::TakeFree() {
  Slab* slab = with_room_.back();
  const uint32_t index = slab->free.back();
  slab->free.pop_back();
  slab->used[index] = true;
  ++slab->groups;
  if (slab->free.empty()) with_room_.pop_back();
  ++held_groups_;
  return Group{slab->extent.get(), uint64_t{index} * options_.group_bytes};
}

void GroupAllocator::Free(const Group& group) {
  auto* slab = static_cast<Slab*>(group.extent->owner_tag());
  const auto index = static_cast<uint32_t>(group.offset / options_.group_bytes);
  KVASIR_CHECK(index < slab->used.size() && slab->used[index], "double free: index={}", index);
  slab->used[index] = false;
  --slab->groups;
  --held_groups_;
  if (!slab->extent->frozen()) {
    if (slab->free.empty()) with_room_.push_back(slab);
    slab->free.push_back(index);
  } else if (slab->groups == 0 && !adopting_) {
    Drop(static_cast<size_t>(std::find_if(slabs_.begin(), slabs_.end(),
                                          [&](const auto& one) { return one.get() == slab; }) -
                             slabs_.begin()));
  }
}

}  // namespace kvasir
