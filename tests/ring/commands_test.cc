// Entries, payloads and answers by their meaning, and the bytes of all of them.
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ring/command_check.h"
#include "tests/ring/ring_pair.h"

namespace kvasir::ring {
namespace {

using ::testing::HasSubstr;

template <typename Struct>
std::string HexOf(const Struct& value) {
  std::string text;
  for (size_t i = 0; i < sizeof(value); ++i) {
    text += fmt::format("{:02x}", reinterpret_cast<const unsigned char*>(&value)[i]);
    if (i % 8 == 7 && i + 1 < sizeof(value)) text += ' ';
  }
  return text;
}

// A failure means that engines and daemons of before can no longer talk to this one.
TEST(CommandLayoutTest, TextIsTheGoldenOne) {
  std::ifstream file("tests/data/proto/command_ring_layout.txt");
  std::stringstream golden;
  golden << file.rdbuf();
  EXPECT_EQ(shm::CommandRingLayoutText(), golden.str());
}

TEST(CommandLayoutTest, Bytes) {
  const shm::SubmissionEntry entry{1, 1, 0, 2, 3, 4, 64, 32, 5, {6, 7, 8}, 9, 0};
  EXPECT_EQ(HexOf(entry),
            "0101000002000000 0300000000000000 0400000040000000 2000000005000000 "
            "0600000000000000 0700000000000000 0800000000000000 0900000000000000");
  const shm::CompletionEntry done{1, -2, 3, 4, {5, 6, 7}, 8, 64, 9, 10};
  EXPECT_EQ(HexOf(done),
            "0100000000000000 feffffff03000000 0400000000000000 0500000000000000 "
            "0600000000000000 0700000000000000 0800000040000000 090000000a000000");
  const shm::RingGeometry geometry{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0};
  EXPECT_EQ(HexOf(geometry),
            "0100000000000000 0200000000000000 0300000000000000 0400000000000000 "
            "0500000006000000 0700000008000000 090000000a000000 0b00000000000000");
  const shm::SyncNeedRecord need{1, 2, 3, 4, 1, 0};
  EXPECT_EQ(HexOf(need), "0100000002000000 0300000000000000 0400000000000000 0100000000000000");
  const shm::SyncResultRecord result{8, 100, 3, 4, 5};
  EXPECT_EQ(HexOf(result), "0800000064000000 0300000000000000 0400000000000000 0500000000000000");
  const shm::RetrievedBlockRecord block{1, 2, 3, 0, 4};
  EXPECT_EQ(HexOf(block), "0100000002000000 0300000000000000 0400000000000000");
  shm::MatchFormRecord form{1, 2, 1, 64, 5, {'d', 'i', 's', 'k'}, 69, 4, {}};
  EXPECT_EQ(HexOf(form).substr(0, 101),
            "0100000000000000 0200000001000000 4000000005000000 6469736b00000000 "
            "0000000000000000 4500000004000000");
  shm::DaemonRingWords daemon{};
  daemon.sq_head.store(0x11);
  daemon.sq_need_wake.store(0x22);
  daemon.cq_tail.store(0x33);
  const auto* const words = reinterpret_cast<const unsigned char*>(&daemon);
  EXPECT_EQ(words[64], 0x11);
  EXPECT_EQ(words[128], 0x22);
  EXPECT_EQ(words[192], 0x33);
}

// What the library makes passes the daemon's judgement.
TEST(CommandsTest, EveryEntryIsAccepted) {
  const SequenceRef sequence{3, 9};
  RingPair ring;
  for (const shm::SubmissionEntry& entry :
       {MakeSync(sequence, 1, {}), MakeSync(sequence, 0, 5), MakePublishPrefix(sequence),
        MakeRetrieve(sequence, 4, 2, 8), MakeCloseSequence(sequence), MakeTruncate(sequence, 77)}) {
    ring.Submit(entry);
    const Command command = ring.daemon.TakeOne();
    EXPECT_EQ(command.entry.op, entry.op);
    EXPECT_EQ(command.entry.seq, 3U);
    EXPECT_EQ(command.entry.seq_uid, 9U);
    ring.daemon.completions.Complete(command.ticket, {});
    (void)ring.Read();
  }
}

TEST(CommandsTest, SyncOfMany) {
  RingPair ring;
  const std::vector<shm::SyncNeedRecord> needs = {{1, 2, 3, 0, 0, 0},
                                                  {4, 5, 0, 6, shm::kSyncHasTableRow, 0}};
  ring.Submit(MakeSyncMany(needs), std::as_bytes(std::span(needs)));
  const Command command = ring.daemon.TakeOne();
  const std::span<const shm::SyncNeedRecord> arrived = SyncNeedsOf(command.payload);
  ASSERT_EQ(arrived.size(), 2U);
  EXPECT_EQ(arrived[0].granted_rows, 3U);
  EXPECT_EQ(arrived[1].table_row, 6U);
  EXPECT_EQ(SequencesOf(command.entry), 2U);
  const std::vector<shm::SyncResultRecord> results = {{0, 0, 1, 2, 3}, {8, 100, 4, 5, 6}};
  ring.daemon.completions.Complete(command.ticket, {{}, std::as_bytes(std::span(results))});
  const auto [entry, answer] = ring.Read();
  const auto read = SyncResultsOf(answer, 2);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ((*read)[1].status, 8);
  EXPECT_EQ((*read)[1].retry_ms, 100U);
  EXPECT_EQ(SyncResultsOf(answer, 3).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(SyncResultsOf(std::span(answer).first(63), 2).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST(CommandsTest, Match) {
  for (const size_t count : {0U, 3U, 4U}) {
    const std::vector<uint32_t> tokens(count, 17);
    const std::vector<shm::MatchExtraRecord> extras = {*MakeMatchExtra(1, std::string(128, 'd')),
                                                       *MakeMatchExtra(2, "x")};
    const auto match = MatchPayload::Make(7, tokens, extras, "salt", 3, true);
    ASSERT_TRUE(match.ok());
    RingPair ring;
    ASSERT_TRUE(*ring.engine.submissions.Submit(MatchPayload::Entry(256), match->Pieces()));
    const Command command = ring.daemon.TakeOne();
    const MatchParts parts = MatchPartsOf(command.payload);
    EXPECT_EQ(parts.record->model_id, 7U);
    EXPECT_EQ(parts.record->flags, shm::kMatchPrefetch);
    EXPECT_EQ(parts.record->rows_max, 3U);
    EXPECT_EQ(parts.record->salt_bytes, 4U);
    EXPECT_EQ(std::memcmp(parts.record->salt, "salt", 4), 0);
    EXPECT_EQ(std::vector(parts.tokens.begin(), parts.tokens.end()), tokens);
    ASSERT_EQ(parts.extras.size(), 2U);
    EXPECT_EQ(parts.extras[0].digest_bytes, 128U);
    EXPECT_EQ(parts.extras[1].row, 2U);

    const std::vector<MatchForm> forms = {{64, 3, false, "full", "memory"},
                                          {48, 1, true, "sepllm:local_size=256", "disk", "full"},
                                          {32, 2, false, std::string(500, 'r'), "remote"}};
    uint64_t in_answer = 0;
    const std::vector<std::byte> bytes =
        MakeMatchAnswer(forms, command.ticket.answer_bytes_max, &in_answer);
    EXPECT_EQ(in_answer, 2U);  // the third would not fit
    ring.daemon.completions.Complete(command.ticket, {{in_answer, forms.size(), 0}, bytes});
    const auto [entry, answer] = ring.Read();
    EXPECT_EQ(entry.result[1], 3U);
    const auto read = MatchFormsOf(entry, answer);
    ASSERT_TRUE(read.ok()) << read.status();
    ASSERT_EQ(read->size(), 2U);
    EXPECT_EQ((*read)[0].retention, "full");
    EXPECT_EQ((*read)[1].retention, "sepllm:local_size=256");
    EXPECT_EQ((*read)[1].place, "disk");
    EXPECT_EQ((*read)[0].condensed_from, "");
    EXPECT_EQ((*read)[1].condensed_from, "full");
    EXPECT_EQ((*read)[1].quality, 1U);
    EXPECT_TRUE((*read)[1].is_public);
  }
  EXPECT_THAT(MessageOf(MatchPayload::Make(1, {}, {}, std::string(257, 's'), 0, false).status()),
              HasSubstr("bytes=257 max=256"));
  EXPECT_EQ(MakeMatchExtra(1, "").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MakeMatchExtra(1, std::string(129, 'd')).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(CommandsTest, FormsThatCannotBe) {
  uint64_t in_answer = 0;
  const std::vector<MatchForm> forms = {{64, 3, false, "full", "memory"}};
  const std::vector<std::byte> good = MakeMatchAnswer(forms, 1000, &in_answer);
  shm::CompletionEntry entry{};
  entry.result[0] = 1;
  EXPECT_TRUE(MatchFormsOf(entry, good).ok());
  const auto spoilt = [&](auto&& spoil) {
    std::vector<std::byte> bytes = good;
    spoil(*reinterpret_cast<shm::MatchFormRecord*>(bytes.data()));
    return MatchFormsOf(entry, bytes).status().code();
  };
  constexpr absl::StatusCode kLoss = absl::StatusCode::kDataLoss;
  EXPECT_EQ(spoilt([](auto& form) { form.quality = 0; }), kLoss);
  EXPECT_EQ(spoilt([](auto& form) { form.quality = 4; }), kLoss);
  EXPECT_EQ(spoilt([](auto& form) { form.is_public = 2; }), kLoss);
  EXPECT_EQ(spoilt([](auto& form) { form.retention_bytes = 5; }), kLoss);
  EXPECT_EQ(spoilt([](auto& form) { form.retention_off = ~0U; }), kLoss);
  EXPECT_EQ(spoilt([](auto& form) { form.condensed_off = ~0U; }), kLoss);
  EXPECT_EQ(spoilt([](auto& form) { form.condensed_bytes = ~0U; }), kLoss);
  entry.result[0] = 2;
  EXPECT_EQ(MatchFormsOf(entry, good).status().code(), kLoss);
  entry.result[0] = ~0ULL;
  EXPECT_EQ(MatchFormsOf(entry, good).status().code(), kLoss);
}

TEST(CommandsTest, RetrievedBlocks) {
  const std::vector<shm::RetrievedBlockRecord> blocks = {{1, 2, 1, 0, 4096}, {5, 2, 1, 0, 8192}};
  shm::CompletionEntry entry{};
  entry.result[0] = 2;
  const auto bytes = std::as_bytes(std::span(blocks));
  const auto read = RetrievedBlocksOf(entry, bytes);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ((*read)[1].offset, 8192U);
  entry.result[0] = 3;
  EXPECT_EQ(RetrievedBlocksOf(entry, bytes).status().code(), absl::StatusCode::kDataLoss);
  entry.result[0] = 1ULL << 61;
  EXPECT_EQ(RetrievedBlocksOf(entry, bytes).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace kvasir::ring
