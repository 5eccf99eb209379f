// GroupAllocator: block groups of one size, cut from the extents of one owner, in O(1).
//
// No header lies inside an extent; all state is in private memory. Extents are exact multiples of
// the group size, so that no tail is wasted. A frozen extent (extent.h) holds the groups that it
// came with; nothing is allocated in it, and it goes when the last one is freed. Not thread-safe.
//
// Cost of Allocate() and Free() while there is room: a few loads and stores, no call. Free() meets
// the extent's cache line and one of its books, of an extent of over 64 groups one more; Allocate()
// those of the books (bench/alloc_bench.cc). Within an extent the lowest free group is taken.
#ifndef KVASIR_ALLOCATOR_GROUP_ALLOCATOR_H_
#define KVASIR_ALLOCATOR_GROUP_ALLOCATOR_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "allocator/extent.h"
#include "base/check.h"

namespace kvasir {

// One allocated group. A plain value: who holds it gives it back with Free().
struct Group {
  Extent* extent = nullptr;
  uint64_t offset = 0;  // of the group in the extent

  std::byte* data() const { return extent->data() + offset; }
  explicit operator bool() const { return extent != nullptr; }
  friend bool operator==(const Group&, const Group&) = default;
};

// Where extents come from and go to: the owner's account with the pool (daemon/core/account.h).
class ExtentSource {
 public:
  virtual ~ExtentSource() = default;
  // Errors: kResourceExhausted with the figures of the limit that is in the way.
  virtual absl::StatusOr<std::unique_ptr<Extent>> TakeExtent(uint64_t bytes, ExtentUse use) = 0;
  virtual void ReturnExtent(std::unique_ptr<Extent> extent) = 0;
  // Asked when not even room for one group could be had: gives up something that the owner holds
  // for later only. It may free groups of the allocator that asks, and take idle extents from it.
  // True if it did: then it is worth another try.
  virtual bool MakeRoom() { return false; }
};

class GroupAllocator {
 public:
  struct Options {
    uint64_t group_bytes = 0;
    ExtentUse use = ExtentUse::kRecent;
    uint64_t first_extent_bytes = 4ULL << 20;  // target of the first extent; doubles up to the next
    uint64_t extent_bytes = 32ULL << 20;       // target of later extents; at least one group
  };

  // `source` must outlive this.
  GroupAllocator(const Options& options, ExtentSource& source)
      : options_(options),
        inverse_(~uint64_t{0} / options.group_bytes + 1),
        source_(source),
        next_extent_bytes_(options.first_extent_bytes) {}
  GroupAllocator(const GroupAllocator&) = delete;
  GroupAllocator& operator=(const GroupAllocator&) = delete;
  // Gives every extent to the source. REQUIRES: no group is allocated.
  ~GroupAllocator();

  // Errors: the source's. Near a limit it tries ever smaller extents, down to one group, and then
  // has the source make room.
  absl::StatusOr<Group> Allocate() {
    if (with_room_ == nullptr) [[unlikely]]
      return AllocateWithMoreRoom(/*make_room=*/true);
    return TakeFree();
  }

  // Likewise, but the source is not asked to make room.
  absl::StatusOr<Group> AllocateWithoutMakingRoom() {
    if (with_room_ == nullptr) [[unlikely]]
      return AllocateWithMoreRoom(/*make_room=*/false);
    return TakeFree();
  }

  // Takes a frozen extent of whole groups in, of which Claim() says what is allocated. Errors:
  // kInvalidArgument, and the extent goes to the source, where it is none.
  absl::Status Adopt(std::unique_ptr<Extent> extent);
  // The group at `offset` of an adopted extent. Errors: kInvalidArgument where there is none, or it
  // has been claimed.
  absl::StatusOr<Group> Claim(Extent& extent, uint64_t offset);
  // Nothing more is claimed: extents of which nothing was go to the source.
  void EndAdoption();

  // REQUIRES: `group` was returned by Allocate() on *this, or adopted, and is not free.
  void Free(const Group& group) {
    Slab& slab = *static_cast<Slab*>(group.extent->owner_tag());
    const uint64_t index = IndexOf(group.offset);
    KVASIR_CHECK(index < slab.groups && !slab.IsFree(index), "double free: index={}", index);
    slab.words[index / 64] |= uint64_t{1} << (index % 64);
    if (group.extent->frozen()) [[unlikely]]
      return FreedOfFrozen(slab);
    if (slab.with_free == 0) Link(slab);
    slab.with_free |= uint64_t{1} << (index / 64);
  }

