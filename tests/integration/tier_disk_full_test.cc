// A daemon on a disk that is full: at the start it says what is too large, and takes nothing; later
// it serves what it has and stores again when there is room.
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>

#include <gmock/gmock.h>

#include "base/bytes.h"
#include "tests/integration/tier_faults.h"
#include "tests/support/eventually.h"

#include <sched.h>

namespace kvasir::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class TierDiskFullTest : public TierFaultsTest {
 protected:
  void StoreAndDoubleTheSize() {
    ASSERT_NO_FATAL_FAILURE(StoreAllAndRestart());
    daemon_.Stop();
    daemon_.config().tier.disk_bytes = 128 * kMiB;
  }
  void ExpectAllIsThereInTheOldSize() {
    EXPECT_EQ(Segments(), 1U);
    daemon_.config().tier.disk_bytes = 64 * kMiB;
    ASSERT_TRUE(daemon_.Start());
    EXPECT_EQ(FoundInAll(), kPrompts * kRows);
    daemon_.ExpectNothingLeft();
    daemon_.Stop();
  }
};

TEST_F(TierDiskFullTest, AReservationThatFailsIsRefusedAndGivenBack) {
  ASSERT_NO_FATAL_FAILURE(StoreAndDoubleTheSize());
  // What was there is reserved already; the new segment meets the end of the disk.
  faults_.Set(FaultPlace::kSegmentReserve, ENOSPC, 1);
  EXPECT_THAT(daemon_.StartAndFail(),
              AllOf(HasSubstr("tier.disk_bytes=134217728"), HasSubstr("67108864 bytes"),
                    HasSubstr(disk_path() + "/blocks/segment-000001")));
  EXPECT_EQ(faults_.Struck(FaultPlace::kSegmentReserve), 1U);
  faults_.Clear();
  ExpectAllIsThereInTheOldSize();
}

TEST_F(TierDiskFullTest, AnIndexThatHasNoRoomIsRefusedAndKeepsWhatItNames) {
  ASSERT_NO_FATAL_FAILURE(StoreAllAndRestart());
  daemon_.Stop();
  faults_.Set(FaultPlace::kIndexWrite, ENOSPC);
  EXPECT_THAT(daemon_.StartAndFail(), AllOf(HasSubstr("index open failed"), HasSubstr(disk_path()),
                                            HasSubstr("No space left on device")));
  EXPECT_GT(faults_.Struck(FaultPlace::kIndexWrite), 0U);
  faults_.Clear();
  ExpectAllIsThereInTheOldSize();
}

TEST_F(TierDiskFullTest, AnIndexThatCannotGrowStoresAgainWhenThereIsRoom) {
  ASSERT_TRUE(daemon_.Start());
  ASSERT_NO_FATAL_FAILURE(PublishAll());
  faults_.Set(FaultPlace::kIndexWrite, ENOSPC);
  EXPECT_THAT(MessageOf(daemon_.Drain()), AllOf(HasSubstr("tier=disk"), HasSubstr("not_stored=4")));
  EXPECT_GT(faults_.Struck(FaultPlace::kIndexWrite), 0U);
  v1::TierInfo tier = daemon_.Tier();
  EXPECT_GT(tier.write_errors(), 0U);
  EXPECT_EQ(tier.tenants(0).store_failures(), kPrompts);
  EXPECT_EQ(tier.tenants(0).prefixes(), 0U);
  EXPECT_EQ(tier.held_bytes(), 0U);
  EXPECT_TRUE(tier.left_out());
  EXPECT_EQ(FoundInAll(), kPrompts * kRows);  // from memory
  ExpectGoesOn();
  faults_.Clear();
  EXPECT_TRUE(Eventually([&] { return daemon_.Drain().ok(); }));
  EXPECT_FALSE(daemon_.Tier().left_out());
  EXPECT_EQ(daemon_.PrefixesIn("disk"), kPrompts + 1);
  daemon_.Kill();
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(FoundInAll(), kPrompts * kRows);
  daemon_.ExpectNothingLeft();
  daemon_.Stop();
}

// Without a reservation, as on file systems that know none, a full disk shows at a write.
class TierFullSegmentTest : public TierDiskFullTest, public ::testing::WithParamInterface<bool> {};

