// TimeShares: a share while others are there, everything alone.
#include "daemon/time_shares.h"

#include <chrono>

#include <gtest/gtest.h>

namespace kvasir {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr double kShare = 0.25;

class TimeSharesTest : public ::testing::Test {
 protected:
  TimeShares shares_{3, kShare};
  Instant now_ = Instant(seconds(1000));
};

TEST_F(TimeSharesTest, AloneItGetsAll) {
  for (int i = 0; i < 1000; ++i) {
    now_ += milliseconds(5);
    shares_.Charge(0, now_, milliseconds(5));
    ASSERT_EQ(shares_.ReadyAt(0, now_), now_) << i;
    ASSERT_TRUE(shares_.IsAlone(0, now_));
    ASSERT_FALSE(shares_.IsAlone(1, now_));
  }
}

TEST_F(TimeSharesTest, AloneIsWhoeverNobodyElseIsBeside) {
  EXPECT_TRUE(shares_.IsAlone(0, now_));
  shares_.Charge(0, now_, milliseconds(1));
  EXPECT_TRUE(shares_.IsAlone(0, now_));
  EXPECT_FALSE(shares_.IsAlone(1, now_));
  shares_.Charge(1, now_, milliseconds(1));
  EXPECT_FALSE(shares_.IsAlone(0, now_));
  EXPECT_FALSE(shares_.IsAlone(1, now_));
  EXPECT_TRUE(shares_.IsAlone(0, now_ + TimeShares::kPresent));
}

TEST_F(TimeSharesTest, BesideOthersItGetsItsShare) {
  Instant::duration spent{};
  const Instant start = now_;
  while (now_ < start + seconds(10)) {
    now_ += milliseconds(1);
    shares_.Charge(1, now_, std::chrono::microseconds(10));  // another one is there
    if (shares_.ReadyAt(0, now_) > now_) continue;
    shares_.Charge(0, now_, milliseconds(1));
    spent += milliseconds(1);
    EXPECT_EQ(shares_.ReadyAt(1, now_), now_) << "who takes little never waits";
  }
  EXPECT_GE(spent, kShare * seconds(10));
  EXPECT_LE(spent, kShare * seconds(10) + TimeShares::kBurst + milliseconds(1));
}

TEST_F(TimeSharesTest, WhatIsOwedIsBounded) {
  for (int i = 0; i < 1000; ++i) {
    now_ += milliseconds(5);
    shares_.Charge(0, now_, milliseconds(5));
  }
  shares_.Charge(1, now_, milliseconds(1));
  const Instant ready = shares_.ReadyAt(0, now_);
  EXPECT_GT(ready, now_) << "it is not alone any more";
  EXPECT_LE(ready, now_ + (TimeShares::kBurst + milliseconds(5)) / kShare);
  EXPECT_EQ(shares_.ReadyAt(2, now_), now_);
}

TEST_F(TimeSharesTest, WhoAsksForNothingHasGone) {
  shares_.Charge(1, now_, milliseconds(1));
  shares_.Charge(0, now_, milliseconds(100));
  EXPECT_GT(shares_.ReadyAt(0, now_), now_);
  now_ += TimeShares::kPresent + milliseconds(1);
  shares_.Charge(0, now_, milliseconds(100));
  EXPECT_EQ(shares_.ReadyAt(0, now_), now_);
}

TEST(ThreadTimeTest, GrowsWithWork) {
  const Instant::duration before = ThreadTime();
  while (ThreadTime() == before) {
  }
  EXPECT_GT(ThreadTime(), before);
}

}  // namespace
}  // namespace kvasir
