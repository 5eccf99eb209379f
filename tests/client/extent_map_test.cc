// ExtentMap: what is held stays mapped, and what is not goes when another extent takes its slot.
#include "client/extent_map.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "device/host/host_device.h"
#include "proto/shm/data_messages.h"

namespace kvasir {
namespace {

constexpr uint64_t kBytes = 8192;
constexpr uint32_t kSlot = 3;

// Whether the page is mapped, asked without touching it.
bool IsMapped(const std::byte* address) {
  unsigned char resident = 0;
  const bool mapped = ::mincore(const_cast<std::byte*>(address), 4096, &resident) == 0;
  EXPECT_TRUE(mapped || errno == ENOMEM);
  return mapped;
}

class ExtentMapTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends.data()), 0);
    daemon_ = UniqueFd(ends[0]);
    engine_ = UniqueFd(ends[1]);
    map_ = std::make_unique<ExtentMap>(engine_);
  }

  // The daemon hands over the extent of this generation, whose first byte says so.
  std::byte* Take(uint32_t generation) {
    const UniqueFd memory(::memfd_create("extent", MFD_CLOEXEC));
    EXPECT_EQ(::ftruncate(memory.get(), kBytes), 0);
    const auto mark = static_cast<char>(generation);
    EXPECT_EQ(::pwrite(memory.get(), &mark, 1, 0), 1);
    shm::ExtentNotice notice{};
    notice.kind = static_cast<uint32_t>(shm::MessageKind::kExtent);
    notice.extent_kind = static_cast<uint32_t>(shm::ExtentKind::kKept);
    notice.slot = kSlot;
    notice.generation = generation;
    notice.bytes = kBytes;
    const std::array<int, 1> fds{memory.get()};
    EXPECT_TRUE(SendMessage(daemon_, std::as_bytes(std::span(&notice, 1)), fds).ok());
    const absl::StatusOr<std::byte*> at =
        map_->At(kSlot, generation, 0, kBytes, std::chrono::steady_clock::now());
    EXPECT_TRUE(at.ok()) << at.status();
    EXPECT_EQ(static_cast<uint32_t>(**at), generation);
    return *at;
  }

  // The daemon hands over a pair of two groups, whose rows lie on `of`.
  absl::Status TakePair(device::HostDevice& of, uint32_t generation, uint64_t offset,
                        const shm::GroupGeometry& geometry, GroupPlace* place) {
    auto rows = of.CreateExtent(2 * kGroup, 1);
    EXPECT_TRUE(rows.ok()) << rows.status();
    (*rows)->address()[kGroup] = std::byte{7};
    const UniqueFd trailers(::memfd_create("trailers", MFD_CLOEXEC));
    EXPECT_EQ(::ftruncate(trailers.get(), 2 * 4096), 0);
    const char mark = 9;
    EXPECT_EQ(::pwrite(trailers.get(), &mark, 1, 4096), 1);
    shm::DeviceExtentNotice notice{};
    notice.kind = static_cast<uint32_t>(shm::MessageKind::kDeviceExtent);
    notice.extent_kind = static_cast<uint32_t>(shm::ExtentKind::kKept);
    notice.slot = kSlot;
    notice.generation = generation;
    notice.bytes = 2 * 4096;
    notice.rows_bytes = 2 * kGroup;
    notice.granularity_bytes = of.facts().granularity_bytes;
    notice.group_bytes = kGroup;
    notice.trailer_bytes = 4096;
    notice.device_kind = static_cast<uint32_t>(shm::DeviceKind::kHost);
    std::memcpy(notice.device_uuid, of.facts().uuid.data(), of.facts().uuid.size());
    const absl::StatusOr<UniqueFd> memory = (*rows)->ExportFd();
    EXPECT_TRUE(memory.ok());
    const std::array<int, 2> fds{trailers.get(), memory->get()};
    EXPECT_TRUE(SendMessage(daemon_, std::as_bytes(std::span(&notice, 1)), fds).ok());
    const absl::StatusOr<GroupPlace> at =
        map_->GroupAt(kSlot, generation, offset, geometry, std::chrono::steady_clock::now());
    if (at.ok()) *place = *at;
    return at.status();
  }

  static constexpr uint64_t kGroup = 65536;
  static shm::GroupGeometry PairGeometry() {
    shm::GroupGeometry geometry;
    geometry.pos_off = kGroup;
    geometry.bytes = kGroup + 4096;
    return geometry;
  }

  UniqueFd daemon_, engine_;
  std::unique_ptr<ExtentMap> map_;
};

TEST_F(ExtentMapTest, AnExtentGoesWhenAnotherTakesItsSlot) {
  const std::byte* const first = Take(1);
  Take(2);
  EXPECT_FALSE(IsMapped(first));
}

TEST_F(ExtentMapTest, WhatIsHeldStaysUntilItIsGivenBack) {
  const std::byte* const first = Take(1);
  std::shared_ptr<const void> hold = map_->Hold();
  const std::byte* const second = Take(2);
  Take(3);
  EXPECT_EQ(static_cast<uint32_t>(*first), 1U);
  EXPECT_EQ(static_cast<uint32_t>(*second), 2U);
  hold.reset();
  EXPECT_FALSE(IsMapped(first));
  EXPECT_FALSE(IsMapped(second));
}

