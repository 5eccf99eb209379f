#include "allocator/group_allocator.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir {

GroupAllocator::Slab::Slab(std::unique_ptr<Extent> owned, uint64_t count)
    : extent(std::move(owned)), groups(static_cast<uint32_t>(count)) {
  KVASIR_CHECK(groups == count && (extent->frozen() || count <= kGroupsMax),
               "an extent of too many groups: groups={}", count);
  const uint64_t size = (count + 63) / 64;
  words = &only_word;
  if (size > 1) {
    more_words = std::make_unique<uint64_t[]>(size);
    words = more_words.get();
  }
  for (uint64_t index = 0; index < count; ++index) {
    words[index / 64] |= uint64_t{1} << (index % 64);
  }
  if (!extent->frozen()) with_free = ~uint64_t{0} >> (64 - size);
  extent->set_owner_tag(this);
}

uint64_t GroupAllocator::Slab::InUse() const {
  if (extent->frozen()) return claimed;
  uint64_t free = 0;
  for (uint64_t i = 0; i < (uint64_t{groups} + 63) / 64; ++i) {
    free += static_cast<uint64_t>(std::popcount(words[i]));
  }
  return groups - free;
}

GroupAllocator::~GroupAllocator() {
  for (std::unique_ptr<Extent>& extent : ReleaseExtents()) source_.ReturnExtent(std::move(extent));
}

uint64_t GroupAllocator::held_bytes() const {
  uint64_t groups = 0;
  for (const std::unique_ptr<Slab>& slab : slabs_) groups += slab->InUse();
  return groups * options_.group_bytes;
}

std::vector<std::unique_ptr<Extent>> GroupAllocator::ReleaseExtents() {
  KVASIR_CHECK(held_bytes() == 0, "groups are still allocated: bytes={}", held_bytes());
  std::vector<std::unique_ptr<Extent>> extents;
  for (auto& slab : slabs_) extents.push_back(std::move(slab->extent));
  slabs_.clear();
  with_room_ = nullptr;
  charged_bytes_ = 0;
  return extents;
}

void GroupAllocator::ReturnIdleExtents() {
  for (size_t i = 0; i < slabs_.size();) {
    const std::unique_ptr<Slab>& slab = slabs_[i];
    if (slab->InUse() > 0 || slab->extent->Probe() != ProbeResult::kFree) {
      ++i;
      continue;
    }
    Drop(i);
  }
}

void GroupAllocator::Drop(size_t index) {
  const std::unique_ptr<Slab>& slab = slabs_[index];
  if (slab->with_free != 0) Unlink(*slab);
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
  charged_bytes_ += extent->bytes();
  const uint64_t groups = extent->bytes() / options_.group_bytes;
  slabs_.push_back(std::make_unique<Slab>(std::move(extent), groups));
  adopting_ = true;
  return absl::OkStatus();
}

absl::StatusOr<Group> GroupAllocator::Claim(Extent& extent, uint64_t offset) {
  auto* slab = static_cast<Slab*>(extent.owner_tag());
  const uint64_t index = offset / options_.group_bytes;
  if (offset % options_.group_bytes != 0 || index >= slab->groups || !slab->IsFree(index)) {
    return InvalidArgument("no group of an extent, or claimed twice: id={} offset={} bytes={}",
                           extent.id(), offset, extent.bytes());
  }
  slab->words[index / 64] &= ~(uint64_t{1} << (index % 64));
  ++slab->claimed;
  return Group{&extent, offset};
}

void GroupAllocator::EndAdoption() {
  adopting_ = false;
  for (size_t i = 0; i < slabs_.size();) {
    if (slabs_[i]->extent->frozen() && slabs_[i]->claimed == 0) {
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
                      static_cast<double>(slab->claimed) / static_cast<double>(slab->groups)});
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
  uint64_t groups = std::clamp<uint64_t>(next_extent_bytes_ / options_.group_bytes, 1, kGroupsMax);
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
    charged_bytes_ += (*extent)->bytes();
    slabs_.push_back(std::make_unique<Slab>(*std::move(extent), groups));
    Link(*slabs_.back());
    next_extent_bytes_ = std::min(next_extent_bytes_ * 2, options_.extent_bytes);
    return absl::OkStatus();
  }
}

absl::StatusOr<Group> GroupAllocator::AllocateWithMoreRoom(bool make_room) {
  while (with_room_ == nullptr) {  // MakeRoom() may have freed a group of ours
    absl::Status status = AddExtent();
    if (status.ok()) break;
    if (!make_room || status.code() != absl::StatusCode::kResourceExhausted ||
        !source_.MakeRoom()) {
      return status;
    }
  }
  return TakeFree();
}

void GroupAllocator::FreedOfFrozen(Slab& slab) {
  if (--slab.claimed > 0 || adopting_) return;
  const auto at = std::find_if(slabs_.begin(), slabs_.end(),
                               [&](const auto& one) { return one.get() == &slab; });
  Drop(static_cast<size_t>(at - slabs_.begin()));
}

}  // namespace kvasir
