// Both ends of a ring in one thread: order, wrap, full, empty, the bounds of a turn, room.
#include <algorithm>
#include <deque>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ring/command_check.h"
#include "tests/ring/ring_pair.h"

namespace kvasir::ring {
namespace {

using ::testing::HasSubstr;

TEST(RingTest, EveryFieldArrives) {
  RingPair ring;
  shm::SubmissionEntry sync = MakeSync({3, 77}, 640, 512);
  sync.user_data = 0xABCDEF0123456789;
  sync.deadline_ms = 5000;
  ring.Submit(sync);
  const Command command = ring.daemon.TakeOne();
  EXPECT_EQ(command.op(), shm::CommandOp::kSync);
  EXPECT_EQ(command.entry.flags, shm::kSyncHasTableRow);
  EXPECT_EQ(command.entry.seq, 3U);
  EXPECT_EQ(command.entry.seq_uid, 77U);
  EXPECT_EQ(command.entry.arg[0], 640U);
  EXPECT_EQ(command.entry.arg[1], 512U);
  EXPECT_EQ(command.entry.deadline_ms, 5000U);
  EXPECT_TRUE(command.payload.empty());
  ring.daemon.completions.Complete(command.ticket, {{704, 9, 1 << 20}, {}});
  const auto [entry, answer] = ring.Read();
  EXPECT_EQ(entry.user_data, sync.user_data);
  EXPECT_EQ(entry.status, 0);
  EXPECT_EQ(entry.boot_epoch, kTestEpoch);
  EXPECT_EQ(entry.result[0], 704U);
  EXPECT_EQ(entry.result[1], 9U);
  EXPECT_EQ(entry.result[2], 1U << 20);
  EXPECT_TRUE(answer.empty());
}

TEST(RingTest, EmptyAndFull) {
  RingPair ring;
  Command command;
  ASSERT_TRUE(ring.daemon.submissions.BeginTurn().ok());
  EXPECT_EQ(*ring.daemon.Take(&command), Taken::kEmpty);
  Completion completion;
  EXPECT_FALSE(*ring.engine.completions.Next(&completion));
  for (uint64_t i = 0; i < 4; ++i) {
    shm::SubmissionEntry entry = MakeSync({0, 1}, i, {});
    entry.user_data = i;
    ring.Submit(entry);
  }
  EXPECT_FALSE(*ring.engine.submissions.Submit(MakeSync({0, 1}, 4, {})));
  // What this turn has not seen waits for the next one.
  EXPECT_EQ(*ring.daemon.Take(&command), Taken::kEmpty);
  std::vector<CompletionTicket> tickets;
  ASSERT_TRUE(ring.daemon.submissions.BeginTurn().ok());
  while (*ring.daemon.Take(&command) == Taken::kCommand) {
    EXPECT_EQ(command.entry.user_data, tickets.size());
    tickets.push_back(command.ticket);
  }
  ASSERT_EQ(tickets.size(), 4U);
  EXPECT_EQ(ring.daemon.completions.pending(), 4U);
  // The daemon has taken them, but their completions would not fit beside another one.
  EXPECT_FALSE(*ring.engine.submissions.Submit(MakeSync({0, 1}, 4, {})));
  // In another order than they were asked.
  for (const size_t i : {2U, 0U, 3U, 1U}) ring.daemon.completions.Complete(tickets[i], {});
  EXPECT_EQ(ring.daemon.completions.unread(), 4U);
  EXPECT_EQ(ring.Read().first.user_data, 2U);
  EXPECT_TRUE(*ring.engine.submissions.Submit(MakeSync({0, 1}, 4, {})));
  for (const uint64_t i : {0U, 3U, 1U}) EXPECT_EQ(ring.Read().first.user_data, i);
  EXPECT_FALSE(*ring.engine.completions.Next(&completion));
  EXPECT_EQ(ring.engine.credit.in_flight(), 1U);
}

// Counters wrap at the second command; areas wrap again and again. What is under way is completed
// in random order, so that submissions are full at times, and completions at others.
TEST(RingTest, TenThousandCommandsOfEveryLength) {
  shm::RingSizes sizes = SmallSizes();
  sizes.payload_area_bytes = sizes.answer_area_bytes = 8192;
  RingPair ring(sizes);
  Random random(20'261'127);
  struct Sent {
    std::vector<shm::SyncNeedRecord> needs;
  };
  std::deque<Sent> sent;  // by user_data, from first_sent on
  uint64_t submitted = 0, taken = 0, read = 0, full = 0;
  std::vector<std::pair<Command, uint64_t>> held;  // and the sum that its answer has to tell
  constexpr uint64_t kCommands = 10'000;
  while (read < kCommands) {
    const uint32_t what = random() % 3;
    if (what == 0 && submitted < kCommands) {
      std::vector<shm::SyncNeedRecord> needs(1 + random() % 60);
      for (shm::SyncNeedRecord& need : needs) need = {random() % 8, random(), random(), 0, 0, 0};
      shm::SubmissionEntry entry = MakeSyncMany(needs);
      entry.user_data = submitted;
      const std::span<const std::byte> payload = std::as_bytes(std::span(needs));
      const bool done = *ring.engine.submissions.Submit(entry, std::span(&payload, 1));
      full += done ? 0 : 1;
      if (done) sent.push_back({std::move(needs)});
      submitted += done ? 1 : 0;
    } else if (what == 1) {
      ASSERT_TRUE(ring.daemon.submissions.BeginTurn().ok());
      Command command;
      if (*ring.daemon.Take(&command) == Taken::kCommand) {
        ASSERT_EQ(command.entry.user_data, taken);
        const auto needs = SyncNeedsOf(command.payload);
        ASSERT_EQ(std::memcmp(needs.data(), sent[taken].needs.data(), needs.size_bytes()), 0);
        ASSERT_EQ(needs.size(), sent[taken].needs.size());
        ++taken;
        command.payload = {};
        held.emplace_back(command, needs.size());
      }
      if (!held.empty() && random() % 2 == 0) {
        std::swap(held[random() % held.size()], held.back());
        const auto& [served, count] = held.back();
        std::vector<shm::SyncResultRecord> results(count);
        for (auto& result : results) result.granted_rows = served.entry.user_data;
        ring.daemon.completions.Complete(served.ticket, {{}, std::as_bytes(std::span(results))});
        held.pop_back();
      }
    } else if (ring.daemon.completions.unread() > 0) {
      Completion completion;
      if (!*ring.engine.completions.Next(&completion)) continue;
      const auto [entry, answer] = ring.Read();
      const auto results = SyncResultsOf(answer, sent[entry.user_data].needs.size());
      ASSERT_TRUE(results.ok()) << results.status();
      for (const auto& result : *results) ASSERT_EQ(result.granted_rows, entry.user_data);
      ++read;
    }
  }
  EXPECT_EQ(taken, kCommands);
  EXPECT_GT(full, 100U);
  EXPECT_EQ(ring.engine.credit.in_flight(), 0U);
  EXPECT_EQ(ring.engine.credit.answer_room(), 0U);
}

TEST(RingTest, ATurnIsBounded) {
  shm::RingSizes sizes = SmallSizes();
  sizes.submission_entries = sizes.completion_entries = 64;
  sizes.payload_area_bytes = sizes.answer_area_bytes = 1 << 20;
  RingPair ring(sizes);
  const auto count_turn = [&ring] {
    EXPECT_TRUE(ring.daemon.submissions.BeginTurn().ok());
    size_t count = 0;
    Command command;
    absl::StatusOr<Taken> taken = Taken::kEmpty;
    while ((taken = ring.daemon.Take(&command)).ok() && *taken == Taken::kCommand) {
      ring.daemon.completions.Complete(command.ticket, {});
      (void)ring.Read();
      ++count;
    }
    EXPECT_EQ(ring.daemon.submissions.EndTurn(),
              *taken == Taken::kTurnOver ? TurnEnd::kMore : TurnEnd::kIdle);
    return count;
  };
  for (int i = 0; i < 40; ++i) ring.Submit(MakeCloseSequence({0, 1}));
  EXPECT_EQ(count_turn(), 32U);
  EXPECT_EQ(count_turn(), 8U);
  EXPECT_EQ(count_turn(), 0U);
  // 1,024 sequences.
  const std::vector<shm::SyncNeedRecord> needs(400, shm::SyncNeedRecord{0, 1, 0, 0, 0, 0});
  for (int i = 0; i < 3; ++i) ring.Submit(MakeSyncMany(needs), std::as_bytes(std::span(needs)));
  EXPECT_EQ(count_turn(), 2U);
  EXPECT_EQ(count_turn(), 1U);
  // 256 KiB of payload: one of 200 KiB leaves no room for another.
  const std::vector<uint32_t> tokens(50'000);
  const absl::StatusOr<MatchPayload> match = MatchPayload::Make(1, tokens, {}, "", 0, false);
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(*ring.engine.submissions.Submit(MatchPayload::Entry(0), match->Pieces()));
  }
  EXPECT_EQ(count_turn(), 1U);
  EXPECT_EQ(count_turn(), 1U);
}

// An entry that is larger than a turn's limit, where somebody has set a small one, is taken alone.
TEST(RingTest, SmallLimitsStopNobody) {
  RingPair ring(SmallSizes(), {.entries = 3, .payload_bytes = 100, .sequences = 2});
  const std::vector<shm::SyncNeedRecord> needs(5, shm::SyncNeedRecord{0, 1, 0, 0, 0, 0});
  for (int i = 0; i < 3; ++i) ring.Submit(MakeSyncMany(needs), std::as_bytes(std::span(needs)));
  for (int i = 0; i < 3; ++i) {
    Command command = ring.daemon.TakeOne();
    EXPECT_EQ(SyncNeedsOf(command.payload).size(), 5U);
    EXPECT_EQ(*ring.daemon.Take(&command), i < 2 ? Taken::kTurnOver : Taken::kEmpty);
  }
}

// An engine that does not count what it has under way: the daemon stops, and goes on when it may.
TEST(RingTest, NoRoomForTheCompletion) {
  shm::RingSizes sizes = SmallSizes();
  sizes.completion_entries = 2;
  RingPair ring(sizes);
  for (uint64_t i = 0; i < 3; ++i) {
    shm::SubmissionEntry entry = MakeCloseSequence({0, 1});
    entry.user_data = i;
    ring.SubmitRaw(entry);
  }
  Command command;
  std::vector<CompletionTicket> tickets;
  ASSERT_TRUE(ring.daemon.submissions.BeginTurn().ok());
  while (*ring.daemon.Take(&command) == Taken::kCommand) tickets.push_back(command.ticket);
  ASSERT_EQ(tickets.size(), 2U);
  EXPECT_EQ(*ring.daemon.Take(&command), Taken::kNoRoom);
  EXPECT_EQ(ring.daemon.submissions.EndTurn(), TurnEnd::kIdle);  // it does not spin on this session
  for (const CompletionTicket& ticket : tickets) ring.daemon.completions.Complete(ticket, {});
  ASSERT_TRUE(ring.daemon.submissions.BeginTurn().ok());
  EXPECT_EQ(*ring.daemon.Take(&command), Taken::kNoRoom);
  EXPECT_EQ(ring.daemon.completions.unread(), 2U);
  ring.engine_words().cq_head.fetch_add(1);
  EXPECT_EQ(ring.daemon.submissions.EndTurn(), TurnEnd::kMore);  // the last look sees it
  EXPECT_EQ(ring.daemon.TakeOne().entry.user_data, 2U);
}

TEST(RingTest, NoRoomForTheAnswer) {
  RingPair ring;  // the area has 4,096 bytes
  shm::SubmissionEntry entry = MakeRetrieve({0, 1}, 0, 0, 100);
  ASSERT_EQ(shm::AnswerRoomOf(entry.answer_bytes_max), 2432U);
  ring.SubmitRaw(entry);
  ring.SubmitRaw(entry);
  Command command = ring.daemon.TakeOne();
  EXPECT_EQ(*ring.daemon.Take(&command), Taken::kNoRoom);
  // The library asks for no more than there is.
  RingPair honest;
  honest.Submit(entry);
  EXPECT_FALSE(*honest.engine.submissions.Submit(entry));
  EXPECT_TRUE(*honest.engine.submissions.Submit(MakeCloseSequence({0, 1})));
}

TEST(RingTest, AnAnswerThatIsTooLongSaysHowLong) {
  RingPair ring;
  ring.Submit(MakeRetrieve({0, 1}, 0, 0, 2));
  const Command command = ring.daemon.TakeOne();
  const std::vector<std::byte> answer(72);
  ring.daemon.completions.Complete(command.ticket, {{3, 0, 0}, answer});
  const auto [entry, bytes] = ring.Read();
  EXPECT_EQ(entry.status, static_cast<int32_t>(absl::StatusCode::kOutOfRange));
  EXPECT_EQ(entry.detail, 72U);
  EXPECT_TRUE(bytes.empty());
  EXPECT_EQ(entry.result[0], 0U);
}

TEST(RingTest, AFailureHasItsText) {
  RingPair ring;
  for (int i = 0; i < 2; ++i) ring.Submit(MakeTruncate({0, 1}, 7));
  ring.daemon.completions.Fail(ring.daemon.TakeOne().ticket,
                               ResourceExhausted("no room: bytes={}", 5), 100);
  const auto [entry, text] = ring.Read();
  EXPECT_EQ(entry.status, static_cast<int32_t>(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(entry.retry_ms, 100U);
  EXPECT_EQ(TextOf(text), "no room: bytes=5");
  ring.daemon.completions.Fail(ring.daemon.TakeOne().ticket,
                               Internal("{}", std::string(10'000, 'x')));
  EXPECT_EQ(TextOf(ring.Read().second), std::string(shm::kRingErrorTextBytesMax, 'x'));
}

TEST(RingTest, WhatIsTooLongIsRefusedHere) {
  RingPair ring;
  const std::vector<std::byte> payload(4097);
  const std::span<const std::byte> piece = payload;
  const shm::SubmissionEntry match = MatchPayload::Entry(0);
  absl::StatusOr<bool> submitted = ring.engine.submissions.Submit(match, std::span(&piece, 1));
  EXPECT_EQ(submitted.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(submitted.status()), HasSubstr("bytes=4097 max=4096"));
  submitted = ring.engine.submissions.Submit(MatchPayload::Entry(4097));
  EXPECT_EQ(submitted.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(submitted.status()), HasSubstr("value=4097 max=4096"));
}

TEST(RingDeathTest, ATicketIsGoodForOneCompletion) {
  RingPair ring;
  ring.Submit(MakeCloseSequence({0, 1}));
  const Command command = ring.daemon.TakeOne();
  ring.daemon.completions.Complete(command.ticket, {});
  EXPECT_DEATH(ring.daemon.completions.Complete(command.ticket, {}), "completed twice");
}

TEST(RingSizesTest, BoundsAreNamed) {
  EXPECT_TRUE(shm::CheckRingSizes({}).ok());
  shm::RingSizes sizes;
  sizes.completion_entries = 100;
  EXPECT_THAT(MessageOf(shm::CheckRingSizes(sizes)), HasSubstr("completion_entries"));
  sizes = {};
  sizes.submission_entries = 8192;
  EXPECT_THAT(MessageOf(shm::CheckRingSizes(sizes)), HasSubstr("value=8192 min=2 max=4096"));
  sizes = {};
  sizes.payload_area_bytes = 2048;
  EXPECT_THAT(MessageOf(shm::CheckRingSizes(sizes)), HasSubstr("payload_area_bytes"));
  sizes = {};
  sizes.answer_area_bytes = 32U << 20;
  EXPECT_THAT(MessageOf(shm::CheckRingSizes(sizes)), HasSubstr("answer_area_bytes"));
  const shm::RingSegmentBytes bytes = shm::RingSegmentBytesFor({});
  EXPECT_EQ(bytes.d, (16U << 10) + (256U << 10));
  EXPECT_EQ(bytes.e, (16U << 10) + (1U << 20));
}

}  // namespace
}  // namespace kvasir::ring
