// Calls of several threads over one ring.
#include "ring/command_caller.h"

#include <atomic>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ring/command_check.h"
#include "tests/ring/ring_pair.h"

namespace kvasir::ring {
namespace {

using ::testing::HasSubstr;

Instant Never() { return SystemClock().Now() + std::chrono::minutes(1); }

// A daemon's end and a caller; a thread serves if a test asks for it.
struct CalledRing {
  explicit CalledRing(const shm::RingSizes& sizes = SmallSizes(),
                      std::chrono::milliseconds slice = std::chrono::hours(1))
      : segments(sizes),
        doorbell(*MakeDoorbell()),
        daemon(segments),
        engine(segments, doorbell.get(), NeverGone()),
        caller(engine.memory, doorbell.get(),
               {.spin = std::chrono::nanoseconds(0), .slice = slice, .peer_is_gone = [this] {
                  return gone.load();
                }}) {}
  ~CalledRing() {
    stop = true;
    if (server.joinable()) server.join();
  }

  // Serves whatever comes, late and out of order.
  void StartServer() {
    server = std::thread([this] {
      Random random(7);
      std::vector<Command> held;
      while (!stop) {
        if (!daemon.submissions.BeginTurn().ok()) return;
        Command command;
        while (*daemon.Take(&command) == Taken::kCommand) held.push_back(command);
        (void)daemon.submissions.EndTurn();
        if (held.empty() || random() % 3 == 0) {
          std::this_thread::yield();
          continue;
        }
        std::swap(held[random() % held.size()], held.back());
        Answer(held.back());
        held.pop_back();
      }
    });
  }
  // Tells a Sync its own numbers, and fails a Truncate.
  void Answer(const Command& command) {
    if (command.op() == shm::CommandOp::kTruncate) {
      daemon.completions.Fail(command.ticket, FailedPrecondition("rows={}", command.entry.arg[0]),
                              9);
    } else if (command.op() == shm::CommandOp::kRetrieve) {
      const std::vector<shm::RetrievedBlockRecord> blocks(
          command.entry.arg[1], {static_cast<uint32_t>(command.entry.arg[0]), 0, 0, 0, 0});
      daemon.completions.Complete(command.ticket,
                                  {{blocks.size(), 0, 0}, std::as_bytes(std::span(blocks))});
    } else {
      daemon.completions.Complete(command.ticket, {{command.entry.arg[0], 0, 0}, {}});
    }
  }

