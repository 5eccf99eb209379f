// GroupAllocator: exact cuts, no tail, smaller extents near a limit, and no group given twice.
#include "allocator/group_allocator.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

// A budget of bytes without a pool behind it.
class BudgetSource final : public ExtentSource {
 public:
  explicit BudgetSource(uint64_t bytes) : left_(bytes) {}
  absl::StatusOr<std::unique_ptr<Extent>> TakeExtent(uint64_t bytes, ExtentUse use) override {
    if (bytes > left_) return ResourceExhausted("wanted={} left={}", bytes, left_);
    absl::StatusOr<std::unique_ptr<Extent>> extent =
        Extent::Create({bytes, false, -1, false}, next_id_++);
    EXPECT_TRUE((*extent)->Seal(use).ok());
    left_ -= bytes;
    taken.push_back(bytes);
    return extent;
  }
  void ReturnExtent(std::unique_ptr<Extent> extent) override { left_ += extent->bytes(); }
  uint64_t left() const { return left_; }
  std::vector<uint64_t> taken;

 private:
  uint64_t left_;
  uint64_t next_id_ = 1;
};

constexpr uint64_t kGroup = 3 * kPageBytes;
const GroupAllocator::Options kOptions{kGroup, ExtentUse::kRecent, 64 * kKiB, 256 * kKiB};

TEST(GroupAllocatorTest, ExtentsAreWholeNumbersOfGroupsAndGrow) {
  BudgetSource source(8 * kMiB);
  {
    GroupAllocator allocator(kOptions, source);
    std::vector<Group> groups;
    for (int i = 0; i < 200; ++i) {
      const absl::StatusOr<Group> group = allocator.Allocate();
      ASSERT_TRUE(group.ok());
      EXPECT_EQ(group->offset % kGroup, 0U);
      EXPECT_LE(group->offset + kGroup, group->extent->bytes());
      groups.push_back(*group);
    }
    for (const uint64_t bytes : source.taken) EXPECT_EQ(bytes % kGroup, 0U) << "a tail is wasted";
    EXPECT_LT(source.taken[0], source.taken[1]);
    EXPECT_LE(*std::max_element(source.taken.begin(), source.taken.end()), 256 * kKiB);
    EXPECT_EQ(allocator.held_bytes(), 200 * kGroup);
    for (const Group& group : groups) allocator.Free(group);
  }
  EXPECT_EQ(source.left(), 8 * kMiB);
}

TEST(GroupAllocatorTest, AGroupLargerThanAnExtentGetsOneOfItsOwn) {
  BudgetSource source(8 * kMiB);
  GroupAllocator allocator({kMiB, ExtentUse::kKept, 64 * kKiB, 256 * kKiB}, source);
  const absl::StatusOr<Group> group = allocator.Allocate();
  ASSERT_TRUE(group.ok());
  EXPECT_EQ(allocator.charged_bytes(), kMiB);
  allocator.Free(*group);
}

TEST(GroupAllocatorTest, TheLastGroupOfTheBudgetIsUsed) {
  BudgetSource source(21 * kGroup + 100);
  GroupAllocator allocator(kOptions, source);
  std::vector<Group> groups;
  for (;;) {
    const absl::StatusOr<Group> group = allocator.Allocate();
    if (!group.ok()) {
      EXPECT_EQ(group.status().code(), absl::StatusCode::kResourceExhausted);
      break;
    }
    groups.push_back(*group);
  }
  EXPECT_EQ(groups.size(), 21U);
  for (const Group& group : groups) allocator.Free(group);
}

TEST(GroupAllocatorTest, RandomUseGivesNoGroupTwice) {
  const char* text = std::getenv("KVASIR_SEED");
  const uint64_t seed = text != nullptr ? std::strtoull(text, nullptr, 10) : 77;
  fmt::print("KVASIR_SEED={}\n", seed);
  std::mt19937_64 random(seed);
  BudgetSource source(100 * kGroup);
  GroupAllocator allocator(kOptions, source);
  std::vector<Group> held;
  std::set<std::pair<uint64_t, uint64_t>> names;
  for (int step = 0; step < 5000; ++step) {
    if (random() % 2 == 0 && !held.empty()) {
      const size_t at = random() % held.size();
      allocator.Free(held[at]);
      names.erase({held[at].extent->id(), held[at].offset});
      held[at] = held.back();
      held.pop_back();
    } else if (const absl::StatusOr<Group> group = allocator.Allocate(); group.ok()) {
      ASSERT_TRUE(names.emplace(group->extent->id(), group->offset).second);
      held.push_back(*group);
    }
    ASSERT_EQ(allocator.held_bytes(), held.size() * kGroup);
    ASSERT_LE(allocator.held_bytes(), allocator.charged_bytes());
  }
  for (const Group& group : held) allocator.Free(group);
}

