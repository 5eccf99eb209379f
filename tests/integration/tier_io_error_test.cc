// A daemon whose disk returns errors, short transfers and nothing at all: its engines get right
// rows or compute them, an operator sees the cause, and the tier is used again when the errors
// stop.
#include <atomic>
#include <cerrno>
#include <string>
#include <thread>

#include <gmock/gmock.h>

#include "tests/integration/tier_faults.h"
#include "tests/support/eventually.h"

namespace kvasir::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// By io_uring, and by system calls as where the kernel does not allow it.
class TierIoErrorTest : public TierFaultsTest, public ::testing::WithParamInterface<bool> {
 protected:
  void SetUp() override {
    TierFaultsTest::SetUp();
    faults_.board().without_uring = !GetParam();
  }
  bool IsLeftOut() const {
    return Eventually([&] { return daemon_.Tier().left_out(); });
  }
  void ExpectStoredAgain() {
    EXPECT_TRUE(Eventually([&] { return daemon_.Drain().ok(); }));
    EXPECT_FALSE(daemon_.Tier().left_out());
    daemon_.Kill();
    ASSERT_TRUE(daemon_.Start());
    EXPECT_EQ(FoundInAll(), kPrompts * kRows);
    EXPECT_EQ(daemon_.Tier().tenants(0).loads(), kPrompts);
    daemon_.ExpectNothingLeft();
    daemon_.Stop();
  }
};

INSTANTIATE_TEST_SUITE_P(Io, TierIoErrorTest, ::testing::Bool(),
                         [](const auto& made) { return made.param ? "uring" : "plain"; });

TEST_P(TierIoErrorTest, ReadsThatFailAreMissesAndTheTierComesBack) {
  ASSERT_NO_FATAL_FAILURE(StoreAllAndRestart());
  faults_.Set(FaultPlace::kSegmentRead, EIO);
  EXPECT_EQ(FoundInAll(), 0U);
  EXPECT_TRUE(IsLeftOut());
  EXPECT_GT(faults_.Struck(FaultPlace::kSegmentRead), 0U);
  EXPECT_GT(Reads("failed"), 0U);
  EXPECT_EQ(Reads("hit"), kPrompts);  // manifests, at the start
  EXPECT_EQ(daemon_.Tier().tenants(0).load_failures(), kPrompts);
  EXPECT_EQ(daemon_.PrefixesIn("disk"), kPrompts);  // what lies there may be whole
  ExpectGoesOn();
  // It is tried again, and stays out as long as it fails.
  for (int times = 0; times < 2; ++times) {
    const uint64_t struck = faults_.Struck(FaultPlace::kSegmentRead);
    EXPECT_TRUE(Eventually([&] {
      EXPECT_EQ(Found(0), 0U);
      return faults_.Struck(FaultPlace::kSegmentRead) > struck;
    }));
    EXPECT_TRUE(IsLeftOut());
  }
  faults_.Clear();
  EXPECT_TRUE(Eventually([&] { return Found(0) == kRows; }));
  EXPECT_FALSE(daemon_.Tier().left_out());
  EXPECT_EQ(FoundInAll(), kPrompts * kRows);
  daemon_.ExpectNothingLeft();
  daemon_.Stop();
}

TEST_P(TierIoErrorTest, ReadsThatEndEarlyForgetWhatTheyWereOf) {
  ASSERT_NO_FATAL_FAILURE(StoreAllAndRestart());
  faults_.Set(FaultPlace::kSegmentRead, kShortTransfer);
  EXPECT_EQ(FoundInAll(), 0U);
  EXPECT_GT(Reads("cut"), 0U);
  EXPECT_EQ(Reads("failed"), 0U);
  EXPECT_FALSE(daemon_.Tier().left_out());  // the blocks are damaged, not the disk
  EXPECT_EQ(daemon_.PrefixesIn("disk"), 0U);
  faults_.Clear();
  EXPECT_EQ(FoundInAll(), 0U);
  ASSERT_NO_FATAL_FAILURE(PublishAll());
  ExpectStoredAgain();
}

TEST_P(TierIoErrorTest, WritesThatFailStoreNothingAndAreTriedAgain) {
  for (const int error : {EIO, kShortTransfer}) {
    SCOPED_TRACE(error);
    ASSERT_TRUE(daemon_.Start());
    ASSERT_NO_FATAL_FAILURE(PublishAll());
    faults_.Set(FaultPlace::kSegmentWrite, error);
    EXPECT_THAT(MessageOf(daemon_.Drain()), HasSubstr("not_stored=4"));
    EXPECT_TRUE(IsLeftOut());
    EXPECT_GT(faults_.Struck(FaultPlace::kSegmentWrite), 0U);
    const v1::TierInfo tier = daemon_.Tier();
    EXPECT_GT(tier.write_errors(), 0U);
    EXPECT_EQ(tier.written_bytes(), 0U);
    EXPECT_EQ(tier.held_bytes(), 0U);
    EXPECT_EQ(tier.tenants(0).store_failures(), kPrompts);
    EXPECT_EQ(daemon_.PrefixesIn("disk"), 0U);
    EXPECT_EQ(FoundInAll(), kPrompts * kRows);  // from memory
    faults_.Clear();
    ExpectStoredAgain();
  }
}

