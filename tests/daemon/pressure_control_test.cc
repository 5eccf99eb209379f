// PressureControl by a clock of its own: how far down, how soon back, and no swinging.
#include "daemon/pressure_control.h"

#include <chrono>
#include <optional>
#include <random>

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace kvasir {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kWanted = 800 * kMiB;  // a step is 100 MiB
constexpr seconds kQuiet{60};

class PressureControlTest : public ::testing::Test {
 protected:
  // Decides at this moment, and takes the size as given.
  std::optional<uint64_t> Decide() {
    const std::optional<uint64_t> size = control_.Decide(now_, state_);
    if (size) state_.pool_bytes = *size;
    state_.touched_bytes = std::min(state_.touched_bytes, state_.pool_bytes);
    return size;
  }
  std::optional<uint64_t> Told() {
    control_.Told(now_);
    return Decide();
  }
  // To the moment at which it asks to be asked.
  std::optional<uint64_t> NextLook() {
    EXPECT_TRUE(control_.next_look().has_value());
    now_ = *control_.next_look();
    return Decide();
  }

  PressureControl control_{kQuiet};
  Instant now_{std::chrono::hours(1)};
  PressureState state_{kWanted, kWanted, kWanted, 0, 0};
};

TEST_F(PressureControlTest, WithoutPressureNothingIsDoneAndNothingIsDue) {
  EXPECT_EQ(Decide(), std::nullopt);
  EXPECT_EQ(control_.next_look(), std::nullopt);
}

TEST_F(PressureControlTest, AStepIsAnEighthDownToAnEighth) {
  for (uint64_t size = 700; size >= 100; size -= 100) {
    EXPECT_EQ(Told(), size * kMiB);
    now_ += seconds(2);
  }
  EXPECT_EQ(Told(), std::nullopt);
  EXPECT_EQ(state_.pool_bytes, 100 * kMiB);
}

TEST_F(PressureControlTest, StepsBeginAtWhatIsTouched) {
  state_.touched_bytes = 350 * kMiB;
  EXPECT_EQ(Told(), 250 * kMiB);
}

TEST_F(PressureControlTest, AStepCoversWhatTheCgroupIsAboveHigh) {
  state_.cgroup_high_bytes = 500 * kMiB;
  state_.cgroup_used_bytes = 830 * kMiB;
  EXPECT_EQ(Told(), (800 - 330) * kMiB);
}

TEST_F(PressureControlTest, PressureWithinASecondOfAStepIsActedOnAfterIt) {
  EXPECT_EQ(Told(), 700 * kMiB);
  now_ += milliseconds(300);
  EXPECT_EQ(Told(), std::nullopt);
  EXPECT_EQ(control_.next_look(), now_ + milliseconds(700));
  EXPECT_EQ(NextLook(), 600 * kMiB);
  // What was told before the step is no reason for another.
  EXPECT_EQ(*control_.next_look(), now_ + kQuiet);
}

TEST_F(PressureControlTest, EachQuietTimeGivesAStepBack) {
  EXPECT_EQ(Told(), 700 * kMiB);
  now_ += seconds(5);
  EXPECT_EQ(Told(), 600 * kMiB);
  const Instant pressed = now_;
  now_ += kQuiet - milliseconds(1);
  EXPECT_EQ(Decide(), std::nullopt);
  EXPECT_EQ(NextLook(), 700 * kMiB);
  EXPECT_EQ(now_, pressed + kQuiet);
  EXPECT_EQ(NextLook(), 800 * kMiB);
  EXPECT_EQ(now_, pressed + 2 * kQuiet);
  EXPECT_EQ(control_.next_look(), std::nullopt) << "nothing is due at the wanted size";
}

TEST_F(PressureControlTest, PressureSoonAfterAStepUpDoublesTheWaitUpToSixteenTimes) {
  (void)Told();
  int expected = 1;
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(NextLook().has_value());
    now_ += seconds(10);
    ASSERT_TRUE(Told().has_value());
    now_ += seconds(2);
    (void)Told();  // of the same pressure
    expected = std::min(expected * 2, 16);
    EXPECT_EQ(control_.wait(), expected * kQuiet) << i;
  }
}

TEST_F(PressureControlTest, PressureLongAfterAStepUpIsNew) {
  (void)Told();
  (void)NextLook();
  now_ += seconds(1);
  (void)Told();
  EXPECT_EQ(control_.wait(), 2 * kQuiet);
  while (state_.pool_bytes < kWanted) (void)NextLook();
  now_ += 3 * kQuiet;
  (void)Told();
  EXPECT_EQ(control_.wait(), kQuiet);
}

TEST_F(PressureControlTest, ItDoesNotGrowIntoMemoryHigh) {
  (void)Told();
  state_.cgroup_high_bytes = 800 * kMiB;
  state_.cgroup_used_bytes = 750 * kMiB;
  EXPECT_EQ(NextLook(), std::nullopt);
  EXPECT_EQ(NextLook(), std::nullopt);
  state_.cgroup_used_bytes = 700 * kMiB;
  EXPECT_EQ(NextLook(), 800 * kMiB);
}

TEST_F(PressureControlTest, AnOperatorsSizeEndsTheWayBack) {
  (void)Told();
  state_.wanted_bytes = state_.pool_bytes = 160 * kMiB;
  EXPECT_EQ(NextLook(), std::nullopt);
  EXPECT_EQ(control_.next_look(), std::nullopt);
}

// Whatever comes when: sizes stay between an eighth and the wanted one, are whole pages, and the
// pool is back in the end.
TEST_F(PressureControlTest, RandomPressureStaysWithinBounds) {
  std::mt19937_64 random(7);
  for (int step = 0; step < 20'000; ++step) {
    now_ += milliseconds(random() % 30'000);
    state_.wanted_bytes = random() % 500 == 0 ? (random() % 800 + 8) * kMiB : state_.wanted_bytes;
    state_.pool_bytes = std::min(state_.pool_bytes, state_.wanted_bytes);
    state_.touched_bytes = random() % (state_.pool_bytes + 1);
    state_.cgroup_high_bytes = random() % 3 == 0 ? random() % kGiB : 0;
    state_.cgroup_used_bytes = random() % kGiB;
    const uint64_t before = state_.pool_bytes;
    const std::optional<uint64_t> size = random() % 4 == 0 ? Told() : Decide();
    if (!size) continue;
    ASSERT_NE(*size, before);
    ASSERT_LE(*size, state_.wanted_bytes);
    ASSERT_GE(*size, std::min(before, state_.wanted_bytes / 8));
    ASSERT_EQ(*size % kPageBytes, 0U);
  }
  state_.cgroup_high_bytes = 0;
  for (int step = 0; step < 12 && state_.pool_bytes < state_.wanted_bytes; ++step) {
    now_ += 16 * kQuiet;
    (void)Decide();
  }
  EXPECT_EQ(state_.pool_bytes, state_.wanted_bytes);
}

}  // namespace
}  // namespace kvasir
