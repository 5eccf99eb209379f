// What is the disk tier's own: what survives closing, what is refused, and what an ill disk does.
#include "allocator/tier/disk_tier.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "allocator/tier/guarded_tier.h"
#include "base/bytes.h"
#include "tests/tier/fake_tier.h"
#include "tests/tier/faulty_io.h"
#include "tests/tier/tier_blocks.h"
#include "tests/tier/tier_places.h"

namespace kvasir::testing {
namespace {

using ::testing::HasSubstr;

constexpr size_t kBytes = 61'440;  // with its header exactly 16 units
constexpr uint64_t kCapacity = 16 * kMiB;

class DiskTierTest : public ::testing::Test {
 protected:
  DiskTierOptions Options() const { return SmallDisk(folder_.path() + "/tier", kCapacity); }
  absl::StatusOr<std::unique_ptr<DiskTier>> Try(const DiskTierOptions& options) const {
    return DiskTier::Open(options, MakeSystemIo());
  }
  std::unique_ptr<DiskTier> Open(const DiskTierOptions& options) const {
    auto tier = Try(options);
    EXPECT_TRUE(tier.ok()) << tier.status();
    return *std::move(tier);
  }
  std::unique_ptr<DiskTier> Open() const { return Open(Options()); }
  std::string Refused(const DiskTierOptions& options) const {
    return std::string(Try(options).status().message());
  }
  // Bytes of the first segment, behind the tier's back.
  void Overwrite(uint64_t offset, std::span<const std::byte> bytes) const {
    const UniqueFd fd(::open((Options().path + "/segment-000000").c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_EQ(::pwrite(fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)),
              static_cast<ssize_t>(bytes.size()));
  }
  TempFolder folder_;
};

TEST_F(DiskTierTest, FindsItsBlocksAgain) {
  {
    const auto tier = Open();
    for (uint64_t number = 0; number < 50; ++number) {
      ASSERT_EQ(WriteBlock(*tier, number, kBytes + number), absl::OkStatus());
    }
    const TierKey key = KeyOf(7);
    ASSERT_EQ(tier->Erase(std::span(&key, 1)), absl::OkStatus());
  }
  const auto tier = Open();
  EXPECT_EQ(tier->Stats().blocks, 49U);
  EXPECT_EQ(tier->Stats().held_bytes, (49 * 17 - 1) * 4 * kKiB);
  for (uint64_t number = 0; number < 50; ++number) {
    EXPECT_EQ(OutcomeOf(*tier, number, kBytes + number), number == 7 ? "absent" : "hit");
  }
  // Nothing that is held is given away again.
  for (uint64_t number = 100; WriteBlock(*tier, number, kBytes).ok(); ++number) {
  }
  for (uint64_t number = 0; number < 50; ++number) {
    EXPECT_EQ(OutcomeOf(*tier, number, kBytes + number), number == 7 ? "absent" : "hit");
  }
}

TEST_F(DiskTierTest, AnotherCapacityKeepsWhatFits) {
  {
    const auto tier = Open();
    for (uint64_t number = 0; WriteBlock(*tier, number, kBytes).ok(); ++number) {
    }
    EXPECT_EQ(tier->Stats().blocks, 256U);
  }
  DiskTierOptions options = Options();
  options.capacity_bytes = 8 * kMiB;
  {
    const auto tier = Open(options);
    EXPECT_EQ(tier->Stats().blocks, 128U);
    EXPECT_FALSE(std::filesystem::exists(options.path + "/segment-000002"));
    for (uint64_t number = 0; number < 256; ++number) {
      EXPECT_EQ(OutcomeOf(*tier, number, kBytes), number < 128 ? "hit" : "absent") << number;
    }
  }
  const auto tier = Open();
  EXPECT_EQ(tier->Stats().blocks, 128U);
  EXPECT_EQ(WriteBlock(*tier, 1000, kBytes), absl::OkStatus());
}

TEST_F(DiskTierTest, AnotherFormatIsEmptied) {
  for (const int change : {0, 1, 2, 3}) {
    {
      const auto tier = Open();
      ASSERT_EQ(WriteBlock(*tier, 1, kBytes), absl::OkStatus());
    }
    DiskTierOptions options = Options();
    if (change == 0) options.fingerprint += 1;
    if (change == 1) options.unit_bytes *= 2;
    if (change == 2) options.segment_bytes *= 2;
    if (change == 3) std::ofstream(options.path + "/format") << "kvasir disk tier\nversion=0\n";
    const auto tier = Open(options);
    EXPECT_EQ(tier->Stats().blocks, 0U);
    EXPECT_EQ(OutcomeOf(*tier, 1, kBytes), "absent");
    ASSERT_EQ(WriteBlock(*tier, 1, kBytes), absl::OkStatus());
    EXPECT_EQ(OutcomeOf(*tier, 1, kBytes), "hit");
  }
}

TEST_F(DiskTierTest, OneAtATimeHasTheFolder) {
  const auto tier = Open();
  EXPECT_TRUE(absl::IsAlreadyExists(Try(Options()).status()));
  EXPECT_EQ(WriteBlock(*tier, 1, kBytes), absl::OkStatus());
}

TEST_F(DiskTierTest, AFolderWithSomethingElseIsLeftAlone) {
  std::filesystem::create_directory(Options().path);
  std::ofstream(Options().path + "/thesis.txt") << "years of work";
  EXPECT_THAT(Refused(Options()), HasSubstr("name=thesis.txt"));
  EXPECT_TRUE(std::filesystem::exists(Options().path + "/thesis.txt"));
}

TEST_F(DiskTierTest, RefusesOptionsOutOfBoundsByName) {
  DiskTierOptions options = Options();
  options.path = "relative";
  EXPECT_THAT(Refused(options), HasSubstr("path=relative"));
  options.path = folder_.path() + "/missing/tier";
  EXPECT_TRUE(absl::IsNotFound(Try(options).status()));
  const auto with = [this](auto member, auto value) {
    DiskTierOptions changed = Options();
    changed.*member = value;
    return Refused(changed);
  };
  EXPECT_THAT(with(&DiskTierOptions::capacity_bytes, 0U), HasSubstr("capacity_bytes=0"));
  EXPECT_THAT(with(&DiskTierOptions::capacity_bytes, 5 * kMiB), HasSubstr("capacity_bytes="));
  EXPECT_THAT(with(&DiskTierOptions::capacity_bytes, 4097 * 4 * kMiB), HasSubstr("max=4096"));
  EXPECT_THAT(with(&DiskTierOptions::unit_bytes, 3U * 4096), HasSubstr("unit_bytes=12288"));
  EXPECT_THAT(with(&DiskTierOptions::unit_bytes, 512U), HasSubstr("unit_bytes=512"));
  EXPECT_THAT(with(&DiskTierOptions::segment_bytes, 512U * 1024), HasSubstr("segment_bytes="));
  EXPECT_THAT(with(&DiskTierOptions::segment_bytes, 128 * kGiB), HasSubstr("segment_bytes="));
  EXPECT_THAT(with(&DiskTierOptions::requests_in_flight, 0U), HasSubstr("requests_in_flight=0"));
  EXPECT_THAT(with(&DiskTierOptions::blocks_in_flight, 257U), HasSubstr("blocks_in_flight=257"));
}

TEST_F(DiskTierTest, NamesTheCauseOfDamageOnDiskAndForgetsTheBlock) {
  struct Damage {
    const char* cause;
    uint64_t offset;
    size_t bytes;
  };
  for (const Damage& damage : std::vector<Damage>{{"corrupt", 0, 1},
                                                  {"old_version", 8, 1},
                                                  {"foreign_format", 16, 8},
                                                  {"foreign_key", 24, 40},
                                                  {"cut", 66, 1},
                                                  {"corrupt", 100, 1},
                                                  {"corrupt", kPageBytes, 1},
                                                  {"corrupt", kPageBytes + kBytes - 1, 1}}) {
    std::filesystem::remove_all(Options().path);
    const auto tier = Open();
    ASSERT_EQ(WriteBlock(*tier, 1, kBytes), absl::OkStatus());
    ASSERT_EQ(OutcomeOf(*tier, 1, kBytes), "hit");
    Overwrite(damage.offset, std::vector<std::byte>(damage.bytes, std::byte{0x5a}));
    EXPECT_EQ(OutcomeOf(*tier, 1, kBytes), damage.cause) << damage.offset;
    EXPECT_EQ(OutcomeOf(*tier, 1, kBytes), "absent");
    EXPECT_EQ(tier->Stats().held_bytes, 0U);
    ASSERT_EQ(WriteBlock(*tier, 1, kBytes), absl::OkStatus());
    EXPECT_EQ(OutcomeOf(*tier, 1, kBytes), "hit");
  }
}

TEST_F(DiskTierTest, AFileThatWasCutIsCutAndWholeAgainAtTheNextStart) {
  {
    const auto tier = Open();
    ASSERT_EQ(WriteBlock(*tier, 1, kBytes), absl::OkStatus());
    ASSERT_EQ(WriteBlock(*tier, 2, kBytes), absl::OkStatus());
    std::filesystem::resize_file(Options().path + "/segment-000000", 20 * kPageBytes);
    EXPECT_EQ(OutcomeOf(*tier, 2, kBytes), "cut");
    EXPECT_EQ(OutcomeOf(*tier, 1, kBytes), "hit");
  }
  const auto tier = Open();
  EXPECT_EQ(std::filesystem::file_size(Options().path + "/segment-000000"), 4 * kMiB);
  EXPECT_EQ(OutcomeOf(*tier, 1, kBytes), "hit");
  EXPECT_EQ(OutcomeOf(*tier, 2, kBytes), "absent");
}

class IllDiskTest : public DiskTierTest {
 protected:
  IllDiskTest() {
    auto tier = DiskTier::Open(Options(), std::make_unique<FaultyIo>(faults_));
    EXPECT_TRUE(tier.ok()) << tier.status();
    tier_ = *std::move(tier);
  }
  void FailAll(int64_t result) {
    faults_->request = [result](bool) { return std::optional<int64_t>(result); };
  }
  void Heal() { *faults_ = {}; }

