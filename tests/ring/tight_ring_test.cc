// One call after the other, without a breath, in two processes on processors of their own: both go
// to sleep, and wake the other, within the time that a store takes to be seen. Without any one of
// the four fences a call is lost here sooner or later, and a wait lasts a minute.
#include <signal.h>
#include <sys/epoll.h>

#include <vector>

#include <gtest/gtest.h>

#include "ring/pause.h"
#include "tests/ring/two_processes.h"

#include <sched.h>

namespace kvasir::ring {
namespace {

// Puts this process on one of its processors, another one for each number, as long as it lives.
class Pinned {
 public:
  explicit Pinned(size_t number) {
    (void)::sched_getaffinity(0, sizeof(before_), &before_);
    std::vector<size_t> cpus;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &before_)) cpus.push_back(cpu);
    }
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpus[number % cpus.size()], &one);
    (void)::sched_setaffinity(0, sizeof(one), &one);
  }
  ~Pinned() { (void)::sched_setaffinity(0, sizeof(before_), &before_); }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;

 private:
  cpu_set_t before_{};
};

void PauseUpTo(uint32_t looks, Random& random) {
  for (uint32_t i = random() % looks; i > 0; --i) Pause();
}

absl::Status MakeCalls(const RingSegments& segments, int doorbell, uint64_t calls,
                       std::chrono::nanoseconds spin) {
  EngineEnd engine(
      segments, doorbell,
      {.spin = spin, .slice = std::chrono::hours(1), .peer_is_gone = [] { return false; }});
  Random random(6);
  for (uint64_t i = 0; i < calls; ++i) {
    PauseUpTo(16, random);
    const absl::StatusOr<bool> submitted = engine.submissions.Submit(MakeSync({0, 1}, i, {}));
    if (!submitted.ok() || !*submitted) return Internal("not submitted: call={}", i);
    const absl::Status waited =
        engine.completions.Wait(SystemClock().Now() + std::chrono::milliseconds(kNeverMs));
    if (!waited.ok()) return waited;
    Completion completion;
    const absl::StatusOr<bool> there = engine.completions.Next(&completion);
    if (!there.ok() || !*there || completion.entry.result[0] != i) {
      return Internal("a wrong answer: call={}", i);
    }
    engine.completions.Done();
  }
  return absl::OkStatus();
}

struct Answered {
  uint64_t calls = 0;
  absl::Status status;  // OK: the engine hung up
};

// `sleeps`: whenever there is nothing; else it looks at the ring all the time.
Answered AnswerCalls(DaemonEnd& daemon, int doorbell, int socket, bool sleeps) {
  Random random(7);
  Answered run;
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  (void)WatchDoorbell(epoll.get(), doorbell, 1);
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP;
  event.data.u64 = 2;
  (void)::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, socket, &event);
  for (uint64_t turns = 0; run.status.ok(); ++turns) {
    run.status = daemon.submissions.BeginTurn();
    Command command;
    while (run.status.ok() && *daemon.Take(&command) == Taken::kCommand) {
      daemon.completions.Complete(command.ticket, {{command.entry.arg[0], 0, 0}, {}});
      ++run.calls;
    }
    PauseUpTo(16, random);
    if (!sleeps) {
      if (turns % 65'536 == 0 && IsHungUp(socket)) break;
      continue;
    }
    if (daemon.submissions.EndTurn() == TurnEnd::kMore) continue;
    const int events = ::epoll_wait(epoll.get(), &event, 1, kNeverMs);
    if (events != 1) run.status = DeadlineExceeded("nobody rang: calls={}", run.calls);
    if (event.data.u64 == 2) break;
  }
  return run;
}

void CallAndAnswer(bool daemon_sleeps, std::chrono::nanoseconds engine_spin) {
  constexpr uint64_t kCalls = 40'000;
  const RingSegments segments(SmallSizes());
  const UniqueFd doorbell = *MakeDoorbell();
  DaemonEnd daemon(segments);
  Sockets sockets;
  const pid_t engine = Fork(sockets, [&] {
    const Pinned pinned(1);
    const absl::Status status = MakeCalls(segments, doorbell.get(), kCalls, engine_spin);
    if (!status.ok()) fmt::print(stderr, "engine: {}\n", MessageOf(status));
    return status.ok() ? 0 : 1;
  });
  const Pinned pinned(0);
  const Answered run = AnswerCalls(daemon, doorbell.get(), sockets.parent.get(), daemon_sleeps);
  EXPECT_TRUE(run.status.ok()) << run.status;
  EXPECT_EQ(run.calls, kCalls);
  if (!run.status.ok()) ::kill(engine, SIGKILL);
  EXPECT_EQ(WaitFor(engine), 0);
}

TEST(TightRingTest, TheDaemonFallsAsleepWhileItIsRung) {
  CallAndAnswer(true, std::chrono::hours(1));
}

TEST(TightRingTest, TheEngineFallsAsleepWhileItIsAnswered) {
  CallAndAnswer(false, std::chrono::nanoseconds(0));
}

TEST(TightRingTest, BothFallAsleep) { CallAndAnswer(true, std::chrono::nanoseconds(0)); }

}  // namespace
}  // namespace kvasir::ring
