// What a recording says of requests: their order, blocks and lengths, and no more.
#include "daemon/core/trace_recorder.h"

#include <chrono>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/core/prefix_fixture.h"

namespace kvasir::core::testing {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<uint32_t> RandomTokens(uint64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint32_t> tokens(count);
  for (uint32_t& token : tokens) token = static_cast<uint32_t>(random() % 1000);
  return tokens;
}

PrefixChain ChainOf(const std::vector<uint32_t>& tokens, std::vector<TokenExtra> extras = {}) {
  absl::StatusOr<PrefixChain> chain = PrefixChain::Create({1}, {}, std::move(extras));
  EXPECT_TRUE(chain.ok());
  chain->Append(tokens);
  return *std::move(chain);
}

class TraceRecorderTest : public ::testing::Test {
 protected:
  uint64_t Start(uint8_t salt = 1) { return *recorder_.Start("a", {salt}); }
  void Serve(const std::vector<uint32_t>& tokens, std::vector<TokenExtra> extras = {}) {
    recorder_.Begin("a", ChainOf(tokens, std::move(extras))).set_rows(tokens.size() + 10);
  }
  // Ids of the lines that are complete.
  std::vector<std::vector<uint32_t>> Ids(uint64_t recording) {
    std::vector<std::vector<uint32_t>> ids;
    for (TraceLine& line : recorder_.Take(recording, 10'000).lines) {
      ids.push_back(std::move(line.hash_ids));
    }
    return ids;
  }

  Instant now_{std::chrono::hours(5)};
  TraceRecorder recorder_{now_};
};

TEST_F(TraceRecorderTest, EqualBeginningsHaveEqualIdsInTheOrderOfFirstSight) {
  const uint64_t recording = Start();
  const std::vector<uint32_t> all = RandomTokens(1600, 1);
  const auto first = [&](uint64_t count) {
    return std::vector<uint32_t>(all.begin(), all.begin() + static_cast<ptrdiff_t>(count));
  };
  Serve(first(1024));
  Serve(first(1536));
  Serve(first(1030));  // a block that is not full is another one than the full one
  Serve(first(1030));
  Serve(first(1031));
  Serve(first(7));
  std::vector<uint32_t> fork = first(1024);
  fork[600] ^= 1;
  Serve(fork);
  fork = first(1024);
  fork[0] ^= 1;  // what follows stands behind something else
  Serve(fork);
  EXPECT_THAT(Ids(recording),
              ElementsAre(ElementsAre(0, 1), ElementsAre(0, 1, 2), ElementsAre(0, 1, 3),
                          ElementsAre(0, 1, 3), ElementsAre(0, 1, 4), ElementsAre(5),
                          ElementsAre(0, 6), ElementsAre(7, 8)));
}

TEST_F(TraceRecorderTest, WhatTokensStandForTellsBlocksApart) {
  const uint64_t recording = Start();
  const std::vector<uint32_t> tokens(520, 3);
  Serve(tokens);
  Serve(tokens, {{5, "image"}});
  Serve(tokens, {{515, "image"}});
  Serve(tokens, {{516, "image"}});
  Serve(tokens, {{516, "other"}});
  EXPECT_THAT(Ids(recording), ElementsAre(ElementsAre(0, 1), ElementsAre(2, 3), ElementsAre(0, 4),
                                          ElementsAre(0, 5), ElementsAre(0, 6)));
}

TEST_F(TraceRecorderTest, LinesLeaveInTheOrderOfTheirBeginningOnceComplete) {
  const uint64_t recording = Start();
  now_ += milliseconds(7);
  TraceTicket slow = recorder_.Begin("a", ChainOf(RandomTokens(100, 1)));
  now_ += milliseconds(5);
  {
    TraceTicket quick = recorder_.Begin("a", ChainOf(RandomTokens(600, 2)));
    TraceTicket moved = std::move(quick);
    moved.set_rows(650);
  }
  EXPECT_THAT(recorder_.Take(recording, 10).lines, IsEmpty());
  EXPECT_EQ(recorder_.Waiting(recording), 2U);
  slow.set_rows(40);  // it was given up before its prompt was there
  slow = {};
  const std::vector<TraceLine> one = recorder_.Take(recording, 1).lines;
  ASSERT_EQ(one.size(), 1U);
  EXPECT_EQ(one[0].timestamp_ms, 7U);
  EXPECT_EQ(one[0].input_length, 100U);
  EXPECT_EQ(one[0].output_length, 0U);
  const std::vector<TraceLine> two = recorder_.Take(recording, 10).lines;
  ASSERT_EQ(two.size(), 1U);
  EXPECT_EQ(two[0].timestamp_ms, 12U);
  EXPECT_EQ(two[0].input_length, 600U);
  EXPECT_EQ(two[0].output_length, 50U);
}

TEST_F(TraceRecorderTest, OtherTenantsAndEmptyPromptsAreNotRecorded) {
  const uint64_t recording = Start();
  recorder_.Begin("b", ChainOf(RandomTokens(100, 1)));
  recorder_.Begin("a", ChainOf({}));
  EXPECT_EQ(recorder_.Waiting(recording), 0U);
}

TEST_F(TraceRecorderTest, ASlowReaderLosesTheOldestAndIsTold) {
  const uint64_t recording = Start();
  const PrefixChain chain = ChainOf(RandomTokens(16, 1));
  const TraceTicket running = recorder_.Begin("a", chain);  // holds all others up
  for (size_t i = 0; i < kTraceLinesMax; ++i) {
    now_ += milliseconds(1);
    recorder_.Begin("a", chain).set_rows(16);
  }
  TraceRecorder::Batch batch = recorder_.Take(recording, 2);
  EXPECT_EQ(batch.lost, 1U);
  ASSERT_EQ(batch.lines.size(), 2U);
  EXPECT_EQ(batch.lines[0].timestamp_ms, 1U);
  for (int i = 0; i < 12; ++i) recorder_.Begin("a", chain).set_rows(16);
  batch = recorder_.Take(recording, kTraceLinesMax);
  EXPECT_EQ(batch.lost, 10U);
  EXPECT_EQ(batch.lines.size(), kTraceLinesMax);
  EXPECT_EQ(recorder_.Take(recording, 1).lost, 0U);
}

TEST_F(TraceRecorderTest, IdsAndBlocksAreBounded) {
  const uint64_t recording = Start();
  const std::vector<uint32_t> tokens = RandomTokens(kTraceBlockTokens * 1024, 1);
  const PrefixChain chain = ChainOf(tokens);
  for (size_t i = 0; i <= kTraceIdsMax / 1024; ++i) recorder_.Begin("a", chain);
  EXPECT_EQ(recorder_.Waiting(recording), kTraceIdsMax / 1024);
  EXPECT_EQ(recorder_.Take(recording, 10'000).lost, 1U);
  for (uint32_t token = 0; token < kTraceBlocksMax - 1024; ++token) {
    recorder_.Begin("a", ChainOf({token}));
  }
  EXPECT_FALSE(recorder_.Take(recording, 10'000).full);
  recorder_.Begin("a", ChainOf({5}));  // one that is known, and yet there is no room for it
  EXPECT_TRUE(recorder_.Take(recording, 10'000).full);
}

TEST_F(TraceRecorderTest, RecordingsAreSeveralAndBounded) {
  const uint64_t one = Start(1);
  Serve(RandomTokens(600, 1));
  const uint64_t two = Start(2);
  Serve(RandomTokens(600, 2));
  EXPECT_THAT(Ids(one), ElementsAre(ElementsAre(0, 1), ElementsAre(2, 3)));
  EXPECT_THAT(Ids(two), ElementsAre(ElementsAre(0, 1)));
  TraceTicket running = recorder_.Begin("a", ChainOf(RandomTokens(600, 2)));
  recorder_.Stop(one);
  recorder_.Stop(two);
  running = {};  // nobody is told any more
  for (size_t i = 0; i < kRecordingsMax; ++i) Start();
  EXPECT_THAT(MessageOf(recorder_.Start("a", {}).status()), HasSubstr("max=4"));
}

class RecordedCoreTest : public PrefixCoreTest {};

TEST_F(RecordedCoreTest, SequencesWithAPrefixAreRecordedToTheirEnd) {
  uint32_t model = 0, other_model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  FakeEngine& other = ConnectOwn(2, &other_model);
  const uint64_t recording = *core_->traces().Start("a", {});
  const std::vector<uint32_t> prompt = Tokens(60, 1);
  absl::StatusOr<FakeEngine::Stream> stream = Attach(engine, model, "full", prompt);
  ASSERT_TRUE(stream.ok());
  WriteTokens(engine, *stream, Tokens(75, 1));
  EXPECT_THAT(core_->traces().Take(recording, 10).lines, IsEmpty());
  engine.WriteDesk(*stream);
  ASSERT_TRUE(core_->Sync(engine.session(), {stream->slot, stream->uid, 76, {}}).status.ok());
  Close(engine, *stream);
  RowsAttached(other, other_model, "full", prompt);
  const std::vector<TraceLine> lines = core_->traces().Take(recording, 10).lines;
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_EQ(lines[0].input_length, 60U);
  EXPECT_EQ(lines[0].output_length, 15U);
  EXPECT_THAT(lines[0].hash_ids, ElementsAre(0));
}

}  // namespace
}  // namespace kvasir::core::testing
