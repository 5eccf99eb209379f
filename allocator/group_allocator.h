// GroupAllocator: block groups of one size, cut from the extents of one owner, in O(1).
//
// No header lies inside an extent; all state is in private memory. Extents are exact multiples of
// the group size, so that no tail is wasted. A frozen extent (extent.h) holds the groups that it
// came with; nothing is allocated in it, and it goes when the last one is freed. Not thread-safe.
//
// Cost of Allocate() and Free() while there is room: a few loads and stores, no call and no branch
// that depends on where groups lie (bench/alloc_bench.cc). What was freed last is given out first.
#ifndef KVASIR_ALLOCATOR_GROUP_ALLOCATOR_H_
#define KVASIR_ALLOCATOR_GROUP_ALLOCATOR_H_

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

  // Of a pair (extent.h) an address of the device, which the processor may not follow.
  std::byte* data() const { return extent->rows() + offset; }
  // Where its trailer begins, which the processor always reads: `pos_off` as in its geometry.
  std::byte* trailer(uint64_t pos_off) const {
    const DeviceRows* const rows = extent->device_rows();
    if (rows == nullptr) return extent->data() + offset + pos_off;
    return extent->data() + offset / rows->group_bytes * rows->trailer_bytes;
  }
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
    if (top_ == free_.get()) [[unlikely]]
      return AllocateWithMoreRoom(/*make_room=*/true);
    return TakeFree();
  }

  // Likewise, but the source is not asked to make room.
  absl::StatusOr<Group> AllocateWithoutMakingRoom() {
    if (top_ == free_.get()) [[unlikely]]
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
    Books& books = *static_cast<Books*>(group.extent->owner_tag());
    const uint64_t index = IndexOf(group.offset);
    if (index >= books.groups || !books.Has(index)) [[unlikely]]
      EndOnDoubleFree(index);
    books.Flip(index);
    if (group.extent->frozen()) [[unlikely]]
      return FreedOfFrozen(books);
    *top_++ = {&books, index};
  }

  // Hands out every extent, for an owner that is gone: whoever takes them waits until nobody holds
  // them. REQUIRES: no group is allocated.
  std::vector<std::unique_ptr<Extent>> ReleaseExtents();

  // Gives the source every extent in which no group is allocated and that nobody else has open or
  // mapped: others would stay charged, and could not be used. Cost: a probe for each idle extent.
  void ReturnIdleExtents();
  // Likewise those that others have: for a source that takes them back from them. True if any went.
  bool ReturnEmptyExtents();

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
  uint64_t extent_count() const { return books_.size(); }

 private:
  // What is known of an extent, in one cache line where it has up to 64 groups.
  struct alignas(64) Books {
    Books(std::unique_ptr<Extent> owned, uint64_t count);
    bool Has(uint64_t index) const { return (words[index / 64] >> (index % 64) & 1) != 0; }
    void Flip(uint64_t index) { words[index / 64] ^= uint64_t{1} << (index % 64); }
    uint64_t InUse() const;

    uint64_t* words;  // a bit for each group in use; the first word lies here where one is enough
    uint64_t groups;
    uint64_t only_word = 0;
    std::unique_ptr<Extent> extent;
    std::unique_ptr<uint64_t[]> more_words;
    bool goes = false;
  };

  // A group that can be given out; of frozen extents there are none.
  struct FreeGroup {
    Books* books;
    uint64_t index;
  };

  // offset / group_bytes without a division, by the inverse rounded up: exact for every multiple of
  // group_bytes, since what is added is offset / 2^64 at most.
  uint64_t IndexOf(uint64_t offset) const {
    return static_cast<uint64_t>(static_cast<unsigned __int128>(offset) * inverse_ >> 64);
  }
  [[noreturn, gnu::cold, gnu::noinline]] static void EndOnDoubleFree(uint64_t index);
  absl::Status AddExtent();
  void PushAll(Books& books);
  [[gnu::cold, gnu::noinline]] absl::StatusOr<Group> AllocateWithMoreRoom(bool make_room);
  // REQUIRES: a group is free.
  Group TakeFree() {
    const FreeGroup& group = *--top_;
    group.books->Flip(group.index);
    return Group{group.books->extent.get(), group.index * options_.group_bytes};
  }
  [[gnu::cold, gnu::noinline]] void FreedOfFrozen(Books& books);
  // Gives the source every extent that goes.
  void Drop();

  const Options options_;
  const uint64_t inverse_;  // 2^64 / group_bytes, rounded up
  ExtentSource& source_;
  uint64_t next_extent_bytes_;
  std::vector<std::unique_ptr<Books>> books_;
  // A stack with room for the groups of all extents, and the place above its last entry.
  std::unique_ptr<FreeGroup[]> free_;
  FreeGroup* top_ = nullptr;
  uint64_t room_ = 0;  // of the stack, in entries
  uint64_t charged_bytes_ = 0;
  bool adopting_ = false;
};

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_GROUP_ALLOCATOR_H_
