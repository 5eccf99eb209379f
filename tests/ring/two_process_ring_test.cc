// Engine and daemon in two processes, either of which dawdles, sleeps or is killed at random. No
// wait here ends by itself before a minute, so that a wake-up that is lost is a test that fails:
// slices are an hour long, and nothing is polled. What is checked is counted, and every payload and
// answer is compared byte by byte.
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "ring/command_check.h"
#include "ring/pause.h"
#include "tests/ring/two_processes.h"

namespace kvasir::ring {
namespace {

// Nothing, a few looks, the processor to somebody else, or a real sleep.
void Dawdle(Random& random) {
  const uint32_t what = random() % 32;
  if (what < 8) {
    for (uint32_t i = random() % 2000; i > 0; --i) Pause();
  } else if (what < 10) {
    std::this_thread::yield();
  } else if (what == 10) {
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
  }
}

// The command with this number, the same for both sides.
std::vector<shm::SyncNeedRecord> NeedsOf(uint64_t number) {
  std::vector<shm::SyncNeedRecord> needs(1 + number * 7 % 23);
  for (size_t i = 0; i < needs.size(); ++i) {
    needs[i] = {static_cast<uint32_t>(i % kTestSequences),
                static_cast<uint32_t>(number),
                number * 1'000'003 + i,
                0,
                0,
                0};
  }
  return needs;
}
std::vector<shm::SyncResultRecord> ResultsOf(uint64_t number) {
  std::vector<shm::SyncResultRecord> results(NeedsOf(number).size());
  for (size_t i = 0; i < results.size(); ++i) results[i] = {0, 0, ~number, i, number};
  return results;
}
template <typename Record>
bool Same(std::span<const std::byte> bytes, const std::vector<Record>& records) {
  return bytes.size() == records.size() * sizeof(Record) &&
         std::memcmp(bytes.data(), records.data(), bytes.size()) == 0;
}

// Fewer submissions than completions, so that entries are used again while others are under way.
shm::RingSizes StressSizes() {
  return {.submission_entries = 4,
          .completion_entries = 16,
          .payload_area_bytes = 4096,
          .answer_area_bytes = 16384,
          .engine_spin_ns = 0,
          .first_entry = 0xFFFFFF80};
}

// ---- engine

struct EngineRun {
  uint64_t submitted = 0;
  uint64_t completed = 0;
  absl::Status status;  // what ended it; OK: all were completed
};

// Submits `commands`, up to sixteen at once, and checks every answer.
EngineRun RunEngine(const RingSegments& segments, int doorbell, int socket, uint64_t commands,
                    std::chrono::milliseconds slice, uint32_t seed, const auto& after_each) {
  Random random(seed);
  const std::chrono::nanoseconds spin(seed % 3 * 5000);
  EngineEnd engine(segments, doorbell, {.spin = spin, .slice = slice, .peer_is_gone = [=] {
                                          return IsHungUp(socket);
                                        }});
  EngineRun run;
  const auto step = [&]() -> absl::Status {
    Dawdle(random);
    if (run.submitted < commands && random() % 2 == 0) {
      const std::vector<shm::SyncNeedRecord> needs = NeedsOf(run.submitted);
      const std::span<const std::byte> payload = std::as_bytes(std::span(needs));
      shm::SubmissionEntry entry = MakeSyncMany(needs);
      entry.user_data = run.submitted;
      const absl::StatusOr<bool> submitted =
          engine.submissions.Submit(entry, std::span(&payload, 1));
      if (!submitted.ok()) return submitted.status();
      run.submitted += *submitted ? 1 : 0;
      if (*submitted) return absl::OkStatus();
    }
    if (run.completed == run.submitted) return absl::OkStatus();
    const absl::Status waited =
        engine.completions.Wait(SystemClock().Now() + std::chrono::milliseconds(kNeverMs));
    if (!waited.ok()) return waited;
    Completion completion;
    const absl::StatusOr<bool> there = engine.completions.Next(&completion);
    if (!there.ok()) return there.status();
    if (!*there) return Internal("a wait ended, and there is nothing");
    std::vector<std::byte> answer(completion.entry.answer_bytes);
    completion.CopyAnswer(answer);
    if (!Same(std::span<const std::byte>(answer), ResultsOf(completion.entry.user_data))) {
      return Internal("a wrong answer: command={}", completion.entry.user_data);
    }
    engine.completions.Done();
    ++run.completed;
    after_each(run.completed);
    return absl::OkStatus();
  };
  while (run.status.ok() && run.completed < commands) run.status = step();
  return run;
}

// ---- daemon

struct DaemonRun {
  uint64_t taken = 0;
  uint64_t idle = 0;  // how often it slept
  uint64_t no_room = 0;
  absl::Status status;  // OK: the engine hung up
};

// Serves until the socket hangs up. Commands are completed in any order.
DaemonRun RunDaemon(DaemonEnd& daemon, int doorbell, int socket, uint32_t seed,
                    const auto& after_each) {
  Random random(seed);
  DaemonRun run;
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  (void)WatchDoorbell(epoll.get(), doorbell, 1);
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP;
  event.data.u64 = 2;
  (void)::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, socket, &event);
  std::vector<std::pair<CompletionTicket, uint64_t>> held;
  const auto complete_one = [&] {
    std::swap(held[random() % held.size()], held.back());
    const std::vector<shm::SyncResultRecord> results = ResultsOf(held.back().second);
    daemon.completions.Complete(held.back().first, {{}, std::as_bytes(std::span(results))});
    held.pop_back();
  };
  bool hung_up = false;
  // One turn; true: the session may be left alone.
  const auto turn = [&]() -> absl::StatusOr<bool> {
    Dawdle(random);
    absl::Status begun = daemon.submissions.BeginTurn();
    if (!begun.ok()) return begun;
    Command command;
    absl::StatusOr<Taken> taken = Taken::kEmpty;
    while ((taken = daemon.Take(&command)).ok() && *taken == Taken::kCommand) {
      if (command.entry.user_data != run.taken || !Same(command.payload, NeedsOf(run.taken))) {
        return Internal("a wrong command: user_data={} taken={}", command.entry.user_data,
                        run.taken);
      }
      held.emplace_back(command.ticket, run.taken++);
      if (random() % 2 == 0) complete_one();
      after_each(run.taken);
    }
    if (!taken.ok()) return taken.status();
    run.no_room += *taken == Taken::kNoRoom ? 1 : 0;
    while (!held.empty()) {
      Dawdle(random);
      complete_one();
    }
    return daemon.submissions.EndTurn() == TurnEnd::kIdle;
  };
  while (run.status.ok()) {
    const absl::StatusOr<bool> idle = turn();
    run.status = idle.status();
    if (!idle.ok() || !*idle) continue;
    if (hung_up) break;  // and all that it has left is taken
    ++run.idle;
    const int events = ::epoll_wait(epoll.get(), &event, 1, kNeverMs);
    if (events != 1) run.status = DeadlineExceeded("nobody rang: taken={}", run.taken);
    hung_up = hung_up || (events == 1 && event.data.u64 == 2);
  }
  return run;
}

constexpr auto kNothing = [](uint64_t) {};

TEST(TwoProcessRingTest, EverySubmissionIsAnswered) {
  constexpr uint64_t kCommands = 4000;
  for (const uint32_t seed : {1U, 2U, 3U}) {
    SCOPED_TRACE(seed);
    const RingSegments segments(StressSizes());
    const UniqueFd doorbell = *MakeDoorbell();
    DaemonEnd daemon(segments);
    Sockets sockets;
    const pid_t engine = Fork(sockets, [&] {
      const EngineRun run = RunEngine(segments, doorbell.get(), sockets.child.get(), kCommands,
                                      std::chrono::hours(1), seed, kNothing);
      if (!run.status.ok()) fmt::print(stderr, "engine: {}\n", MessageOf(run.status));
      return run.status.ok() && run.completed == kCommands ? 0 : 1;
    });
    const DaemonRun run =
        RunDaemon(daemon, doorbell.get(), sockets.parent.get(), seed + 100, kNothing);
    EXPECT_TRUE(run.status.ok()) << run.status;
    EXPECT_EQ(run.taken, kCommands);
    EXPECT_EQ(run.no_room, 0U);
    EXPECT_GT(run.idle, 10U);  // it was asleep now and then, or nothing was tested
    if (!run.status.ok()) ::kill(engine, SIGKILL);
    EXPECT_EQ(WaitFor(engine), 0);
  }
}

// An engine that is killed between any two stores is no violation, and all that it has published
// is whole.
TEST(TwoProcessRingTest, TheEngineIsKilled) {
  Random random(4);
  uint64_t taken = 0;
  for (uint32_t round = 0; round < 60; ++round) {
    SCOPED_TRACE(round);
    const RingSegments segments(StressSizes());
    const UniqueFd doorbell = *MakeDoorbell();
    DaemonEnd daemon(segments);
    Sockets sockets;
    const pid_t engine = Fork(sockets, [&] {
      (void)RunEngine(segments, doorbell.get(), sockets.child.get(), ~0ULL, std::chrono::hours(1),
                      round, kNothing);
      return 1;
    });
    const uint64_t end = 1 + random() % 60;
    const DaemonRun run =
        RunDaemon(daemon, doorbell.get(), sockets.parent.get(), round, [&](uint64_t count) {
          if (count != end) return;
          Dawdle(random);
          ::kill(engine, SIGKILL);
        });
    EXPECT_TRUE(run.status.ok()) << run.status;
    EXPECT_GE(run.taken, end);
    if (!run.status.ok()) ::kill(engine, SIGKILL);
    EXPECT_EQ(WTERMSIG(WaitFor(engine)), SIGKILL);
    taken += run.taken;
  }
  EXPECT_GT(taken, 60U);
}

// An engine whose daemon is killed reads what was completed, is told, and never hangs.
TEST(TwoProcessRingTest, TheDaemonIsKilled) {
  Random random(5);
  for (uint32_t round = 0; round < 60; ++round) {
    SCOPED_TRACE(round);
    const RingSegments segments(StressSizes());
    const UniqueFd doorbell = *MakeDoorbell();
    Sockets sockets;
    const pid_t daemon = Fork(sockets, [&] {
      DaemonEnd end(segments);
      if (::send(sockets.child.get(), "x", 1, 0) != 1) return 2;  // the hand-over
      (void)RunDaemon(end, doorbell.get(), sockets.child.get(), round, kNothing);
      return 1;
    });
    char handed_over = 0;
    ASSERT_EQ(::recv(sockets.parent.get(), &handed_over, 1, 0), 1);
    const uint64_t last = 1 + random() % 60;
    const EngineRun run = RunEngine(segments, doorbell.get(), sockets.parent.get(), ~0ULL,
                                    std::chrono::milliseconds(2), round, [&](uint64_t count) {
                                      if (count != last) return;
                                      Dawdle(random);
                                      ::kill(daemon, SIGKILL);
                                    });
    EXPECT_EQ(run.status.code(), absl::StatusCode::kUnavailable) << run.status;
    EXPECT_GE(run.completed, last);
    EXPECT_LE(run.completed, run.submitted);
    if (run.completed < last) ::kill(daemon, SIGKILL);
    EXPECT_EQ(WTERMSIG(WaitFor(daemon)), SIGKILL);
  }
}

}  // namespace
}  // namespace kvasir::ring
