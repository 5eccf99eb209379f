// What an engine finds after a daemon has died or gone wrong: errors that name the word, no read
// outside the ring, no wait without end.
#include <chrono>
#include <cstring>
#include <functional>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/ring/ring_pair.h"

namespace kvasir::ring {
namespace {

using ::testing::HasSubstr;

absl::Status NextStatus(RingPair& ring) {
  Completion completion;
  return ring.engine.completions.Next(&completion).status();
}

void ExpectDataLoss(const absl::Status& status, const std::vector<std::string>& words) {
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  for (const std::string& word : words) EXPECT_THAT(MessageOf(status), HasSubstr(word));
}

TEST(GarbageDaemonTest, Counters) {
  for (const uint32_t by : {1U, 2U, 0x7FFFFFFFU, 0xFFFFFFFFU}) {
    RingPair ring;
    ring.daemon.memory.daemon_words->cq_tail.fetch_add(by);  // nothing was submitted
    ExpectDataLoss(NextStatus(ring), {"cq_tail", "min=4294967294 max=4294967294"});
    ExpectDataLoss(ring.engine.completions.Wait(SystemClock().Now()), {"cq_tail"});
  }
  for (const uint32_t by : {5U, 0xFFFFFFFFU}) {
    RingPair ring;
    for (int i = 0; i < 4; ++i) ring.Submit(MakeCloseSequence({0, 1}));
    for (int i = 0; i < 4; ++i) {
      ring.daemon.completions.Complete(ring.daemon.TakeOne().ticket, {});
      (void)ring.Read();
    }
    ring.daemon.memory.daemon_words->sq_head.store(SmallSizes().first_entry + by);
    ExpectDataLoss(ring.engine.submissions.Submit(MakeCloseSequence({0, 1})).status(),
                   {"sq_head", "min=4294967294 max=2"});
  }
}

struct BadCompletion {
  const char* name;
  std::function<void(shm::CompletionEntry&)> spoil;
  std::vector<std::string> words;
};

TEST(GarbageDaemonTest, EveryFieldOfACompletionIsBounded) {
  using Entry = shm::CompletionEntry;
  const std::vector<BadCompletion> bad_ones = {
      {"zeros", [](Entry& e) { e = {}; }, {"boot_epoch=0"}},
      {"boot_epoch", [](Entry& e) { ++e.boot_epoch; }, {"boot_epoch"}},
      {"status -1", [](Entry& e) { e.status = -1; }, {"status", "value=-1", "max=16"}},
      {"status 17", [](Entry& e) { e.status = 17; }, {"status", "value=17", "max=16"}},
      {"answer_off", [](Entry& e) { e.answer_off = 4096; }, {"answer_off", "max=4032"}},
      {"answer_off -1", [](Entry& e) { e.answer_off = ~0U; }, {"answer_off"}},
      {"answer_off misaligned", [](Entry& e) { e.answer_off = 8; }, {"answer_off", "value=8"}},
      {"answer_bytes", [](Entry& e) { e.answer_bytes = 49; }, {"answer_bytes", "max=48"}},
      {"answer_bytes -1", [](Entry& e) { e.answer_bytes = ~0U; }, {"answer_bytes"}},
      {"text", [](Entry& e) { e.status = 3, e.answer_bytes = 513; }, {"answer_bytes", "max=512"}},
      {"room", [](Entry& e) { e.answer_bytes_max = 513; }, {"answer_bytes_max", "room_kept=512"}},
      {"room -1", [](Entry& e) { e.answer_bytes_max = ~0U; }, {"answer_bytes_max"}},
  };
  for (const BadCompletion& bad : bad_ones) {
    SCOPED_TRACE(bad.name);
    RingPair ring;
    ring.Submit(MakeRetrieve({0, 1}, 0, 0, 2));
    const std::vector<std::byte> answer(48);
    ring.daemon.completions.Complete(ring.daemon.TakeOne().ticket, {{2, 0, 0}, answer});
    Completion completion;
    ASSERT_TRUE(*ring.engine.completions.Next(&completion));
    auto& entry =
        reinterpret_cast<Entry*>(ring.daemon.memory.completions)[SmallSizes().first_entry % 4];
    bad.spoil(entry);
    ExpectDataLoss(NextStatus(ring), bad.words);
  }
}

TEST(GarbageDaemonTest, Geometry) {
  const RingSegments segments(SmallSizes());
  DaemonEnd daemon(segments);
  const auto open = [&] {
    return EngineRingMemory::Open(daemon.d.data(), daemon.d.bytes(), daemon.e.data(),
                                  daemon.e.bytes())
        .status();
  };
  EXPECT_TRUE(open().ok());
  shm::RingGeometry& geometry = daemon.memory.daemon_words->geometry;
  const shm::RingGeometry good = geometry;
  const auto expect = [&](const char* name, auto&& spoil) {
    geometry = good;
    spoil();
    ExpectDataLoss(open(), {name});
  };
  expect("submission_entries", [&] { geometry.submission_entries = 3; });
  expect("submission_entries", [&] { geometry.submission_entries = 0; });
  expect("completion_entries", [&] { geometry.completion_entries = 1U << 31; });
  expect("payload_area_bytes", [&] { geometry.payload_area_bytes = 64; });
  expect("answer_area_bytes", [&] { geometry.answer_area_bytes = 5000; });
  expect("answers_off", [&] { geometry.answer_area_bytes = 1 << 20; });
  expect("payloads_off", [&] { geometry.payload_area_bytes = 1 << 20; });
  expect("completions_off", [&] { geometry.completions_off = 0; });
  expect("completions_off", [&] { geometry.completions_off = 4096 + 64; });
  expect("completions_off", [&] { geometry.completions_off = 1ULL << 63; });
  expect("answers_off", [&] { geometry.answers_off = daemon.d.bytes(); });
  expect("submissions_off", [&] { geometry.submissions_off = ~4095ULL; });
  expect("payloads_off", [&] { geometry.payloads_off = ~4095ULL; });
  ExpectDataLoss(EngineRingMemory::Open(daemon.d.data(), 4095, daemon.e.data(), 4096).status(),
                 {"d_bytes=4095"});
}

// The answer area's end is followed by its start, whatever the entry says.
TEST(GarbageDaemonTest, AnAnswerAtTheEndOfTheArea) {
  RingPair ring;
  ring.Submit(MakeRetrieve({0, 1}, 0, 0, 4));
  std::vector<std::byte> answer(96);
  for (size_t i = 0; i < answer.size(); ++i) answer[i] = static_cast<std::byte>(i);
  ring.daemon.completions.Complete(ring.daemon.TakeOne().ticket, {{4, 0, 0}, answer});
  auto& entry = reinterpret_cast<shm::CompletionEntry*>(
      ring.daemon.memory.completions)[SmallSizes().first_entry % 4];
  entry.answer_off = 4032;
  std::memcpy(ring.daemon.memory.answers + 4032, answer.data(), 64);
  std::memcpy(ring.daemon.memory.answers, answer.data() + 64, 32);
  EXPECT_EQ(ring.Read().second, answer);
}

// ---- waits

struct Watched {
  int asked = 0;
  bool gone = false;
};

struct WatchedRing {
  explicit WatchedRing(std::chrono::milliseconds slice)
      : segments(SmallSizes()),
        doorbell(*MakeDoorbell()),
        daemon(segments),
        engine(segments, doorbell.get(),
               {.spin = std::chrono::nanoseconds(1000), .slice = slice, .peer_is_gone = [this] {
                  ++watched.asked;
                  if (on_ask) on_ask();
                  return watched.gone;
                }}) {}
  RingSegments segments;
  UniqueFd doorbell;
  Watched watched;
  std::function<void()> on_ask;
  DaemonEnd daemon;
  EngineEnd engine;
};

TEST(GarbageDaemonTest, AWaitEndsAtItsDeadline) {
  WatchedRing ring(std::chrono::hours(1));
  const absl::Status status =
      ring.engine.completions.Wait(SystemClock().Now() + std::chrono::milliseconds(5));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ring.engine.memory.engine_words->cq_need_wake.load(), 0U);
  EXPECT_EQ(ring.engine.completions.Wait(SystemClock().Now() - std::chrono::seconds(1)).code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(GarbageDaemonTest, AWaitEndsWhenThePeerIsGone) {
  WatchedRing ring(std::chrono::milliseconds(1));
  ring.on_ask = [&] { ring.watched.gone = ring.watched.asked == 3; };
  const absl::Status status =
      ring.engine.completions.Wait(SystemClock().Now() + std::chrono::hours(1));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ring.watched.asked, 3);
}

TEST(GarbageDaemonTest, WhatWasCompletedBeforeItsDeathIsRead) {
  WatchedRing ring(std::chrono::milliseconds(1));
  ASSERT_TRUE(*ring.engine.submissions.Submit(MakeCloseSequence({0, 1})));
  const CompletionTicket ticket = ring.daemon.TakeOne().ticket;
  ring.on_ask = [&] {
    ring.daemon.completions.Complete(ticket, {});
    ring.watched.gone = true;
  };
  EXPECT_TRUE(ring.engine.completions.Wait(SystemClock().Now() + std::chrono::hours(1)).ok());
  Completion completion;
  EXPECT_TRUE(*ring.engine.completions.Next(&completion));
  EXPECT_EQ(completion.entry.status, 0);
}

}  // namespace
}  // namespace kvasir::ring
