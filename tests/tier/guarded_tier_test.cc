#include "allocator/tier/guarded_tier.h"

#include <memory>

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/tier/fake_tier.h"
#include "tests/tier/tier_blocks.h"

namespace kvasir::testing {
namespace {

using std::chrono::milliseconds;

class GuardedTierTest : public ::testing::Test {
 protected:
  GuardedTierTest() {
    auto fake = std::make_unique<FakeTier>();
    fake_ = fake.get();
    guard_ = std::make_unique<GuardedTier>(
        std::move(fake),
        GuardOptions{
            .failures_max = 3, .wait_min = milliseconds(100), .wait_max = milliseconds(350)},
        clock_);
  }
  ReadOutcome Read() { return ReadOne(*guard_, KeyOf(1), 10).outcome; }
  absl::Status Write() { return WriteBlock(*guard_, 1, 10); }
  void Fail() {
    fake_->outcome = ReadOutcome::kTimeout;
    fake_->status = Unavailable("gone");
  }
  void Open() {
    Fail();
    for (int i = 0; i < 3; ++i) EXPECT_EQ(Read(), ReadOutcome::kTimeout);
    EXPECT_TRUE(guard_->IsOpen());
  }

  FakeClock clock_;
  FakeTier* fake_ = nullptr;
  std::unique_ptr<GuardedTier> guard_;
};

TEST_F(GuardedTierTest, LeavesOutATierThatFailsThreeTimesInARow) {
  Fail();
  EXPECT_EQ(Read(), ReadOutcome::kTimeout);
  EXPECT_TRUE(absl::IsUnavailable(Write()));
  EXPECT_FALSE(guard_->IsOpen());
  EXPECT_EQ(Read(), ReadOutcome::kTimeout);
  EXPECT_TRUE(guard_->IsOpen());
  EXPECT_EQ(fake_->calls, 3);
  EXPECT_EQ(Read(), ReadOutcome::kFailed);
  EXPECT_TRUE(absl::IsUnavailable(Write()));
  EXPECT_TRUE(absl::IsUnavailable(guard_->Erase({})));
  EXPECT_TRUE(absl::IsUnavailable(guard_->Flush()));
  EXPECT_TRUE(absl::IsUnavailable(guard_->ForEach([](const TierKey&, uint64_t) {})));
  EXPECT_EQ(fake_->calls, 3);
  EXPECT_EQ(guard_->Stats().reads_of(ReadOutcome::kFailed), 1U);
  EXPECT_EQ(guard_->Stats().write_errors, 1U);
}

TEST_F(GuardedTierTest, ASuccessInBetweenStartsTheCountAnew) {
  for (int i = 0; i < 10; ++i) {
    fake_->outcome = i % 3 == 2 ? ReadOutcome::kHit : ReadOutcome::kFailed;
    EXPECT_EQ(Read(), fake_->outcome);
  }
  EXPECT_EQ(fake_->calls, 10);
}

TEST_F(GuardedTierTest, MissesFullTiersAndBadArgumentsAreNoFailures) {
  for (const ReadOutcome outcome :
       {ReadOutcome::kAbsent, ReadOutcome::kCorrupt, ReadOutcome::kCut, ReadOutcome::kForeignKey,
        ReadOutcome::kForeignFormat, ReadOutcome::kOldVersion, ReadOutcome::kWrongLength,
        ReadOutcome::kCancelled}) {
    fake_->outcome = outcome;
    EXPECT_EQ(Read(), outcome);
  }
  for (const absl::Status& status :
       {ResourceExhausted("full"), InvalidArgument("no bytes"), absl::CancelledError("stop")}) {
    fake_->status = status;
    for (int i = 0; i < 4; ++i) EXPECT_EQ(Write(), status);
  }
  EXPECT_FALSE(guard_->IsOpen());
}

TEST_F(GuardedTierTest, TriesOnceAfterTheWaitAndWaitsTwiceAsLongUpToABound) {
  Open();
  for (const int wait : {100, 200, 350, 350}) {
    const int before = fake_->calls;
    clock_.Advance(milliseconds(wait - 1));
    EXPECT_EQ(Read(), ReadOutcome::kFailed);
    EXPECT_EQ(fake_->calls, before) << "not before the end of the wait of " << wait;
    clock_.Advance(milliseconds(1));
    EXPECT_EQ(Read(), ReadOutcome::kTimeout);
    EXPECT_EQ(Read(), ReadOutcome::kFailed);
    EXPECT_EQ(fake_->calls, before + 1);
  }
}

TEST_F(GuardedTierTest, UsesATierAgainThatAnswers) {
  Open();
  clock_.Advance(milliseconds(100));
  fake_->outcome = ReadOutcome::kAbsent;
  fake_->status = absl::OkStatus();
  EXPECT_EQ(Read(), ReadOutcome::kAbsent);
  EXPECT_FALSE(guard_->IsOpen());
  EXPECT_EQ(Write(), absl::OkStatus());
  // The next failure waits the first wait again.
  Open();
  clock_.Advance(milliseconds(100));
  fake_->outcome = ReadOutcome::kHit;
  EXPECT_EQ(Read(), ReadOutcome::kHit);
}

TEST_F(GuardedTierTest, WhileOneTriesTheOthersAreAnsweredAtOnce) {
  Open();
  clock_.Advance(milliseconds(100));
  ReadOutcome meanwhile = ReadOutcome::kHit;
  fake_->outcome = ReadOutcome::kHit;
  fake_->during = [&] { meanwhile = Read(); };
  EXPECT_EQ(Read(), ReadOutcome::kHit);
  EXPECT_EQ(meanwhile, ReadOutcome::kFailed);
}

TEST_F(GuardedTierTest, ALongSleepOfTheMachineIsOneWait) {
  Open();
  clock_.Advance(std::chrono::hours(24 * 365));
  EXPECT_EQ(Read(), ReadOutcome::kTimeout);
  EXPECT_EQ(Read(), ReadOutcome::kFailed);
  clock_.Advance(milliseconds(200));
  fake_->outcome = ReadOutcome::kHit;
  EXPECT_EQ(Read(), ReadOutcome::kHit);
}

}  // namespace
}  // namespace kvasir::testing
