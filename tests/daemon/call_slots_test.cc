// CallSlots: a bound for each caller, and none that another caller feels.
#include "daemon/control/call_slots.h"

#include <atomic>
#include <chrono>
#include <optional>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/shortage.h"

namespace kvasir {
namespace {

Instant Soon() { return SystemClock().Now() + std::chrono::milliseconds(20); }
Instant Later() { return SystemClock().Now() + std::chrono::seconds(60); }

TEST(CallSlotsTest, SoManyAreInside) {
  CallSlots slots(2, 4);
  std::vector<CallSlots::Call> calls;
  for (int i = 0; i < 4; ++i) calls.push_back(*slots.Enter(0));
  const absl::Status refused = slots.Enter(0).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(ShortageOf(refused).has_value());
  EXPECT_EQ(ShortageOf(refused)->budget, "limits.calls_per_tenant_max");
  EXPECT_TRUE(slots.Enter(1).ok()) << "another caller's are not counted";
  EXPECT_EQ(slots.refused(0), 1U);
  EXPECT_EQ(slots.refused(1), 0U);
  EXPECT_EQ(slots.inside(0), 4U);
  calls.pop_back();
  EXPECT_EQ(slots.inside(0), 3U);
  EXPECT_TRUE(slots.Enter(0).ok());
}

TEST(CallSlotsTest, SoManyRunAndTheOthersWait) {
  CallSlots slots(2, 8);
  std::vector<CallSlots::Call> running;
  for (uint32_t i = 0; i < CallSlots::kRunning; ++i) {
    running.push_back(*slots.Enter(0));
    ASSERT_TRUE(running.back().Run(Soon()));
  }
  absl::StatusOr<CallSlots::Call> waiting = slots.Enter(0);
  ASSERT_TRUE(waiting.ok());
  EXPECT_FALSE(waiting->Run(Soon()));
  absl::StatusOr<CallSlots::Call> other = slots.Enter(1);
  EXPECT_TRUE(other->Run(Soon()));

  running.front().Pause();
  EXPECT_TRUE(waiting->Run(Soon()));
  EXPECT_FALSE(running.front().Run(Soon())) << "its place is taken";
}

TEST(CallSlotsTest, WhoWaitsRunsAsSoonAsItMay) {
  CallSlots slots(1, 64);
  std::optional<CallSlots::Call> first = *slots.Enter(0), second = *slots.Enter(0);
  ASSERT_TRUE(first->Run(Soon()));
  ASSERT_TRUE(second->Run(Soon()));
  std::atomic<int> ran = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      absl::StatusOr<CallSlots::Call> call = slots.Enter(0);
      EXPECT_TRUE(call.ok() && call->Run(Later()));
      ++ran;
    });
  }
  EXPECT_EQ(ran, 0);
  first.reset();  // with it goes its place, to one after the other
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ran, 8);
  EXPECT_EQ(slots.inside(0), 1U);
}

}  // namespace
}  // namespace kvasir
