// ExtentMap: what is held stays mapped, and what is not goes when another extent takes its slot.
#include "client/extent_map.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>
#include <span>

#include <gtest/gtest.h>

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

TEST_F(ExtentMapTest, ALongChainEndsWithoutDeepRecursion) {
  Take(1);
  std::shared_ptr<const void> hold = map_->Hold();
  for (uint32_t generation = 2; generation < 200; ++generation) Take(generation);
  map_.reset();
  hold.reset();
}

}  // namespace
}  // namespace kvasir
