// Extents that outlive their process: who may take one over, and what an allocator does with it.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "allocator/group_allocator.h"
#include "allocator/host_pool.h"
#include "base/bytes.h"
#include "base/error.h"

namespace kvasir {
namespace {

constexpr uint64_t kGroup = 2 * kPageBytes;

// As a process before left it: made, filled, sealed, its mapping gone.
UniqueFd Left(uint64_t bytes, ExtentUse use = ExtentUse::kKept) {
  std::unique_ptr<Extent> extent = *Extent::Create({bytes, true, -1, false}, 3);
  for (uint64_t at = 0; at < bytes; at += kPageBytes) {
    std::memset(extent->data() + at, static_cast<int>(at / kPageBytes + 1), kPageBytes);
  }
  EXPECT_TRUE(extent->Seal(use).ok());
  return *extent->Duplicate();
}

std::unique_ptr<Extent> Adopt(uint64_t bytes) {
  absl::StatusOr<std::unique_ptr<Extent>> extent = Extent::Adopt(Left(bytes), bytes, 3);
  EXPECT_TRUE(extent.ok()) << MessageOf(extent.status());
  return *std::move(extent);
}

class CountingSource final : public ExtentSource {
 public:
  absl::StatusOr<std::unique_ptr<Extent>> TakeExtent(uint64_t bytes, ExtentUse use) override {
    if (!gives) return ResourceExhausted("nothing is given");
    absl::StatusOr<std::unique_ptr<Extent>> extent = Extent::Create({bytes, false, -1, false}, 50);
    EXPECT_TRUE((*extent)->Seal(use).ok());
    return extent;
  }
  void ReturnExtent(std::unique_ptr<Extent> extent) override { returned.push_back(extent->id()); }
  bool MakeRoom() override {
    ++asked_for_room;
    return false;
  }
  bool gives = true;
  int asked_for_room = 0;
  std::vector<uint64_t> returned;
};

TEST(FrozenExtentTest, HasTheBytesAndIsNeverWritten) {
  const std::unique_ptr<Extent> extent = Adopt(4 * kPageBytes);
  EXPECT_TRUE(extent->frozen());
  EXPECT_EQ(extent->use(), ExtentUse::kKept);
  EXPECT_EQ(extent->data()[3 * kPageBytes], std::byte{4});
  EXPECT_TRUE(extent->TouchFrozen(false));
  // Not even by a mapping of the descriptor that made it.
  const absl::StatusOr<UniqueFd> copy = extent->Duplicate();
  ASSERT_TRUE(copy.ok());
  EXPECT_EQ(::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, copy->get(), 0),
            MAP_FAILED);
  // A duplicate is nobody else's; a peer's descriptor is.
  EXPECT_EQ(extent->Probe(), ProbeResult::kFree);
  const absl::StatusOr<UniqueFd> peer = extent->OpenForPeer();
  ASSERT_TRUE(peer.ok());
  EXPECT_EQ(extent->Probe(), ProbeResult::kHeld);
}

TEST(FrozenExtentTest, OthersAreNotAdopted) {
  const auto code = [](UniqueFd fd, uint64_t bytes) {
    return Extent::Adopt(std::move(fd), bytes, 3).status().code();
  };
  const auto refused = absl::StatusCode::kFailedPrecondition;
  EXPECT_EQ(code(Left(4 * kPageBytes), 3 * kPageBytes), refused);
  EXPECT_EQ(code(Left(4 * kPageBytes), 5 * kPageBytes), refused);
  EXPECT_EQ(code(Left(4 * kPageBytes), 0), refused);
  EXPECT_EQ(code(Left(4 * kPageBytes, ExtentUse::kRecent), 4 * kPageBytes), refused);
  UniqueFd open(::memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(open.get(), kPageBytes), 0);
  EXPECT_EQ(code(std::move(open), kPageBytes), refused);
}

TEST(FrozenExtentTest, GoesWithItsLastGroupAndTakesNoNewOne) {
  CountingSource source;
  GroupAllocator allocator({kGroup, ExtentUse::kKept, kGroup, kGroup}, source);
  std::unique_ptr<Extent> owned = Adopt(4 * kGroup);
  Extent& extent = *owned;
  ASSERT_TRUE(allocator.Adopt(std::move(owned)).ok());
  const absl::StatusOr<Group> first = allocator.Claim(extent, 0);
  const absl::StatusOr<Group> third = allocator.Claim(extent, 2 * kGroup);
  ASSERT_TRUE(first.ok() && third.ok());
  for (const uint64_t wrong : {uint64_t{0}, uint64_t{1}, kGroup + 64, 4 * kGroup, ~uint64_t{0}}) {
    EXPECT_FALSE(allocator.Claim(extent, wrong).ok()) << wrong;
  }
  allocator.EndAdoption();
  EXPECT_EQ(allocator.held_bytes(), 2 * kGroup);
  EXPECT_EQ(allocator.charged_bytes(), 4 * kGroup);
  ASSERT_EQ(allocator.FrozenExtents().size(), 1U);
  EXPECT_EQ(allocator.FrozenExtents()[0].share, 0.5);
  // The free halves are not given out.
  const absl::StatusOr<Group> fresh = allocator.Allocate();
  ASSERT_TRUE(fresh.ok());
  EXPECT_NE(fresh->extent, &extent);
  allocator.Free(*first);
  EXPECT_EQ(allocator.FrozenExtents()[0].share, 0.25);
  EXPECT_TRUE(source.returned.empty());
  allocator.Free(*third);
  EXPECT_EQ(source.returned, (std::vector<uint64_t>{3}));
  EXPECT_TRUE(allocator.FrozenExtents().empty());
  allocator.Free(*fresh);
}

TEST(FrozenExtentTest, OneThatNobodyClaimsGoesAtTheEndOfAdoption) {
  CountingSource source;
  GroupAllocator allocator({kGroup, ExtentUse::kKept, kGroup, kGroup}, source);
  std::unique_ptr<Extent> owned = Adopt(2 * kGroup);
  Extent& extent = *owned;
  ASSERT_TRUE(allocator.Adopt(std::move(owned)).ok());
  // Claimed in vain, and again: it must not go between.
  for (int i = 0; i < 2; ++i) {
    const absl::StatusOr<Group> group = allocator.Claim(extent, kGroup);
    ASSERT_TRUE(group.ok());
    allocator.Free(*group);
  }
  EXPECT_TRUE(source.returned.empty());
  allocator.EndAdoption();
  EXPECT_EQ(source.returned.size(), 1U);
  // Of half a group, or one that can be written, is none to adopt.
  EXPECT_FALSE(allocator.Adopt(Adopt(kPageBytes)).ok());
  std::unique_ptr<Extent> own = *Extent::Create({kGroup, false, -1, false}, 4);
  ASSERT_TRUE(own->Seal(ExtentUse::kKept).ok());
  EXPECT_FALSE(allocator.Adopt(std::move(own)).ok());
  EXPECT_EQ(source.returned.size(), 3U);
  EXPECT_EQ(allocator.charged_bytes(), 0U);
}

TEST(FrozenExtentTest, AllocatingWithoutRoomAsksNobodyForIt) {
  CountingSource source;
  source.gives = false;
  GroupAllocator allocator({kGroup, ExtentUse::kKept, kGroup, kGroup}, source);
  EXPECT_EQ(allocator.AllocateWithoutMakingRoom().status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(source.asked_for_room, 0);
  EXPECT_FALSE(allocator.Allocate().ok());
  EXPECT_EQ(source.asked_for_room, 1);
}

TEST(FrozenExtentTest, APoolCountsWhatIsTakenOver) {
  HostPoolOptions options;
  options.pool_bytes = 8 * kMiB;
  options.ready_bytes = 4 * kMiB;
  options.extent_bytes = options.small_extent_bytes = kMiB;
  options.lock = Demand::kOff;
  options.adopted_bytes = 6 * kMiB;
  options.first_id = 70;
  options.ready_at_start_bytes = kMiB;
  const std::unique_ptr<HostPool> pool = *HostPool::Create(options, nullptr);
  EXPECT_EQ(pool->counts().charged_bytes, 6 * kMiB);
  EXPECT_EQ(pool->counts().ready_bytes, kMiB);
  EXPECT_EQ(pool->counts().idle_bytes, kMiB);
  EXPECT_TRUE(pool->CheckConservation().ok());
  while (pool->RefillOnce()) {
  }
  EXPECT_EQ(pool->counts().ready_bytes, 2 * kMiB);
  EXPECT_GE((*pool->Take(kMiB, ExtentUse::kKept))->id(), 70U);
  std::vector<uint64_t> returned;
  pool->set_returned([&](uint64_t id) { returned.push_back(id); });
  std::unique_ptr<Extent> extent = *Extent::Adopt(Left(2 * kMiB), 2 * kMiB, 9);
  pool->Return(std::move(extent));
  EXPECT_EQ(returned, (std::vector<uint64_t>{9}));
  EXPECT_TRUE(pool->CheckConservation().ok());

  options.pool_bytes = 4 * kMiB;  // smaller than what is there
  const std::unique_ptr<HostPool> small = *HostPool::Create(options, nullptr);
  EXPECT_EQ(small->counts().over_bytes, 2 * kMiB);
  EXPECT_FALSE(small->Take(kPageBytes, ExtentUse::kKept).ok());
  EXPECT_TRUE(small->CheckConservation().ok());
}

}  // namespace
}  // namespace kvasir