TEST(GroupAllocatorTest, ExtentsOfManyGroupsComeAndGo) {
  constexpr uint64_t kGroups = 700;  // in extents of 256
  BudgetSource source(kGroups * kPageBytes);
  GroupAllocator allocator({kPageBytes, ExtentUse::kKept, kMiB, kMiB}, source);
  std::mt19937_64 random(5);
  for (int round = 0; round < 3; ++round) {
    std::vector<Group> held;
    std::set<std::pair<uint64_t, uint64_t>> names;
    for (uint64_t i = 0; i < kGroups; ++i) {
      const absl::StatusOr<Group> group = allocator.Allocate();
      ASSERT_TRUE(group.ok());
      ASSERT_TRUE(names.emplace(group->extent->id(), group->offset).second);
      held.push_back(*group);
    }
    EXPECT_FALSE(allocator.Allocate().ok());
    std::shuffle(held.begin(), held.end(), random);
    while (held.size() > 1) {
      allocator.Free(held.back());
      EXPECT_EQ(allocator.AllocateWithoutMakingRoom().value(), held.back()) << "freed last";
      allocator.Free(held.back());
      held.pop_back();
    }
    EXPECT_EQ(allocator.held_bytes(), kPageBytes);
    allocator.ReturnIdleExtents();  // the groups of others must go with them
    EXPECT_EQ(allocator.extent_count(), 1U);
    for (uint64_t i = 1; i < held[0].extent->bytes() / kPageBytes; ++i) {
      const absl::StatusOr<Group> group = allocator.Allocate();
      ASSERT_TRUE(group.ok());
      ASSERT_EQ(group->extent, held[0].extent);
      held.push_back(*group);
    }
    for (const Group& group : held) allocator.Free(group);
    allocator.ReturnIdleExtents();
    EXPECT_EQ(allocator.extent_count(), 0U);
    EXPECT_EQ(source.left(), kGroups * kPageBytes);
  }
}

TEST(GroupAllocatorDeathTest, BrokenBooksEndTheProcess) {
  EXPECT_DEATH(
      {
        BudgetSource source(8 * kMiB);
        GroupAllocator allocator(kOptions, source);
        const Group group = *allocator.Allocate();
        allocator.Free(group);
        allocator.Free(group);
      },
      "double free");
  EXPECT_DEATH(
      {
        BudgetSource source(8 * kMiB);
        GroupAllocator allocator(kOptions, source);
        (void)*allocator.Allocate();
      },
      "groups are still allocated");
}

TEST(GroupAllocatorTest, IdleExtentsGoBackUnlessAPeerHasThem) {
  BudgetSource source(8 * kMiB);
  GroupAllocator allocator(kOptions, source);
  std::vector<Group> groups;
  std::set<Extent*> extents;
  while (extents.size() < 3) {
    groups.push_back(*allocator.Allocate());
    extents.insert(groups.back().extent);
  }
  Extent* const first = groups.front().extent;
  Extent* const last = groups.back().extent;
  const uint64_t last_bytes = last->bytes();
  for (const Group& group : groups) {
    if (group.extent != last) allocator.Free(group);
  }
  absl::StatusOr<UniqueFd> peer = first->OpenForPeer();
  ASSERT_TRUE(peer.ok()) << MessageOf(peer.status());
  allocator.ReturnIdleExtents();
  EXPECT_EQ(allocator.extent_count(), 2U);  // the one in use and the one that a peer has
  EXPECT_EQ(allocator.charged_bytes(), first->bytes() + last_bytes);
  EXPECT_EQ(source.left() + allocator.charged_bytes(), 8 * kMiB);
  EXPECT_TRUE(allocator.AnyUnmapped());
  {
    const absl::StatusOr<UniqueFd> other = last->OpenForPeer();
    ASSERT_TRUE(other.ok());
    EXPECT_FALSE(allocator.AnyUnmapped()) << "peers have both";
  }
  while (allocator.extent_count() == 2) {  // what is left has its room
    groups.push_back(*allocator.Allocate());
    if (groups.back().extent == first) break;
  }
  EXPECT_EQ(groups.back().extent, first);
  for (const Group& group : groups) {
    if (group.extent == last || &group == &groups.back()) allocator.Free(group);
  }
  *peer = UniqueFd();
  allocator.ReturnIdleExtents();
  EXPECT_EQ(allocator.extent_count(), 0U);
  EXPECT_EQ(source.left(), 8 * kMiB);
}

// Whoever owns the memory frees a group of the very allocator that asks, then nothing more.
class YieldingSource final : public ExtentSource {
 public:
  explicit YieldingSource(uint64_t bytes) : budget_(bytes) {}
  absl::StatusOr<std::unique_ptr<Extent>> TakeExtent(uint64_t bytes, ExtentUse use) override {
    return budget_.TakeExtent(bytes, use);
  }
  void ReturnExtent(std::unique_ptr<Extent> extent) override {
    budget_.ReturnExtent(std::move(extent));
  }
  bool MakeRoom() override {
    ++asked;
    if (spare.empty()) return false;
    allocator->Free(spare.back());
    spare.pop_back();
    return true;
  }
  GroupAllocator* allocator = nullptr;
  std::vector<Group> spare;
  int asked = 0;

 private:
  BudgetSource budget_;
};

TEST(GroupAllocatorTest, RoomIsMadeOnlyWhereNotOneGroupIsLeft) {
  YieldingSource source(10 * kGroup);
  GroupAllocator allocator(kOptions, source);
  source.allocator = &allocator;
  std::vector<Group> groups;
  for (int i = 0; i < 10; ++i) groups.push_back(*allocator.Allocate());
  EXPECT_EQ(source.asked, 0);
  source.spare = {groups[3], groups[4]};
  const absl::StatusOr<Group> first = allocator.Allocate();
  const absl::StatusOr<Group> second = allocator.Allocate();
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(*first, groups[4]);
  EXPECT_EQ(*second, groups[3]);
  EXPECT_EQ(allocator.Allocate().status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(source.asked, 3);
  for (const Group& group : groups) allocator.Free(group);
}

}  // namespace
}  // namespace kvasir