  std::shared_ptr<Faults> faults_ = std::make_shared<Faults>();
  std::unique_ptr<DiskTier> tier_;
};

TEST_F(IllDiskTest, AWriteThatFailsIsNotThereAndHoldsNothing) {
  for (const int64_t result : {int64_t{-EIO}, int64_t{-ENOSPC}, int64_t{4096}, int64_t{0}}) {
    FailAll(result);
    const absl::Status status = WriteBlock(*tier_, 1, kBytes);
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(absl::IsResourceExhausted(status), result == -ENOSPC) << status;
    EXPECT_EQ(tier_->Stats().held_bytes, 0U);
    Heal();
    EXPECT_EQ(OutcomeOf(*tier_, 1, kBytes), "absent");
  }
  ASSERT_EQ(WriteBlock(*tier_, 1, kBytes), absl::OkStatus());
  EXPECT_EQ(OutcomeOf(*tier_, 1, kBytes), "hit");
}

TEST_F(IllDiskTest, OnePieceOfManyThatFailsFailsItsBlockAlone) {
  // Gaps of one unit, so that a block has many pieces.
  std::vector<TierKey> odd;
  uint64_t number = 1000;
  for (; WriteBlock(*tier_, number, 10).ok(); ++number) {
    if (number % 2 == 1) odd.push_back(KeyOf(number));
  }
  ASSERT_EQ(tier_->Erase(odd), absl::OkStatus());
  int requests = 0;
  faults_->request = [&requests](bool) -> std::optional<int64_t> {
    return ++requests == 20 ? std::optional<int64_t>(-EIO) : std::nullopt;
  };
  std::vector<std::vector<std::byte>> payloads;
  std::vector<std::span<const std::byte>> parts;
  for (uint64_t i = 0; i < 4; ++i) payloads.push_back(BytesFor(i, kBytes));
  for (const auto& payload : payloads) parts.emplace_back(payload);
  std::vector<WriteItem> items;
  for (uint64_t i = 0; i < 4; ++i) items.push_back({KeyOf(i), std::span(&parts[i], 1)});
  std::vector<absl::Status> statuses(4);
  tier_->Write(items, statuses);
  int failed = 0;
  Heal();
  for (uint64_t i = 0; i < 4; ++i) {
    failed += statuses[i].ok() ? 0 : 1;
    EXPECT_EQ(OutcomeOf(*tier_, i, kBytes), statuses[i].ok() ? "hit" : "absent");
  }
  EXPECT_EQ(failed, 1);
}

TEST_F(IllDiskTest, AReadThatFailsKeepsTheBlockAndAWriteReplacesIt) {
  ASSERT_EQ(WriteBlock(*tier_, 1, kBytes), absl::OkStatus());
  FailAll(-EIO);
  EXPECT_EQ(OutcomeOf(*tier_, 1, kBytes), "failed");
  Heal();
  EXPECT_EQ(OutcomeOf(*tier_, 1, kBytes), "hit");
  ASSERT_EQ(WriteBlock(*tier_, 1, kBytes), absl::OkStatus());
  EXPECT_EQ(OutcomeOf(*tier_, 1, kBytes), "hit");
  EXPECT_EQ(tier_->Stats().writes, 2U);
  EXPECT_EQ(tier_->Stats().held_bytes, kPageBytes + kBytes);
  // And the index names the new place.
  tier_.reset();
  EXPECT_EQ(OutcomeOf(*Open(), 1, kBytes), "hit");
}

TEST_F(IllDiskTest, AFlushThatFailsSaysSoAndTheNextSyncsAgain) {
  ASSERT_EQ(WriteBlock(*tier_, 1, kBytes), absl::OkStatus());
  faults_->sync = -EIO;
  EXPECT_FALSE(tier_->Flush().ok());
  Heal();
  EXPECT_EQ(tier_->Flush(), absl::OkStatus());
  EXPECT_EQ(faults_->syncs, 1);
  EXPECT_EQ(tier_->Flush(), absl::OkStatus());
  EXPECT_EQ(faults_->syncs, 1);  // nothing was written in between
}

TEST_F(IllDiskTest, WithoutAQueueNothingIsDone) {
  faults_->no_queues = true;
  EXPECT_TRUE(absl::IsResourceExhausted(WriteBlock(*tier_, 1, kBytes)));
  EXPECT_EQ(OutcomeOf(*tier_, 1, kBytes), "failed");
}

TEST_F(IllDiskTest, AGuardLeavesItOutAndComesBack) {
  FakeClock clock;
  GuardedTier guard(std::move(tier_), GuardOptions{}, clock);
  ASSERT_EQ(WriteBlock(guard, 1, kBytes), absl::OkStatus());
  FailAll(-EIO);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(OutcomeOf(guard, 1, kBytes), "failed");
  Heal();
  EXPECT_EQ(OutcomeOf(guard, 1, kBytes), "failed");
  EXPECT_TRUE(absl::IsUnavailable(WriteBlock(guard, 2, kBytes)));
  clock.Advance(std::chrono::milliseconds(1000));
  EXPECT_EQ(OutcomeOf(guard, 1, kBytes), "hit");
  EXPECT_EQ(WriteBlock(guard, 2, kBytes), absl::OkStatus());
}

}  // namespace
}  // namespace kvasir::testing
