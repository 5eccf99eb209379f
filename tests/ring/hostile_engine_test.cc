// Every value that an honest engine cannot write is a violation, whose error names field and bound;
// after one the ring serves nothing more.
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ring/command_check.h"
#include "tests/ring/ring_pair.h"

namespace kvasir::ring {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// The next turn fails, with these words, and so does everything after it.
void ExpectViolation(RingPair& ring, const std::vector<std::string>& words) {
  Command command;
  absl::Status status = ring.daemon.submissions.BeginTurn();
  if (status.ok()) status = ring.daemon.Take(&command).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  for (const std::string& word : words) EXPECT_THAT(MessageOf(status), HasSubstr(word));
  EXPECT_EQ(ring.daemon.Take(&command).status(), status);
  EXPECT_EQ(ring.daemon.submissions.BeginTurn(), status);
  EXPECT_EQ(ring.daemon.submissions.EndTurn(), TurnEnd::kMore);
  EXPECT_EQ(ring.daemon.completions.pending(), 0U);
}

struct BadEntry {
  const char* name;
  shm::SubmissionEntry good;
  std::function<void(shm::SubmissionEntry&)> spoil;
  std::vector<std::string> words;
};

const std::vector<shm::SyncNeedRecord> kNeeds(2, shm::SyncNeedRecord{1, 2, 3, 0, 0, 0});

shm::SubmissionEntry GoodMany() {
  shm::SubmissionEntry entry = MakeSyncMany(kNeeds);
  entry.payload_bytes = static_cast<uint32_t>(kNeeds.size() * sizeof(kNeeds[0]));
  return entry;
}

std::vector<BadEntry> BadEntries() {
  const SequenceRef sequence{1, 2};
  const shm::SubmissionEntry sync = MakeSync(sequence, 5, 6), many = GoodMany();
  using Entry = shm::SubmissionEntry;
  return {
      {"op 0", sync, [](Entry& e) { e.op = 0; }, {"op of a submission is unknown", "value=0"}},
      {"op 4 is set aside", sync, [](Entry& e) { e.op = 4; }, {"op", "value=4"}},
      {"op 8 is set aside", sync, [](Entry& e) { e.op = 8; }, {"op", "value=8"}},
      {"op 10", sync, [](Entry& e) { e.op = 10; }, {"op", "value=10"}},
      {"op 255", sync, [](Entry& e) { e.op = 255; }, {"op", "value=255"}},
      {"flags", sync, [](Entry& e) { e.flags = 2; }, {"flags", "value=0x2", "mask=0x1"}},
      {"flags of another op",
       MakeCloseSequence(sequence),
       [](Entry& e) { e.flags = 1; },
       {"flags", "value=0x1", "mask=0x0"}},
      {"reserved0", sync, [](Entry& e) { e.reserved0 = 1; }, {"reserved0", "value=1"}},
      {"reserved1", sync, [](Entry& e) { e.reserved1 = 9; }, {"reserved1", "value=9"}},
      {"seq", sync, [](Entry& e) { e.seq = 8; }, {"seq", "value=8", "max=7"}},
      {"seq -1", sync, [](Entry& e) { e.seq = ~0U; }, {"seq", "value=4294967295", "max=7"}},
      {"seq of many", many, [](Entry& e) { e.seq = 1; }, {"seq", "value=1"}},
      {"uid of many", many, [](Entry& e) { e.seq_uid = 3; }, {"seq_uid", "value=3"}},
      {"arg[2]", sync, [](Entry& e) { e.arg[2] = 1; }, {"arg[2]", "value=1"}},
      {"arg[0]", MakePublishPrefix(sequence), [](Entry& e) { e.arg[0] = 1; }, {"arg[0]"}},
      {"arg[1]", MakeTruncate(sequence, 1), [](Entry& e) { e.arg[1] = 4; }, {"arg[1]", "value=4"}},
      {"table_row without its flag", sync, [](Entry& e) { e.flags = 0; }, {"arg[1]", "value=6"}},
      {"layer",
       MakeRetrieve(sequence, 1, 2, 3),
       [](Entry& e) { e.arg[0] = 1ULL << 32; },
       {"arg[0], a layer", "value=4294967296", "max=4294967295"}},
      {"payload of sync",
       sync,
       [](Entry& e) { e.payload_bytes = 32; },
       {"payload_bytes", "value=32", "max=0"}},
      {"place of no payload",
       sync,
       [](Entry& e) { e.payload_off = 64; },
       {"payload_off", "value=64", "max=0"}},
      {"no payload",
       many,
       [](Entry& e) { e.payload_bytes = 0; },
       {"payload_bytes", "value=0", "min=32"}},
      {"half a need",
       many,
       [](Entry& e) { e.payload_bytes = 48; },
       {"payload_bytes", "misaligned", "value=48", "multiple_of=32"}},
      {"payload beyond the area",
       many,
       [](Entry& e) { e.payload_bytes = 8192; },
       {"payload_bytes", "value=8192", "max=4096"}},
      {"payload of 4 GiB",
       many,
       [](Entry& e) { e.payload_bytes = ~31U; },
       {"payload_bytes", "max=4096"}},
      {"payload_off beyond the area",
       many,
       [](Entry& e) { e.payload_off = 4096; },
       {"payload_off", "value=4096", "max=4032"}},
      {"payload_off of 4 GiB",
       many,
       [](Entry& e) { e.payload_off = ~63U; },
       {"payload_off", "max=4032"}},
      {"payload_off misaligned",
       many,
       [](Entry& e) { e.payload_off = 8; },
       {"payload_off", "misaligned", "value=8", "multiple_of=64"}},
      {"answer_bytes_max",
       many,
       [](Entry& e) { e.answer_bytes_max = 4097; },
       {"answer_bytes_max", "value=4097", "max=4096"}},
      {"answer_bytes_max of 4 GiB",
       many,
       [](Entry& e) { e.answer_bytes_max = ~0U; },
       {"answer_bytes_max", "max=4096"}},
  };
}

TEST(HostileEngineTest, EveryFieldOfAnEntryIsBounded) {
  for (const BadEntry& bad : BadEntries()) {
    SCOPED_TRACE(bad.name);
    RingPair good, ring;
    std::memcpy(ring.engine.memory.payloads, kNeeds.data(), kNeeds.size() * sizeof(kNeeds[0]));
    std::memcpy(good.engine.memory.payloads, kNeeds.data(), kNeeds.size() * sizeof(kNeeds[0]));
    good.SubmitRaw(bad.good);
    (void)good.daemon.TakeOne();
    shm::SubmissionEntry entry = bad.good;
    bad.spoil(entry);
    ring.SubmitRaw(entry);
    ExpectViolation(ring, bad.words);
  }
}

// More needs than a turn takes, where the area would have room.
TEST(HostileEngineTest, TooManyNeeds) {
  shm::RingSizes sizes = SmallSizes();
  sizes.payload_area_bytes = 64 << 10;
  RingPair ring(sizes);
  shm::SubmissionEntry entry = GoodMany();
  entry.payload_bytes = 1025 * 32;
  ring.SubmitRaw(entry);
  ExpectViolation(ring, {"payload_bytes", "value=32800", "max=32768"});
}

TEST(HostileEngineTest, TailBeyondTheRing) {
  for (const uint32_t ahead : {5U, 6U, 1000U, 0x80000000U, 0xFFFFFFFEU}) {
    RingPair ring;
    ring.engine_words().sq_tail.store(SmallSizes().first_entry + ahead);
    ExpectViolation(ring, {"sq_tail", fmt::format("value={}", SmallSizes().first_entry + ahead),
                           fmt::format("max={}", SmallSizes().first_entry + 4)});
  }
}

TEST(HostileEngineTest, TailGoesBack) {
  RingPair ring;
  for (int i = 0; i < 2; ++i) ring.SubmitRaw(MakeCloseSequence({0, 1}));
  ASSERT_TRUE(ring.daemon.submissions.BeginTurn().ok());  // has seen both, and taken none
  ring.engine_words().sq_tail.fetch_sub(1);
  ExpectViolation(ring, {"sq_tail", "min=0", "max=2"});
  RingPair taken;
  taken.SubmitRaw(MakeCloseSequence({0, 1}));
  (void)taken.daemon.TakeOne();
  taken.engine_words().sq_tail.fetch_sub(1);
  EXPECT_FALSE(taken.daemon.submissions.BeginTurn().ok());
}

// Looked at where room is short, and before the session is left alone for want of room.
TEST(HostileEngineTest, HeadOfCompletions) {
  for (const uint32_t by : {0xFFFFFFFFU, 3U, 0x80000000U}) {  // back, beyond, far
    RingPair ring;
    for (int i = 0; i < 4; ++i) ring.SubmitRaw(MakeCloseSequence({0, 1}));
    for (int i = 0; i < 4; ++i) {
      const Command command = ring.daemon.TakeOne();
      if (i < 2) ring.daemon.completions.Complete(command.ticket, {});
    }
    ring.SubmitRaw(MakeCloseSequence({0, 1}));
    ring.engine_words().cq_head.fetch_add(by);
    ASSERT_TRUE(ring.daemon.submissions.BeginTurn().ok());
    Command command;
    const absl::Status status = ring.daemon.Take(&command).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(MessageOf(status), AllOf(HasSubstr("cq_head"), HasSubstr("min=4294967294 max=0")));
    EXPECT_EQ(ring.daemon.submissions.EndTurn(), TurnEnd::kMore);
    EXPECT_EQ(ring.daemon.submissions.BeginTurn(), status);
  }
  RingPair ring;
  for (int i = 0; i < 4; ++i) ring.SubmitRaw(MakeCloseSequence({0, 1}));
  for (int i = 0; i < 4; ++i) (void)ring.daemon.TakeOne();
  ring.SubmitRaw(MakeCloseSequence({0, 1}));
  Command command;
  ASSERT_TRUE(ring.daemon.submissions.BeginTurn().ok());
  ASSERT_EQ(*ring.daemon.Take(&command), Taken::kNoRoom);
  ring.engine_words().cq_head.fetch_add(1);
  EXPECT_EQ(ring.daemon.submissions.EndTurn(), TurnEnd::kMore);
  EXPECT_FALSE(ring.daemon.submissions.BeginTurn().ok());
}

struct BadPayload {
  const char* name;
  std::function<void(std::byte*)> spoil;
  std::vector<std::string> words;
};

void ExpectBadPayloads(const shm::SubmissionEntry& entry, const std::vector<std::byte>& payload,
                       const std::vector<BadPayload>& bad_ones) {
  for (const BadPayload& bad : bad_ones) {
    SCOPED_TRACE(bad.name);
    RingPair ring;
    ring.Submit(entry, payload);
    EXPECT_EQ(ring.daemon.TakeOne().payload.size(), payload.size());
    ring.daemon.completions.Complete({0, entry.answer_bytes_max}, {});
    (void)ring.Read();
    std::vector<std::byte> spoilt = payload;
    bad.spoil(spoilt.data());
    ring.Submit(entry, spoilt);
    ExpectViolation(ring, bad.words);
  }
}

TEST(HostileEngineTest, Needs) {
  std::vector<std::byte> payload(64);
  std::memcpy(payload.data(), kNeeds.data(), 64);
  const auto need = [](std::byte* bytes) {
    return reinterpret_cast<shm::SyncNeedRecord*>(bytes) + 1;
  };
  ExpectBadPayloads(
      MakeSyncMany(kNeeds), payload,
      {{"seq", [&](std::byte* b) { need(b)->seq = 8; }, {"seq of a need", "need=1", "max=7"}},
       {"flags", [&](std::byte* b) { need(b)->flags = 2; }, {"need=1", "flags=0x2", "mask=0x1"}},
       {"reserved", [&](std::byte* b) { need(b)->reserved = 1; }, {"need=1", "reserved=1"}},
       {"table_row",
        [&](std::byte* b) { need(b)->table_row = 4; },
        {"table_row", "need=1", "value=4"}}});
}

TEST(HostileEngineTest, Match) {
  const std::vector<uint32_t> tokens = {1, 2, 3};
  const std::vector<shm::MatchExtraRecord> extras = {*MakeMatchExtra(1, "image")};
  const MatchPayload match = *MatchPayload::Make(7, tokens, extras, "salt", 3, true);
  std::vector<std::byte> payload;
  for (const std::span<const std::byte> piece : match.Pieces()) {
    payload.insert(payload.end(), piece.begin(), piece.end());
  }
  ASSERT_EQ(payload.size(), 288U + 16 + 144);
  const auto record = [](std::byte* b) { return reinterpret_cast<shm::MatchRecord*>(b); };
  const auto extra = [](std::byte* b) {
    return reinterpret_cast<shm::MatchExtraRecord*>(b + 288 + 16);
  };
  ExpectBadPayloads(
      MatchPayload::Entry(64), payload,
      {{"flags", [&](std::byte* b) { record(b)->flags = 2; }, {"flags=0x2", "mask=0x1"}},
       {"reserved", [&](std::byte* b) { record(b)->reserved = 5; }, {"reserved=5"}},
       {"salt_bytes",
        [&](std::byte* b) { record(b)->salt_bytes = 257; },
        {"salt_bytes", "value=257", "max=256"}},
       {"salt_bytes -1", [&](std::byte* b) { record(b)->salt_bytes = ~0U; }, {"salt_bytes"}},
       {"behind the salt", [&](std::byte* b) { record(b)->salt[255] = 1; }, {"salt of a match"}},
       {"tokens", [&](std::byte* b) { record(b)->tokens = 5; }, {"tokens=5", "payload_bytes=448"}},
       {"tokens -1", [&](std::byte* b) { record(b)->tokens = ~0U; }, {"tokens=4294967295"}},
       {"extras", [&](std::byte* b) { record(b)->extras = 2; }, {"extras=2"}},
       {"extras -1", [&](std::byte* b) { record(b)->extras = ~0U; }, {"extras", "max=4096"}},
       {"behind the tokens",
        [&](std::byte* b) { b[288 + 12] = std::byte{1}; },
        {"behind the tokens"}},
       {"no digest",
        [&](std::byte* b) { extra(b)->digest_bytes = 0; },
        {"digest_bytes", "extra=0", "min=1"}},
       {"digest_bytes",
        [&](std::byte* b) { extra(b)->digest_bytes = 129; },
        {"digest_bytes", "value=129", "max=128"}},
       {"reserved of an extra", [&](std::byte* b) { extra(b)->reserved = 1; }, {"extra=0"}},
       {"behind a digest", [&](std::byte* b) { extra(b)->digest[127] = 1; }, {"extra=0"}}});
  // Too short for its record.
  RingPair ring;
  shm::SubmissionEntry entry = MatchPayload::Entry(64);
  entry.payload_bytes = 280;
  ring.SubmitRaw(entry);
  ExpectViolation(ring, {"payload_bytes", "value=280", "min=288"});
}

// What was copied is what is judged and served: changes after it are not seen.
TEST(HostileEngineTest, ChangesAfterTheCopyAreNotSeen) {
  RingPair ring;
  ring.Submit(MakeSyncMany(kNeeds), std::as_bytes(std::span(kNeeds)));
  const Command command = ring.daemon.TakeOne();
  std::memset(ring.engine.memory.payloads, 0xFF, 4096);
  std::memset(ring.engine.memory.submissions, 0xFF, 256);
  EXPECT_EQ(command.entry.op, static_cast<uint8_t>(shm::CommandOp::kSyncMany));
  EXPECT_EQ(std::memcmp(command.payload.data(), kNeeds.data(), 64), 0);
}

// A flag that always says "wake me" costs calls, and nothing else.
TEST(HostileEngineTest, NeedWakeIsAnyValue) {
  RingPair ring;
  ring.engine_words().cq_need_wake.store(0xDEADBEEF);
  ring.Submit(MakeCloseSequence({0, 1}));
  ring.daemon.completions.Complete(ring.daemon.TakeOne().ticket, {});
  EXPECT_EQ(ring.Read().first.status, 0);
}

}  // namespace
}  // namespace kvasir::ring