TEST_F(ExtentMapTest, ALaterHoldDoesNotKeepWhatWasGone) {
  const std::byte* const first = Take(1);
  std::shared_ptr<const void> early = map_->Hold();
  const std::byte* const second = Take(2);
  const std::shared_ptr<const void> late = map_->Hold();
  Take(3);
  early.reset();
  EXPECT_FALSE(IsMapped(first));
  EXPECT_EQ(static_cast<uint32_t>(*second), 2U);
}

TEST_F(ExtentMapTest, AHoldOutlivesTheMap) {
  const std::byte* const first = Take(1);
  std::shared_ptr<const void> hold = map_->Hold();
  const std::byte* const second = Take(2);
  map_.reset();
  EXPECT_EQ(static_cast<uint32_t>(*first), 1U);
  EXPECT_EQ(static_cast<uint32_t>(*second), 2U);
  hold.reset();
  EXPECT_FALSE(IsMapped(first));
  EXPECT_FALSE(IsMapped(second));
}

TEST_F(ExtentMapTest, AGroupOfAPairHasItsRowsOnTheDeviceAndItsTrailerHere) {
  const auto device = *device::HostDevice::Create({});
  map_ = std::make_unique<ExtentMap>(engine_, std::vector<device::Device*>{device.get()});
  GroupPlace place;
  ASSERT_TRUE(TakePair(*device, 1, kGroup, PairGeometry(), &place).ok());
  EXPECT_EQ(place.device, device.get());
  EXPECT_EQ(place.planes[0], std::byte{7});
  EXPECT_EQ(place.trailer[0], std::byte{9});
  EXPECT_EQ(map_->mapped_bytes(), 2 * kGroup + 2 * 4096);
  EXPECT_EQ(map_->At(kSlot, 1, 0, 4096, std::chrono::steady_clock::now()).status().code(),
            absl::StatusCode::kDataLoss);
  const auto at = [&](uint64_t offset, const shm::GroupGeometry& geometry, Access access) {
    return map_->GroupAt(kSlot, 1, offset, geometry, std::chrono::steady_clock::now(), access)
        .status()
        .code();
  };
  shm::GroupGeometry other = PairGeometry();
  other.bytes += 4096;
  EXPECT_EQ(at(0, other, Access::kReadOnly), absl::StatusCode::kDataLoss);
  EXPECT_EQ(at(4096, PairGeometry(), Access::kReadOnly), absl::StatusCode::kDataLoss);
  EXPECT_EQ(at(2 * kGroup, PairGeometry(), Access::kReadOnly), absl::StatusCode::kDataLoss);
  EXPECT_EQ(at(0, PairGeometry(), Access::kReadWrite), absl::StatusCode::kDataLoss);
  // Another extent in its slot takes its place on the device too.
  const std::shared_ptr<const void> hold = map_->Hold();
  const std::byte* const rows = place.planes;
  Take(2);
  EXPECT_EQ(*rows, std::byte{7});
  map_.reset();
}

TEST_F(ExtentMapTest, APairOfADeviceThatIsNotThereIsRefused) {
  const auto device = *device::HostDevice::Create({});
  GroupPlace place;
  EXPECT_EQ(TakePair(*device, 1, 0, PairGeometry(), &place).code(),
            absl::StatusCode::kFailedPrecondition);
}

// There is no other notice: who waited for one would wait for the hour.
TEST_F(ExtentMapTest, AnImportThatFailedIsTriedAgainAndNobodyWaits) {
  const auto device = *device::HostDevice::Create({});
  map_ = std::make_unique<ExtentMap>(engine_, std::vector<device::Device*>{device.get()});
  device->FailImportsForTest(3);  // the first call tries when it comes and when it is asked for
  GroupPlace place;
  EXPECT_EQ(TakePair(*device, 1, 0, PairGeometry(), &place).code(),
            absl::StatusCode::kResourceExhausted);
  const auto later = [&] {
    return map_->GroupAt(kSlot, 1, kGroup, PairGeometry(),
                         std::chrono::steady_clock::now() + std::chrono::hours(1));
  };
  const absl::StatusOr<GroupPlace> refused = later();
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(refused.status().message().find("as a test asked for"), absl::string_view::npos);
  EXPECT_EQ(map_->mapped_bytes(), 0U);
  const absl::StatusOr<GroupPlace> there = later();
  ASSERT_TRUE(there.ok()) << there.status();
  EXPECT_EQ(there->planes[0], std::byte{7});
  EXPECT_EQ(map_->mapped_bytes(), 2 * kGroup + 2 * 4096);
  map_.reset();
}

TEST_F(ExtentMapTest, APairOfADeviceThatIsNotThereIsRefusedAgainAndHoldsNothing) {
  const auto device = *device::HostDevice::Create({});
  GroupPlace place;
  const std::byte* const before = Take(1);
  EXPECT_EQ(TakePair(*device, 2, 0, PairGeometry(), &place).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(IsMapped(before)) << "its slot is another's";
  EXPECT_EQ(map_->GroupAt(kSlot, 2, 0, PairGeometry(),
                          std::chrono::steady_clock::now() + std::chrono::hours(1))
                .status()
                .code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(*device->FreeBytes(), device->facts().total_bytes) << "a descriptor is still open";
  // What comes next is found behind it.
  Take(3);
}

TEST_F(ExtentMapTest, ALongChainEndsWithoutDeepRecursion) {
  Take(1);
  std::shared_ptr<const void> hold = map_->Hold();
  for (uint32_t generation = 2; generation < 200; ++generation) Take(generation);
  map_.reset();
  hold.reset();
}

}  // namespace
}  // namespace kvasir
