// A disk tier on a full file system: a tmpfs of its own, mounted where only this process sees it.
#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "allocator/tier/disk_tier.h"
#include "base/bytes.h"
#include "base/error.h"
#include "tests/tier/tier_blocks.h"
#include "tests/tier/tier_places.h"

#include <sched.h>

namespace kvasir::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr size_t kBytes = 61'440;

class FullDiskTest : public ::testing::Test {
 protected:
  void SetUp() override {
    // A process that is not root makes itself root of a namespace.
    if (::unshare(::geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", folder_.path().c_str(), "tmpfs", 0, "size=48m") != 0) {
      GTEST_SKIP() << "no file system can be mounted here";
    }
    mounted_ = true;
  }
  void TearDown() override {
    if (mounted_) ::umount2(folder_.path().c_str(), MNT_DETACH);
  }
  // Takes all the space that is left.
  void Fill() const {
    std::ofstream file(filler(), std::ios::app);
    const std::string block(4096, 'x');
    while (file.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
    }
  }
  std::string filler() const { return folder_.path() + "/filler"; }

  TempFolder folder_;
  bool mounted_ = false;
};

TEST_F(FullDiskTest, IsMetAtTheStart) {
  const std::string path = folder_.path() + "/tier";
  const auto tier = DiskTier::Open(SmallDisk(path, 64 * kMiB), MakeSystemIo());
  EXPECT_TRUE(absl::IsResourceExhausted(tier.status())) << tier.status();
  EXPECT_THAT(MessageOf(tier.status()),
              AllOf(HasSubstr(path), HasSubstr("capacity_bytes=67108864 max=33554432")));
  EXPECT_FALSE(std::filesystem::exists(path + "/segment-000000"));
}

// What a larger folder has now is room for a smaller one, and the other way round.
TEST_F(FullDiskTest, CountsWhatTheFolderHas) {
  const std::string path = folder_.path() + "/tier";
  for (const uint64_t bytes : {32 * kMiB, 20 * kMiB, 24 * kMiB}) {
    {
      const auto tier = DiskTier::Open(SmallDisk(path, bytes), MakeSystemIo());
      ASSERT_TRUE(tier.ok()) << tier.status();
      ASSERT_EQ(WriteBlock(**tier, bytes, kBytes), absl::OkStatus());
    }
    EXPECT_FALSE(DiskTier::Open(SmallDisk(path, 64 * kMiB), MakeSystemIo()).ok());
    const auto tier = DiskTier::Open(SmallDisk(path, bytes), MakeSystemIo());
    ASSERT_TRUE(tier.ok()) << tier.status();
    EXPECT_EQ(OutcomeOf(**tier, bytes, kBytes), "hit");
  }
}

TEST_F(FullDiskTest, ABlockThatTheIndexHasNoRoomForIsNotThere) {
  const DiskTierOptions options = SmallDisk(folder_.path() + "/tier", 32 * kMiB);
  ASSERT_TRUE(DiskTier::Open(options, MakeSystemIo()).ok());
  // RocksDB reserves the room of its log where it can: leave too little for that, but enough for a
  // start.
  Fill();
  std::filesystem::resize_file(filler(), std::filesystem::file_size(filler()) - kMiB);
  auto opened = DiskTier::Open(options, MakeSystemIo());
  ASSERT_TRUE(opened.ok()) << opened.status();
  DiskTier& tier = **opened;
  ASSERT_EQ(WriteBlock(tier, 0, kBytes), absl::OkStatus());
  Fill();
  uint64_t number = 1;
  absl::Status status;
  while (status.ok()) {
    ASSERT_LT(number, 500U);
    status = WriteBlock(tier, number, 10);
    EXPECT_EQ(OutcomeOf(tier, number, 10), status.ok() ? "hit" : "absent") << number;
    ++number;
  }
  EXPECT_FALSE(WriteBlock(tier, 1000, 10).ok());
  EXPECT_EQ(OutcomeOf(tier, 0, kBytes), "hit");
  EXPECT_EQ(tier.Stats().blocks, number - 1);
  // A block that is erased now is gone for good, though the index cannot say so yet.
  const TierKey key = KeyOf(1);
  EXPECT_FALSE(tier.Erase(std::span(&key, 1)).ok());
  EXPECT_EQ(OutcomeOf(tier, 1, 10), "absent");

  std::filesystem::remove(filler());
  EXPECT_EQ(WriteBlock(tier, 1000, kBytes), absl::OkStatus());
  EXPECT_EQ(OutcomeOf(tier, 1000, kBytes), "hit");
  EXPECT_EQ(tier.Flush(), absl::OkStatus());
  opened->reset();
  opened = DiskTier::Open(options, MakeSystemIo());
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(OutcomeOf(**opened, 0, kBytes), "hit");
  EXPECT_EQ(OutcomeOf(**opened, 1000, kBytes), "hit");
  EXPECT_EQ(OutcomeOf(**opened, 1, 10), "absent");
  for (uint64_t each = 2; each + 1 < number; ++each)
    EXPECT_EQ(OutcomeOf(**opened, each, 10), "hit");
}

}  // namespace
}  // namespace kvasir::testing