TEST_P(TierIoErrorTest, WhatCannotBeReadAtTheStartIsNotForgotten) {
  for (const int64_t spared : {0, 2}) {  // all manifests fail, or some of them
    SCOPED_TRACE(spared);
    ASSERT_NO_FATAL_FAILURE(StoreAllAndRestart());
    daemon_.Stop();
    faults_.Set(FaultPlace::kSegmentRead, EIO, spared);
    ASSERT_TRUE(daemon_.Start());
    EXPECT_LT(daemon_.PrefixesIn("disk"), kPrompts);
    ExpectGoesOn();
    faults_.Clear();
    EXPECT_TRUE(Eventually([&] { return daemon_.PrefixesIn("disk") == kPrompts; }));
    EXPECT_EQ(FoundInAll(), kPrompts * kRows);
    daemon_.ExpectNothingLeft();
    daemon_.Stop();
  }
}

class TierIndexErrorTest : public TierFaultsTest {};

TEST_F(TierIndexErrorTest, AnIndexThatCannotBeReadAtTheStartIsRefusedAndNotForgotten) {
  ASSERT_NO_FATAL_FAILURE(StoreAllAndRestart());
  daemon_.Stop();
  faults_.Set(FaultPlace::kIndexRead, EIO);
  EXPECT_THAT(daemon_.StartAndFail(),
              AllOf(HasSubstr("index open failed"), HasSubstr(disk_path())));
  EXPECT_GT(faults_.Struck(FaultPlace::kIndexRead), 0U);
  faults_.Clear();
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(FoundInAll(), kPrompts * kRows);
  daemon_.ExpectNothingLeft();
  daemon_.Stop();
}

TEST_F(TierIndexErrorTest, AnIndexThatCannotBeWrittenNamesNothingAndIsTriedAgain) {
  ASSERT_TRUE(daemon_.Start());
  ASSERT_NO_FATAL_FAILURE(PublishAll());
  faults_.Set(FaultPlace::kIndexWrite, EIO);
  EXPECT_FALSE(daemon_.Drain().ok());
  EXPECT_GT(faults_.Struck(FaultPlace::kIndexWrite), 0U);
  EXPECT_TRUE(daemon_.Tier().left_out());
  EXPECT_EQ(daemon_.Tier().held_bytes(), 0U);
  EXPECT_EQ(FoundInAll(), kPrompts * kRows);
  faults_.Clear();
  EXPECT_TRUE(Eventually([&] { return daemon_.Drain().ok(); }));
  daemon_.Kill();
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(FoundInAll(), kPrompts * kRows);
  daemon_.ExpectNothingLeft();
  daemon_.Stop();
}

// What says that the bytes are safe fails: only a loss of power can make that true.
TEST_F(TierIndexErrorTest, AFlushThatFailsIsSaidAndTheDaemonEndsAllTheSame) {
  for (const FaultPlace place : {FaultPlace::kSegmentSync, FaultPlace::kIndexSync}) {
    SCOPED_TRACE(static_cast<int>(place));
    ASSERT_TRUE(daemon_.Start());
    ASSERT_NO_FATAL_FAILURE(PublishAll());
    faults_.Set(place, EIO);
    EXPECT_THAT(daemon_.Stop(), HasSubstr("a tier was not flushed: tier=disk reason="));
    EXPECT_GT(faults_.Struck(place), 0U);
    faults_.Clear();
    ASSERT_TRUE(daemon_.Start());
    EXPECT_EQ(FoundInAll(), kPrompts * kRows);
    daemon_.ExpectNothingLeft();
    daemon_.Stop();
  }
}

// A disk that does not answer for a while holds who waits for it, and nobody else.
TEST_F(TierIndexErrorTest, ADiskThatHangsDelaysNobodyWhoDoesNotWaitForIt) {
  ASSERT_NO_FATAL_FAILURE(StoreAllAndRestart());
  faults_.board().hold_reads = true;
  std::atomic<bool> done{false};
  uint64_t found = 0;
  std::thread waiting([&] {
    absl::StatusOr<TierEngine> engine = daemon_.Connect(2, std::chrono::minutes(10));
    found = engine.ok() ? engine->AttachedRows(Prompt(0)).value_or(0) : 0;
    done = true;
  });
  EXPECT_TRUE(Eventually([&] { return faults_.board().held > 0; }));
  ExpectGoesOn();
  EXPECT_EQ(daemon_.PrefixesIn("disk"), kPrompts);
  EXPECT_FALSE(daemon_.Tier().left_out());
  EXPECT_FALSE(done);
  faults_.board().hold_reads = false;
  waiting.join();
  EXPECT_EQ(found, kRows);
  daemon_.ExpectNothingLeft();
  daemon_.Stop();
}

TEST_F(TierIndexErrorTest, ADiskThatHangsIsNotWaitedForBeyondTheBound) {
  daemon_.config().tier.load_wait_ms = 50;
  ASSERT_NO_FATAL_FAILURE(StoreAllAndRestart());
  faults_.board().hold_reads = true;
  EXPECT_EQ(Found(0), 0U);  // while the read does not return
  EXPECT_EQ(Found(1), 0U);  // behind it in the queue
  EXPECT_GT(faults_.board().held, 0U);
  EXPECT_EQ(daemon_.Tier().tenants(0).loads(), 0U);
  EXPECT_EQ(daemon_.Tier().tenants(0).loads_declined(), 2U);
  faults_.board().hold_reads = false;
  // What came up too late is for the next ones.
  EXPECT_TRUE(Eventually([&] { return daemon_.Tier().tenants(0).loads() == 2; }));
  EXPECT_EQ(Found(0) + Found(1), 2 * kRows);
  EXPECT_EQ(daemon_.Tier().tenants(0).loads(), 2U);
  daemon_.ExpectNothingLeft();
  daemon_.Stop();
}

}  // namespace
}  // namespace kvasir::testing