TEST_P(TierFullSegmentTest, IsFullAndNotIll) {
  faults_.board().without_uring = !GetParam();
  ASSERT_TRUE(daemon_.Start());
  ASSERT_NO_FATAL_FAILURE(PublishAll());
  faults_.Set(FaultPlace::kSegmentWrite, ENOSPC);
  EXPECT_EQ(daemon_.Drain().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GE(faults_.Struck(FaultPlace::kSegmentWrite), kPrompts);
  const v1::TierInfo tier = daemon_.Tier();
  EXPECT_EQ(tier.tenants(0).store_failures(), kPrompts);
  EXPECT_EQ(tier.held_bytes(), 0U);
  EXPECT_FALSE(tier.left_out());
  EXPECT_EQ(FoundInAll(), kPrompts * kRows);
  faults_.Clear();
  EXPECT_TRUE(daemon_.Drain().ok());
  daemon_.Kill();
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(FoundInAll(), kPrompts * kRows);
  daemon_.ExpectNothingLeft();
  daemon_.Stop();
}

INSTANTIATE_TEST_SUITE_P(Io, TierFullSegmentTest, ::testing::Bool(),
                         [](const auto& made) { return made.param ? "uring" : "plain"; });

// A file system that is really full: one of the test's own, where only it and its daemon see it.
class TierSmallDiskTest : public TierDiskFullTest {
 protected:
  void Mount(const char* size) {
    ASSERT_TRUE(fs::create_directory(disk_path()));
    if (::unshare(::geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", disk_path().c_str(), "tmpfs", 0, size) != 0) {
      GTEST_SKIP() << "no file system can be mounted here";
    }
    mounted_ = true;
  }
  void TearDown() override {
    if (mounted_) ::umount2(disk_path().c_str(), MNT_DETACH);
  }
  // Takes all the room that is left but `spare` bytes.
  void Fill(uint64_t spare) const {
    const std::string block(4096, 'x');
    std::ofstream file(filler(), std::ios::app);
    while (file.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
    }
    file.close();
    if (spare > 0) fs::resize_file(filler(), fs::file_size(filler()) - spare);
  }
  std::string filler() const { return disk_path() + "/filler"; }

  bool mounted_ = false;
};

TEST_F(TierSmallDiskTest, IsRefusedWithItsBoundBeforeAnythingChanges) {
  ASSERT_NO_FATAL_FAILURE(Mount("size=100m"));
  if (IsSkipped()) return;
  daemon_.config().tier.disk_bytes = 128 * kMiB;
  const uint64_t free = fs::space(disk_path()).available;
  EXPECT_THAT(daemon_.StartAndFail(),
              AllOf(HasSubstr("tier.disk_bytes=134217728"), HasSubstr(disk_path() + "/blocks"),
                    HasSubstr("max=67108864")));
  EXPECT_EQ(Segments(), 0U);
  EXPECT_LT(free - fs::space(disk_path()).available, kMiB);

  daemon_.config().tier.disk_bytes = 64 * kMiB;
  ASSERT_NO_FATAL_FAILURE(StoreAndDoubleTheSize());
  EXPECT_THAT(daemon_.StartAndFail(), HasSubstr("max=67108864"));
  ExpectAllIsThereInTheOldSize();
}

TEST_F(TierSmallDiskTest, ServesWhatItHasAndStoresAgainWhenThereIsRoom) {
  ASSERT_NO_FATAL_FAILURE(Mount("size=100m"));
  if (IsSkipped()) return;
  ASSERT_NO_FATAL_FAILURE(StoreAllAndRestart());
  daemon_.Stop();
  // RocksDB reserves its log where it can: too little room for that, but enough for a start.
  Fill(kMiB);
  ASSERT_TRUE(daemon_.Start());
  Fill(0);
  absl::StatusOr<TierEngine> engine = daemon_.Connect();
  ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
  uint64_t more = 0;
  for (absl::Status drained; drained.ok(); ++more) {
    ASSERT_LT(more, 3000U) << "the disk does not get full";
    ASSERT_TRUE(engine->Publish(PromptOf(1000 + more, 32)).ok());
    drained = daemon_.Drain();
  }
  EXPECT_GT(daemon_.Tier().tenants(0).store_failures(), 0U);
  EXPECT_EQ(FoundInAll(), kPrompts * kRows);  // from the full disk
  EXPECT_EQ(engine->AttachedRows(PromptOf(1000 + more - 1, 32)).value_or(0), 32U);
  fs::remove(filler());
  EXPECT_TRUE(Eventually([&] { return daemon_.Drain().ok(); }));
  engine = absl::CancelledError("");  // its session ends
  daemon_.Kill();
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(daemon_.PrefixesIn("disk"), kPrompts + more);
  EXPECT_EQ(FoundInAll(), kPrompts * kRows);
  daemon_.ExpectNothingLeft();
  daemon_.Stop();
}

}  // namespace
}  // namespace kvasir::testing
