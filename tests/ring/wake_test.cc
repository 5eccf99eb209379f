// Who wakes whom, and when nobody has to.
#include <sys/epoll.h>

#include <thread>

#include <gtest/gtest.h>

#include "tests/ring/ring_pair.h"

namespace kvasir::ring {
namespace {

// An epoll that nobody reads the doorbell of.
class Doorkeeper {
 public:
  explicit Doorkeeper(int doorbell) : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    const absl::Status status = WatchDoorbell(epoll_.get(), doorbell, 42);
    EXPECT_TRUE(status.ok()) << status;
  }
  // Edges since it was asked last, 0 or 1; waits at most so long.
  int Edges(int timeout_ms = 0) const {
    epoll_event event{};
    const int events = ::epoll_wait(epoll_.get(), &event, 1, timeout_ms);
    EXPECT_TRUE(events == 0 || event.data.u64 == 42);
    return events;
  }

 private:
  UniqueFd epoll_;
};

uint32_t NeedWake(const RingPair& ring) {
  return ring.engine.memory.daemon_words->sq_need_wake.load();
}

TEST(WakeTest, AnIdleDaemonIsRungForEachSubmission) {
  RingPair ring;
  const Doorkeeper door(ring.doorbell.get());
  EXPECT_EQ(NeedWake(ring), 1U);  // from the hand-over on
  EXPECT_EQ(door.Edges(), 0);
  ring.Submit(MakeCloseSequence({0, 1}));
  EXPECT_EQ(door.Edges(), 1);
  EXPECT_EQ(door.Edges(), 0);  // an edge, though nobody has read the counter
  ring.Submit(MakeCloseSequence({0, 1}));
  EXPECT_EQ(door.Edges(), 1);
}

TEST(WakeTest, ARingBeforeTheWatchIsSeen) {
  RingPair ring;
  ring.Submit(MakeCloseSequence({0, 1}));
  const Doorkeeper door(ring.doorbell.get());
  EXPECT_EQ(door.Edges(), 1);
}

TEST(WakeTest, AnAwakeDaemonIsNotRung) {
  RingPair ring;
  const Doorkeeper door(ring.doorbell.get());
  ASSERT_TRUE(ring.daemon.submissions.BeginTurn().ok());
  EXPECT_EQ(NeedWake(ring), 0U);
  ring.Submit(MakeCloseSequence({0, 1}));
  EXPECT_EQ(door.Edges(), 0);
  Command command;
  EXPECT_EQ(*ring.daemon.Take(&command), Taken::kEmpty);  // not seen by this turn
  EXPECT_TRUE(ring.daemon.submissions.HasNews());
  EXPECT_EQ(ring.daemon.submissions.EndTurn(), TurnEnd::kMore);  // but by its last look
  (void)ring.daemon.TakeOne();
  EXPECT_EQ(NeedWake(ring), 0U);
  EXPECT_EQ(*ring.daemon.Take(&command), Taken::kEmpty);
  EXPECT_EQ(ring.daemon.submissions.EndTurn(), TurnEnd::kIdle);
  EXPECT_EQ(NeedWake(ring), 1U);
  ring.Submit(MakeCloseSequence({0, 1}));
  EXPECT_EQ(door.Edges(), 1);
}

TEST(WakeTest, SeveralSubmissionsAndOneRing) {
  RingPair ring;
  const Doorkeeper door(ring.doorbell.get());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(*ring.engine.submissions.Submit(MakeCloseSequence({0, 1}), Bell::kLater));
  }
  EXPECT_EQ(door.Edges(), 0);
  ASSERT_TRUE(ring.engine.submissions.Ring().ok());
  EXPECT_EQ(door.Edges(), 1);
  for (int i = 0; i < 3; ++i) (void)ring.daemon.TakeOne();
}

// A thread that sleeps, on a mapping that it cannot write, is woken by the completion alone: the
// slice is an hour.
TEST(WakeTest, ASleepingEngineIsWoken) {
  RingPair ring;
  for (int i = 0; i < 200; ++i) {
    ring.Submit(MakeCloseSequence({0, 1}));
    const CompletionTicket ticket = ring.daemon.TakeOne().ticket;
    absl::Status waited;
    std::thread engine([&] {
      waited = ring.engine.completions.Wait(SystemClock().Now() + std::chrono::hours(1));
    });
    // Half of the times it has said that it sleeps.
    while (i % 2 == 0 && ring.engine_words().cq_need_wake.load() == 0) std::this_thread::yield();
    ring.daemon.completions.Complete(ticket, {});
    engine.join();
    EXPECT_TRUE(waited.ok()) << waited;
    EXPECT_EQ(ring.engine_words().cq_need_wake.load(), 0U);
    (void)ring.Read();
  }
}

}  // namespace
}  // namespace kvasir::ring
