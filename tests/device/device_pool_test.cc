#include "device/device_pool.h"

#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "device/host/host_device.h"

namespace kvasir::device {
namespace {

class DevicePoolTest : public ::testing::Test {
 protected:
  std::unique_ptr<HostDevice> device_ = HostDevice::Create({.total_bytes = 16 * kMiB}).value();
  std::unique_ptr<DevicePool> pool_ = DevicePool::Create(*device_, 8 * kMiB).value();
};

TEST_F(DevicePoolTest, CountsChargedIdleAndTheWasteOfTheGranularity) {
  auto extent = pool_->Take(3 * kMiB, 5).value();
  EXPECT_EQ(pool_->counts().charged_bytes, 4 * kMiB);
  EXPECT_EQ(pool_->counts().idle_bytes, 4 * kMiB);
  EXPECT_EQ(pool_->counts().waste_bytes, 1 * kMiB);
  EXPECT_EQ(pool_->ChargedBytes(5), 4 * kMiB);
  EXPECT_EQ(pool_->ChargedBytes(6), 0U);
  EXPECT_TRUE(pool_->CheckConservation().ok());
  pool_->Return(std::move(extent));
  EXPECT_EQ(pool_->counts().idle_bytes, 8 * kMiB);
  EXPECT_EQ(pool_->counts().waste_bytes, 0U);
  EXPECT_TRUE(pool_->CheckConservation().ok());
}

TEST_F(DevicePoolTest, RefusesBeyondThePoolThoughTheDeviceHasMore) {
  auto extent = pool_->Take(6 * kMiB, 1).value();
  const absl::Status status = pool_->Take(3 * kMiB, 2).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("idle_bytes=2097152"));
  EXPECT_EQ(pool_->Take(9 * kMiB, 2).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(pool_->Take(0, 2).status().code(), absl::StatusCode::kInvalidArgument);
  pool_->Return(std::move(extent));
}

TEST_F(DevicePoolTest, AFailedCreationCostsNobodyAnything) {
  device_->FailCreatesForTest(1);
  EXPECT_EQ(pool_->Take(kMiB, 1).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(pool_->counts().charged_bytes, 0U);
  EXPECT_TRUE(pool_->CheckConservation().ok());
}

TEST_F(DevicePoolTest, APoolIsWholeGranulesOfItsDevice) {
  EXPECT_FALSE(DevicePool::Create(*device_, 3 * kMiB).ok());
  EXPECT_FALSE(DevicePool::Create(*device_, 32 * kMiB).ok());
}

TEST_F(DevicePoolTest, BalancesUnderThreads) {
  std::vector<std::thread> threads;
  for (uint64_t owner = 0; owner < 4; ++owner) {
    threads.emplace_back([this, owner] {
      for (int i = 0; i < 50; ++i) {
        auto extent = pool_->Take((1 + owner) * kMiB, owner);
        EXPECT_TRUE(pool_->CheckConservation().ok());
        if (extent.ok()) pool_->Return(*std::move(extent));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(pool_->counts().charged_bytes, 0U);
  EXPECT_EQ(device_->FreeBytes().value(), 16 * kMiB);
}

}  // namespace
}  // namespace kvasir::device
