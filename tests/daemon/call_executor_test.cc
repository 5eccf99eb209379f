// CallExecutor: a bound for each caller, none that another feels, and no thread for what waits.
#include "daemon/control/call_executor.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/shortage.h"

namespace kvasir {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

Instant In(Instant::duration time) { return SystemClock().Now() + time; }

void Until(const std::function<bool()>& is) {
  while (!is()) std::this_thread::yield();
}

class CallExecutorTest : public ::testing::Test {
 protected:
  static constexpr uint32_t kThreads = 4;
  CallExecutor::Wait After(uint64_t seen, Instant at_latest = In(seconds(600))) {
    return {seen, Instant{}, at_latest, &cancelled_};
  }

  Progress progress_;
  TimeShares shares_{3, 1000.0};  // more than there is
  std::atomic<bool> cancelled_ = false;
  std::atomic<int> ran_ = 0;
  CallExecutor executor_{{3, 4, kThreads}, progress_, shares_};
};

TEST_F(CallExecutorTest, SoManyAreInside) {
  std::vector<CallExecutor::Place> places;
  for (int i = 0; i < 4; ++i) places.push_back(*executor_.Enter(0));
  const absl::Status refused = executor_.Enter(0).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(ShortageOf(refused).has_value());
  EXPECT_EQ(ShortageOf(refused)->budget, "limits.calls_per_tenant_max");
  EXPECT_TRUE(executor_.Enter(1).ok()) << "another caller's are not counted";
  EXPECT_EQ(executor_.refused(0), 1U);
  EXPECT_EQ(executor_.refused(1), 0U);
  EXPECT_EQ(executor_.inside(0), 4U);
  places.pop_back();
  EXPECT_EQ(executor_.inside(0), 3U);
  EXPECT_TRUE(executor_.Enter(0).ok());
}

TEST_F(CallExecutorTest, SoManyRunAndOthersDoNotWaitForThem) {
  std::atomic<bool> go = false;
  std::atomic<uint32_t> running = 0, most = 0;
  for (int i = 0; i < 16; ++i) {
    executor_.Run(0, [&] {
      const uint32_t now = ++running;
      uint32_t before = most;
      while (before < now && !most.compare_exchange_weak(before, now)) {
      }
      Until([&] { return go.load(); });
      --running;
      ++ran_;
    });
  }
  std::atomic<bool> other = false;
  executor_.Run(1, [&] { other = true; });
  Until([&] { return other.load() && running == CallExecutor::kRunning; });
  EXPECT_EQ(ran_, 0);
  go = true;
  Until([&] { return ran_ == 16; });
  EXPECT_EQ(most, CallExecutor::kRunning);
}

TEST_F(CallExecutorTest, WhereNobodyWaitsATaskRunsOnTheThreadThatBringsIt) {
  const std::thread::id here = std::this_thread::get_id();
  std::atomic<std::thread::id> ran_on{};
  const auto note = [&] { ran_on = std::this_thread::get_id(); };
  executor_.RunHere(0, note);
  EXPECT_EQ(ran_on.load(), here);

  std::atomic<bool> go = false, running = false;
  executor_.Run(0, [&] {
    running = true;
    Until([&] { return go.load(); });
    ++ran_;
  });
  Until([&] { return running.load(); });
  ran_on = std::thread::id();
  executor_.RunHere(0, note);
  Until([&] { return ran_on.load() != std::thread::id(); });
  EXPECT_NE(ran_on.load(), here) << "a task runs: this thread may be the last that is free";
  go = true;
  Until([&] { return ran_ == 1; });
}

TEST_F(CallExecutorTest, OneThreadAtMostOfThoseThatBringTasksIsBusy) {
  std::atomic<bool> go = false, running = false;
  std::thread first([&] {
    executor_.RunHere(0, [&] {
      running = true;
      Until([&] { return go.load(); });
    });
  });
  Until([&] { return running.load(); });
  // Returns, though its task does not end before the first's does.
  executor_.RunHere(0, [&] {
    Until([&] { return go.load(); });
    ++ran_;
  });
  executor_.RunHere(1, [&] { ++ran_; });
  Until([&] { return ran_ == 1; });
  go = true;
  Until([&] { return ran_ == 2; });
  first.join();
}

TEST_F(CallExecutorTest, BesideAnotherCallerTurnsAreAsEver) {
  const std::thread::id here = std::this_thread::get_id();
  shares_.Charge(1, In(seconds(600)), milliseconds(1));  // as if it were still there then
  std::atomic<std::thread::id> ran_on{};
  executor_.RunHere(0, [&] { ran_on = std::this_thread::get_id(); });
  Until([&] { return ran_on.load() != std::thread::id(); });
  EXPECT_NE(ran_on.load(), here);
}

TEST_F(CallExecutorTest, WhatIsShortDoesNotWaitForWhatIsLong) {
  std::atomic<bool> go = false;
  for (uint32_t caller = 0; caller < 3; ++caller) {
    for (int i = 0; i < 4; ++i) {
      const auto task = [&] {
        Until([&] { return go.load(); });
        ++ran_;
      };
      executor_.Run(caller, task, CallExecutor::kLong);
    }
  }
  std::atomic<bool> other = false;
  executor_.Run(0, [&] { other = true; });
  Until([&] { return other.load(); });
  EXPECT_EQ(ran_, 0);
  go = true;
  Until([&] { return ran_ == 12; });
}

TEST_F(CallExecutorTest, WhatWaitsTakesNoThread) {
  for (int i = 0; i < 100; ++i) executor_.RunAfter(0, After(progress_.seen()), [&] { ++ran_; });
  std::atomic<bool> same = false;
  executor_.Run(0, [&] { same = true; });
  Until([&] { return same.load(); });
  EXPECT_EQ(ran_, 0);
  progress_.NotifyAll();
  Until([&] { return ran_ == 100; });
}

TEST_F(CallExecutorTest, ProgressThatCameBeforeIsNotMissed) {
  const uint64_t seen = progress_.seen();
  progress_.NotifyAll();
  executor_.RunAfter(0, After(seen), [&] { ++ran_; });
  Until([&] { return ran_ == 1; });
}

TEST_F(CallExecutorTest, EachComesAtItsTimeAtTheLatest) {
  const uint64_t seen = progress_.seen();
  const Instant early = In(milliseconds(20));
  executor_.RunAfter(0, After(seen), [&] { ran_ += 100; });
  // The one behind it is due before it.
  executor_.RunAfter(1, After(seen, early), [&] { ++ran_; });
  Until([&] { return ran_ == 1; });
  EXPECT_GE(SystemClock().Now(), early);
  // Progress, but not yet.
  progress_.NotifyAll();
  Until([&] { return ran_ == 101; });
  const Instant later = In(milliseconds(20));
  CallExecutor::Wait wait = After(seen);
  wait.not_before = later;
  executor_.RunAfter(0, wait, [&] { ++ran_; });
  Until([&] { return ran_ == 102; });
  EXPECT_GE(SystemClock().Now(), later);
}

TEST_F(CallExecutorTest, WhoHasGoneWaitsNoLonger) {
  executor_.RunAfter(0, After(progress_.seen()), [&] { ++ran_; });
  cancelled_ = true;
  executor_.NoteCancelled(&cancelled_);
  Until([&] { return ran_ == 1; });
  executor_.RunAfter(0, After(progress_.seen()), [&] { ++ran_; });  // gone before it waits
  Until([&] { return ran_ == 2; });
}

TEST_F(CallExecutorTest, WhatIsLeftAtTheEndIsDropped) {
  {
    CallExecutor executor({1, 4, 1}, progress_, shares_);
    executor.RunAfter(0, After(progress_.seen()), [&] { ++ran_; });
  }
  progress_.NotifyAll();
  EXPECT_EQ(ran_, 0);
}

TEST(CallExecutorSharesTest, WhoHasUsedUpItsShareWaitsAndOthersDoNot) {
  Progress progress;
  TimeShares shares(2, 0.001);
  CallExecutor executor({2, 4, 4}, progress, shares);
  shares.Charge(0, SystemClock().Now(), std::chrono::hours(1));  // owes a thousand hours
  shares.Charge(1, SystemClock().Now(), milliseconds(1));
  std::atomic<bool> first = false, second = false;
  executor.Run(0, [&] { first = true; });
  executor.Run(1, [&] { second = true; });
  Until([&] { return second.load(); });
  EXPECT_FALSE(first);
  Until([&] { return first.load(); });  // once nobody else is there any more
}

}  // namespace
}  // namespace kvasir