  // Hands out every extent, for an owner that is gone: whoever takes them waits until nobody holds
  // them. REQUIRES: no group is allocated.
  std::vector<std::unique_ptr<Extent>> ReleaseExtents();

  // Gives the source every extent in which no group is allocated and that nobody else has open or
  // mapped: others would stay charged, and could not be used. Cost: a probe for each idle extent.
  void ReturnIdleExtents();

  // Whether there is an extent that nobody else has open or mapped, so that it could be returned if
  // its groups were freed. Cost: a probe for each extent up to the first such one.
  bool AnyUnmapped() const;

  // A frozen extent, which lives until its last group is freed, and the share of its groups that
  // are allocated.
  struct Frozen {
    const Extent* extent = nullptr;
    double share = 0;
  };
  std::vector<Frozen> FrozenExtents() const;  // the emptiest first

  uint64_t held_bytes() const;  // cost: a look at the books of every extent
  uint64_t charged_bytes() const { return charged_bytes_; }
  uint64_t group_bytes() const { return options_.group_bytes; }
  uint64_t extent_count() const { return slabs_.size(); }

 private:
  // An extent has no more groups, unless it was adopted: so one word says where free ones are.
  static constexpr uint64_t kGroupsMax = 64 * 64;

  // The books of one extent, a cache line: the words that say which groups are free lie in it where
  // one is enough.
  struct alignas(64) Slab {
    // All groups are free; of a frozen one too, until they are claimed.
    Slab(std::unique_ptr<Extent> owned, uint64_t count);

    bool IsFree(uint64_t index) const { return (words[index / 64] >> (index % 64) & 1) != 0; }
    uint64_t InUse() const;

    std::unique_ptr<Extent> extent;
    uint64_t with_free = 0;  // a bit for each word with a free group; of a frozen one none
    uint64_t* words = nullptr;
    uint64_t only_word = 0;
    std::unique_ptr<uint64_t[]> more_words;
    Slab* newer = nullptr;  // of those with room: what is used before this one
    Slab* older = nullptr;  // and what is used after it
    uint32_t groups = 0;
    uint32_t claimed = 0;  // of a frozen one: in use
  };

  // offset / group_bytes without a division, by the inverse rounded up: exact for every multiple of
  // group_bytes, since what is added is offset / 2^64 at most.
  uint64_t IndexOf(uint64_t offset) const {
    return static_cast<uint64_t>(static_cast<unsigned __int128>(offset) * inverse_ >> 64);
  }
  absl::Status AddExtent();
  absl::StatusOr<Group> AllocateWithMoreRoom(bool make_room);
  // REQUIRES: there is a slab with room.
  Group TakeFree() {
    Slab& slab = *with_room_;
    const auto at = static_cast<uint64_t>(std::countr_zero(slab.with_free));
    uint64_t& word = slab.words[at];
    const uint64_t index = at * 64 + static_cast<uint64_t>(std::countr_zero(word));
    word &= word - 1;
    if (word == 0) {
      slab.with_free &= slab.with_free - 1;
      if (slab.with_free == 0) Unlink(slab);
    }
    return Group{slab.extent.get(), index * options_.group_bytes};
  }
  // Of the list of slabs with room.
  void Link(Slab& slab) {
    slab.older = with_room_;
    if (with_room_ != nullptr) with_room_->newer = &slab;
    with_room_ = &slab;
  }
  void Unlink(Slab& slab) {
    (slab.newer != nullptr ? slab.newer->older : with_room_) = slab.older;
    if (slab.older != nullptr) slab.older->newer = slab.newer;
    slab.newer = slab.older = nullptr;
  }
  void FreedOfFrozen(Slab& slab);
  // Gives the extent of an empty slab to the source.
  void Drop(size_t slab);

  const Options options_;
  const uint64_t inverse_;  // 2^64 / group_bytes, rounded up
  ExtentSource& source_;
  uint64_t next_extent_bytes_;
  std::vector<std::unique_ptr<Slab>> slabs_;
  Slab* with_room_ = nullptr;  // of the slabs with a free group the one that is used first
  uint64_t charged_bytes_ = 0;
  bool adopting_ = false;
};

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_GROUP_ALLOCATOR_H_
