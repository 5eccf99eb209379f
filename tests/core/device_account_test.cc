// What tenants may take of one device, and pairs: taken, held by others, given back.
#include "daemon/core/device_account.h"

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "device/host/host_device.h"
#include "tests/core/fake_engine.h"

namespace kvasir::core::testing {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr uint64_t kUnit = 64 * kKiB;  // the device's granularity
constexpr uint64_t kPool = 32 * kUnit;
constexpr uint64_t kGroup = 16 * kKiB, kTrailer = 4 * kKiB;

class DeviceAccountTest : public ::testing::Test {
 protected:
  DeviceAccountTest() {
    device::HostDeviceOptions options;
    options.total_bytes = kPool;
    options.granularity_bytes = kUnit;
    auto opened = device::HostDevice::Create(options);
    device_ = opened->get();
    auto memory = DeviceMemory::Create(*std::move(opened), {"gpu0", kPool, kUnit, 4 * kUnit});
    EXPECT_TRUE(memory.ok()) << MessageOf(memory.status());
    memory_ = *std::move(memory);
  }

  // What it takes goes back before the account does.
  struct Owner {
    Account host;
    DeviceAccount account;
    std::vector<std::unique_ptr<Extent>> pairs;
    Owner(const std::string& name, uint64_t number, const DeviceBudget& budget, HostPool& pool,
          DeviceMemory& memory, DeviceShares& shares, uint64_t host_limit)
        : host(name, Budget{.limit_bytes = host_limit}, pool, nullptr),
          account(number, budget, memory, shares, host) {}
    ~Owner() {
      for (auto& pair : pairs) account.ReturnPair(std::move(pair));
    }
  };

  Owner& Add(const std::string& name, const DeviceBudget& budget, uint64_t host_limit = kMiB) {
    owners_.push_back(std::make_unique<Owner>(name, owners_.size(), budget, *pool_, *memory_,
                                              shares_, host_limit));
    shares_.Add(owners_.back()->account);
    return *owners_.back();
  }
  static absl::Status Take(Owner& owner, uint64_t groups = kUnit / kGroup) {
    absl::StatusOr<std::unique_ptr<Extent>> pair =
        owner.account.TakePair(groups, kGroup, kTrailer, ExtentUse::kRecent);
    if (pair.ok()) owner.pairs.push_back(*std::move(pair));
    return pair.status();
  }
  static uint64_t TakeAll(Owner& owner) {
    while (Take(owner).ok()) {
    }
    return owner.account.charged_bytes() / kUnit;
  }
  static void GiveBack(Owner& owner, size_t count) {
    for (; count > 0; --count) {
      owner.account.ReturnPair(std::move(owner.pairs.back()));
      owner.pairs.pop_back();
    }
  }

  std::unique_ptr<HostPool> pool_ = MakeTestPool(8 * kMiB);
  std::unique_ptr<DeviceMemory> memory_;
  device::HostDevice* device_ = nullptr;
  Instant now_ = Instant() + milliseconds(1);
  DeviceShares shares_{kPool, now_};
  std::vector<std::unique_ptr<Owner>> owners_;
};

TEST_F(DeviceAccountTest, APairHasAHalfInEachMemoryAndOneCharge) {
  Owner& owner = Add("a", {"gpu0", 0, kPool, 1});
  ASSERT_TRUE(Take(owner, 5).ok());
  const Extent& pair = *owner.pairs[0];
  EXPECT_EQ(pair.rows_bytes(), 5 * kGroup);
  EXPECT_EQ(pair.bytes(), 5 * kTrailer);
  EXPECT_EQ(owner.account.charged_bytes(), 2 * kUnit);
  EXPECT_EQ(owner.account.waste_bytes(), 2 * kUnit - 5 * kGroup);
  EXPECT_EQ(owner.account.trailer_bytes(), 5 * kTrailer);
  EXPECT_EQ(owner.host.charged_bytes(), 5 * kTrailer);
  EXPECT_EQ(memory_->pool().counts().waste_bytes, owner.account.waste_bytes());
  const Group group{owner.pairs[0].get(), 3 * kGroup};
  EXPECT_EQ(group.data(), pair.rows() + 3 * kGroup);
  EXPECT_EQ(group.trailer(kGroup), pair.data() + 3 * kTrailer);
}

TEST_F(DeviceAccountTest, APairIsChargedUntilNobodyHoldsItsHostHalf) {
  Owner& owner = Add("a", {"gpu0", 0, kPool, 1});
  ASSERT_TRUE(Take(owner).ok());
  absl::StatusOr<UniqueFd> held = owner.pairs[0]->OpenForPeer();
  ASSERT_TRUE(held.ok());
  GiveBack(owner, 1);
  EXPECT_TRUE(owner.account.Settle());
  EXPECT_EQ(owner.account.charged_bytes(), kUnit);
  EXPECT_EQ(owner.account.quarantined_rows_bytes(), kUnit);
  held->reset();
  EXPECT_FALSE(owner.account.Settle());
  EXPECT_EQ(owner.account.charged_bytes() + owner.account.trailer_bytes(), 0U);
  EXPECT_EQ(memory_->pool().counts().extents, 0U);
  EXPECT_FALSE(owner.host.Settle());
  EXPECT_EQ(owner.host.charged_bytes(), 0U);
}

TEST_F(DeviceAccountTest, ALimitHoldsToTheRoundedByte) {
  Owner& owner = Add("a", {"gpu0", 0, 3 * kUnit + kUnit / 2, 1});
  EXPECT_EQ(TakeAll(owner), 3U);
  const absl::Status status = Take(owner, 1);  // a group is rounded up to a unit
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(status), HasSubstr("over its limit of the device: device=gpu0 tenant=a"));
}