  RingSegments segments;
  UniqueFd doorbell;
  DaemonEnd daemon;
  EngineEnd engine;  // for its memory
  std::atomic<bool> gone{false}, stop{false};
  CommandCaller caller;
  std::thread server;
};

// More threads than entries, so that some have no room; each gets its own answers.
TEST(CommandCallerTest, EveryThreadGetsItsOwnAnswers) {
  CalledRing ring;
  ring.StartServer();
  constexpr uint64_t kThreads = 8, kCalls = 500;
  std::atomic<uint64_t> right{0};
  std::vector<std::thread> threads;
  for (uint64_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      alignas(8) std::array<std::byte, 24 * 7> room{};
      for (uint64_t i = 0; i < kCalls; ++i) {
        const uint64_t number = thread * kCalls + i;
        shm::CompletionEntry reply{};
        if (i % 3 == 0) {
          const absl::Status status =
              ring.caller.Call(MakeSync({0, 1}, number, {}), {}, {}, Never(), &reply);
          right += status.ok() && reply.result[0] == number ? 1 : 0;
        } else if (i % 3 == 1) {
          const absl::Status status =
              ring.caller.Call(MakeTruncate({0, 1}, number), {}, {}, Never(), &reply);
          right += status == FailedPrecondition("rows={}", number) && reply.retry_ms == 9 ? 1 : 0;
        } else {
          const auto layer = static_cast<uint32_t>(number);
          const absl::Status status =
              ring.caller.Call(MakeRetrieve({0, 1}, layer, i % 8, 7), {}, room, Never(), &reply);
          const auto blocks =
              RetrievedBlocksOf(reply, std::span<const std::byte>(room).first(reply.answer_bytes));
          right += status.ok() && blocks.ok() && blocks->size() == i % 8 &&
                           (blocks->empty() || blocks->back().block == layer)
                       ? 1
                       : 0;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right.load(), kThreads * kCalls);
}

// The leader's deadline passes; a follower takes the lead and has its answer.
TEST(CommandCallerTest, ADeadlineIsOneCallsOwn) {
  CalledRing ring;
  absl::Status early, late;
  shm::CompletionEntry early_reply{}, late_reply{};
  std::thread first([&] {
    early = ring.caller.Call(MakeSync({0, 1}, 1, {}), {}, {},
                             SystemClock().Now() + std::chrono::milliseconds(20), &early_reply);
  });
  std::thread second([&] {
    late = ring.caller.Call(MakeSync({0, 1}, 2, {}), {}, {}, Never(), &late_reply);
  });
  first.join();
  EXPECT_EQ(early.code(), absl::StatusCode::kDeadlineExceeded);
  // Both are answered; what nobody waits for any more is dropped, and its room is free again.
  for (int served = 0; served < 2;) {
    ASSERT_TRUE(ring.daemon.submissions.BeginTurn().ok());
    Command command;
    while (*ring.daemon.Take(&command) == Taken::kCommand) {
      EXPECT_LE(command.entry.deadline_ms, command.entry.arg[0] == 1 ? 20U : 60'000U);
      ring.Answer(command);
      ++served;
    }
  }
  second.join();
  EXPECT_TRUE(late.ok()) << late;
  EXPECT_EQ(late_reply.result[0], 2U);
  ring.StartServer();
  for (uint64_t i = 0; i < 20; ++i) {
    EXPECT_TRUE(ring.caller.Call(MakeSync({0, 1}, i, {}), {}, {}, Never(), &late_reply).ok());
    EXPECT_EQ(late_reply.result[0], i);
  }
}

TEST(CommandCallerTest, AllCallsEndWhenTheDaemonIsGone) {
  CalledRing ring(SmallSizes(), std::chrono::milliseconds(2));
  std::vector<std::thread> threads;
  std::atomic<int> unavailable{0};
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      shm::CompletionEntry reply{};
      const absl::Status status =
          ring.caller.Call(MakeSync({0, 1}, 1, {}), {}, {}, Never(), &reply);
      unavailable += status.code() == absl::StatusCode::kUnavailable ? 1 : 0;
    });
  }
  while (ring.engine.memory.engine_words->cq_need_wake.load() == 0) std::this_thread::yield();
  ring.gone = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(unavailable.load(), 8);
}

TEST(CommandCallerTest, AnAnswerToNobodyBreaksTheRing) {
  CalledRing ring;
  std::thread daemon([&] {
    Command command;
    absl::StatusOr<Taken> taken = Taken::kEmpty;
    do {
      ASSERT_TRUE(ring.daemon.submissions.BeginTurn().ok());
      taken = ring.daemon.Take(&command);
    } while (*taken != Taken::kCommand);
    command.ticket.user_data ^= 1ULL << 40;
    ring.Answer(command);
  });
  shm::CompletionEntry reply{};
  const absl::Status status = ring.caller.Call(MakeSync({0, 1}, 1, {}), {}, {}, Never(), &reply);
  daemon.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(MessageOf(status), HasSubstr("user_data"));
  EXPECT_EQ(ring.caller.Call(MakeSync({0, 1}, 1, {}), {}, {}, Never(), &reply), status);
}

TEST(CommandCallerTest, RoomForTheAnswerIsChecked) {
  CalledRing ring;
  shm::CompletionEntry reply{};
  std::array<std::byte, 23> room{};
  const absl::Status status =
      ring.caller.Call(MakeRetrieve({0, 1}, 0, 0, 1), {}, room, Never(), &reply);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(status), HasSubstr("bytes=23 answer_bytes_max=24"));
}

}  // namespace
}  // namespace kvasir::ring
