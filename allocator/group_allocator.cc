#include "allocator/group_allocator.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir {

GroupAllocator::Books::Books(std::unique_ptr<Extent> owned, uint64_t count)
    : words(&only_word), groups(count), extent(std::move(owned)) {
  if (count > 64) {
    more_words = std::make_unique<uint64_t[]>((count + 63) / 64);
    words = more_words.get();
  }
  extent->set_owner_tag(this);
}

uint64_t GroupAllocator::Books::InUse() const {
  uint64_t used = 0;
  for (uint64_t i = 0; i < (groups + 63) / 64; ++i) {
    used += static_cast<uint64_t>(std::popcount(words[i]));
  }
  return used;
}

GroupAllocator::~GroupAllocator() {
  for (std::unique_ptr<Extent>& extent : ReleaseExtents()) source_.ReturnExtent(std::move(extent));
}

uint64_t GroupAllocator::held_bytes() const {
  uint64_t groups = 0;
  for (const std::unique_ptr<Books>& books : books_) groups += books->InUse();
  return groups * options_.group_bytes;
}

std::vector<std::unique_ptr<Extent>> GroupAllocator::ReleaseExtents() {
  KVASIR_CHECK(held_bytes() == 0, "groups are still allocated: bytes={}", held_bytes());
  std::vector<std::unique_ptr<Extent>> extents;
  for (auto& books : books_) extents.push_back(std::move(books->extent));
  books_.clear();
  top_ = free_.get();
  charged_bytes_ = 0;
  return extents;
}

void GroupAllocator::ReturnIdleExtents() {
  for (const std::unique_ptr<Books>& books : books_) {
    books->goes = books->InUse() == 0 && books->extent->Probe() == ProbeResult::kFree;
  }
  Drop();
}

bool GroupAllocator::ReturnEmptyExtents() {
  bool any = false;
  for (const std::unique_ptr<Books>& books : books_) any |= books->goes = books->InUse() == 0;
  Drop();
  return any;
}

void GroupAllocator::Drop() {
  top_ =
      std::remove_if(free_.get(), top_, [](const FreeGroup& group) { return group.books->goes; });
  // One by one: giving an extent back may not find another one half gone.
  for (size_t i = 0; i < books_.size();) {
    if (!books_[i]->goes) {
      ++i;
      continue;
    }
    std::unique_ptr<Extent> extent = std::move(books_[i]->extent);
    books_.erase(books_.begin() + static_cast<ptrdiff_t>(i));
    charged_bytes_ -= extent->rows_bytes();
    source_.ReturnExtent(std::move(extent));
  }
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
  books_.push_back(std::make_unique<Books>(std::move(extent), groups));
  adopting_ = true;
  return absl::OkStatus();
}

absl::StatusOr<Group> GroupAllocator::Claim(Extent& extent, uint64_t offset) {
  Books& books = *static_cast<Books*>(extent.owner_tag());
  const uint64_t index = offset / options_.group_bytes;
  if (offset % options_.group_bytes != 0 || index >= books.groups || books.Has(index)) {
    return InvalidArgument("no group of an extent, or claimed twice: id={} offset={} bytes={}",
                           extent.id(), offset, extent.bytes());
  }
  books.Flip(index);
  return Group{&extent, offset};
}

void GroupAllocator::EndAdoption() {
  adopting_ = false;
  for (const std::unique_ptr<Books>& books : books_) {
    books->goes = books->extent->frozen() && books->InUse() == 0;
  }
  Drop();
}

std::vector<GroupAllocator::Frozen> GroupAllocator::FrozenExtents() const {
  std::vector<Frozen> frozen;
  for (const std::unique_ptr<Books>& books : books_) {
    if (!books->extent->frozen()) continue;
    frozen.push_back({books->extent.get(),
                      static_cast<double>(books->InUse()) / static_cast<double>(books->groups)});
  }
  std::stable_sort(frozen.begin(), frozen.end(),
                   [](const Frozen& a, const Frozen& b) { return a.share < b.share; });
  return frozen;
}

bool GroupAllocator::AnyUnmapped() const {
  return std::any_of(books_.begin(), books_.end(), [](const std::unique_ptr<Books>& books) {
    return books->extent->Probe() != ProbeResult::kHeld;
  });
}

void GroupAllocator::EndOnDoubleFree(uint64_t index) {
  KVASIR_CHECK(false, "double free: index={}", index);
  std::abort();
}

void GroupAllocator::PushAll(Books& books) {
  uint64_t all = 0;
  for (const std::unique_ptr<Books>& one : books_) all += one->groups;
  if (all > room_) {
    room_ = std::max(all, 2 * room_);
    auto larger = std::make_unique<FreeGroup[]>(room_);
    top_ = std::copy(free_.get(), top_, larger.get());
    free_ = std::move(larger);
  }
  for (uint64_t index = books.groups; index-- > 0;) *top_++ = {&books, index};
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
    charged_bytes_ += (*extent)->rows_bytes();
    books_.push_back(std::make_unique<Books>(*std::move(extent), groups));
    PushAll(*books_.back());
    next_extent_bytes_ = std::min(next_extent_bytes_ * 2, options_.extent_bytes);
    return absl::OkStatus();
  }
}

absl::StatusOr<Group> GroupAllocator::AllocateWithMoreRoom(bool make_room) {
  while (top_ == free_.get()) {  // MakeRoom() may have freed a group of ours
    absl::Status status = AddExtent();
    if (status.ok()) break;
    if (!make_room || status.code() != absl::StatusCode::kResourceExhausted ||
        !source_.MakeRoom()) {
      return status;
    }
  }
  return TakeFree();
}

void GroupAllocator::FreedOfFrozen(Books& books) {
  if (adopting_ || books.InUse() > 0) return;
  books.goes = true;
  Drop();
}

}  // namespace kvasir