TEST_F(DeviceAccountTest, WhatIsReservedIsLentToNobody) {
  Owner& reserver = Add("a", {"gpu0", 10 * kUnit, kPool, 1});
  Owner& other = Add("b", {"gpu0", 0, kPool, 1});
  EXPECT_EQ(TakeAll(other), 22U);
  EXPECT_THAT(MessageOf(Take(other)), HasSubstr("others' reservation"));
  EXPECT_EQ(TakeAll(reserver), 10U);
}

TEST_F(DeviceAccountTest, WhoIsAboveItsOwnPartGetsNothingWhileAnotherLacksItsOwn) {
  Owner& heavy = Add("a", {"gpu0", 0, kPool, 3});
  Owner& light = Add("b", {"gpu0", 0, kPool, 1});
  EXPECT_EQ(heavy.account.own_bytes(), 24 * kUnit);
  EXPECT_EQ(light.account.own_bytes(), 8 * kUnit);
  EXPECT_EQ(TakeAll(light), 32U);  // nobody else wants any
  EXPECT_FALSE(Take(heavy).ok());
  GiveBack(light, 4);
  (void)light.account.Settle();
  EXPECT_THAT(MessageOf(Take(light)), HasSubstr("other tenants want their parts of the device"));
  EXPECT_EQ(TakeAll(heavy), 4U);
  GiveBack(light, 4);
  (void)light.account.Settle();
  now_ += DeviceShares::kClaimTime + milliseconds(1);
  EXPECT_TRUE(Take(light).ok());  // the other has not asked again for a while
}

TEST_F(DeviceAccountTest, NothingIsLeftOfAPairThatHasOneHalfOnly) {
  Owner& owner = Add("a", {"gpu0", 0, kPool, 1}, 4 * kTrailer);
  device_->FailCreatesForTest(1);
  EXPECT_EQ(Take(owner).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(owner.host.charged_bytes() + owner.account.charged_bytes(), 0U);
  EXPECT_TRUE(Take(owner).ok());
  const absl::Status status = Take(owner);  // host memory is over
  EXPECT_THAT(MessageOf(status), HasSubstr("tenant is over its limit: tenant=a"));
  int asked = 0;
  owner.host.set_make_room([&asked] { return ++asked == 1; });
  EXPECT_TRUE(owner.account.MakeRoom(nullptr));  // host memory is what it lacks
  GiveBack(owner, 1);
  (void)owner.account.Settle();
  (void)owner.host.Settle();
  EXPECT_TRUE(Take(owner).ok());
  EXPECT_FALSE(owner.account.MakeRoom(nullptr));
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(memory_->pool().counts().charged_bytes, kUnit);
  EXPECT_TRUE(memory_->pool().CheckConservation().ok());
}

TEST_F(DeviceAccountTest, AllocatorsOfAShapeCutPairsAndGiveThemBack) {
  Owner& owner = Add("a", {"gpu0", 0, kPool, 1});
  DeviceAllocators allocators(ExtentUse::kRecent, owner.account);
  shm::GroupGeometry geometry;
  geometry.pos_off = kGroup;
  geometry.bytes = kGroup + kTrailer;
  GroupAllocator& allocator = allocators.For(geometry);
  EXPECT_EQ(&allocator, &allocators.For(geometry));
  std::vector<Group> groups;
  for (int i = 0; i < 9; ++i) {
    const absl::StatusOr<Group> group = allocator.Allocate();
    ASSERT_TRUE(group.ok()) << MessageOf(group.status());
    groups.push_back(*group);
  }
  EXPECT_EQ(allocators.held_bytes(), 9 * kGroup);
  EXPECT_EQ(allocators.rows_bytes() + owner.account.waste_bytes(), owner.account.charged_bytes());
  for (const Group& group : groups) allocator.Free(group);
  allocators.ReturnIdleExtents();
  EXPECT_FALSE(owner.account.Settle());
  EXPECT_EQ(owner.account.charged_bytes(), 0U);
}

TEST_F(DeviceAccountTest, ADeviceThatIsLostGivesNothingAndSaysSo) {
  Owner& owner = Add("a", {"gpu0", 0, kPool, 1});
  ASSERT_TRUE(Take(owner).ok());
  device_->LoseForTest("fell off the bus");
  EXPECT_EQ(Take(owner).code(), absl::StatusCode::kUnavailable);
  GiveBack(owner, 1);
  EXPECT_FALSE(owner.account.Settle());
  EXPECT_EQ(owner.account.charged_bytes(), 0U);
}

}  // namespace
}  // namespace kvasir::core::testing
