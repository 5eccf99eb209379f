// Prefixes of every retention are taken over where they lie, and move out of frozen extents.
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/core/every_retention.h"
#include "tests/core/prefix_twins.h"
#include "tests/handover/handover_fixture.h"
#include "tests/support/environment.h"

#include <fmt/format.h>

namespace kvasir::core::testing {
namespace {

using Kind = HandoverJob::Kind;

class HandoverForm : public HandoverCoreTest, public ::testing::WithParamInterface<const char*> {
 public:
  // For ExpectTwins().
  using HandoverCoreTest::Close;
  using HandoverCoreTest::RunJobs;
  using HandoverCoreTest::Step;
  using HandoverCoreTest::WriteTokens;

 protected:
  // What snapshots have of recent blocks.
  uint64_t RecentBytes() const { return (*core_->TenantOf({1}))->outside.held_bytes(); }
};

INSTANTIATE_TEST_SUITE_P(All, HandoverForm, ::testing::ValuesIn(kEveryRetention));

TEST_P(HandoverForm, IsWhatItWasOverTwoLives) {
  const uint64_t seed = ::kvasir::testing::FromEnvironment("KVASIR_SEED", std::random_device{}());
  SCOPED_TRACE(fmt::format("KVASIR_SEED={}", seed));
  std::mt19937_64 random(seed);
  const std::vector<uint32_t> tokens =
      Tokens(kChunkTokens + random() % 280, static_cast<uint32_t>(random()));
  uint32_t model = 0;
  FakeEngine& before = ConnectToHandover(1, &model);
  Store(before, model, GetParam(), tokens);
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_EQ(RunHandover()[Kind::kNote], 1);
  const uint64_t held = KeptBytes() + RecentBytes();
  for (int life = 0; life < 2; ++life) {
    const AdoptionCounts counts = NextLife();
    ASSERT_EQ(counts.prefixes, 1U);
    // Rows behind the last border go where every row stays.
    EXPECT_LE(KeptBytes() + RecentBytes(), held);
    if (life == 0) continue;  // nobody asks for it
    FakeEngine& engine = ConnectToHandover(1, &model);
    absl::StatusOr<FakeEngine::Stream> stream = Attach(engine, model, GetParam(), tokens);
    ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
    const uint64_t rows = stream->rows;
    ASSERT_GE(rows, tokens.size() / kChunkTokens * kChunkTokens);
    EXPECT_EQ(PrefixesIn("memory"), 1U);
    ExpectTwins(*this, engine, model, GetParam(), tokens, *stream, 100, random);
    ASSERT_FALSE(HasFatalFailure());
    Close(engine, *stream);
    RunHandover();  // moves what is worth it, and notes it down anew
    EXPECT_EQ(RowsAttached(engine, model, GetParam(), tokens), rows);
    core_->EndSession(engine.session_id());
  }
  // Nothing is left of what is dropped.
  ASSERT_TRUE(core_->DropPrefixes("a").ok());
  RunHandover();
  EXPECT_EQ(records_.size(), 0U);
}

TEST_P(HandoverForm, AGroupOfOtherBytesIsAMiss) {
  const std::vector<uint32_t> tokens = Tokens(203, 3);
  uint32_t model = 0;
  FakeEngine& before = ConnectToHandover(1, &model);
  Store(before, model, GetParam(), tokens);
  RunHandover();
  std::mt19937_64 random(::kvasir::testing::FromEnvironment("KVASIR_SEED", 1));
  on_decoded_ = [&](StoredPrefix& prefix) {
    std::vector<StoredPrefix::Run>& runs = prefix.lanes[random() % prefix.lanes.size()];
    runs[random() % runs.size()].digest[random() % 16] ^= 1;
  };
  ASSERT_EQ(NextLife().prefixes, 1U);
  FakeEngine& engine = ConnectToHandover(1, &model);
  EXPECT_EQ(RowsAttached(engine, model, GetParam(), tokens), 0U);
  EXPECT_EQ(PrefixesIn("handover"), 0U);
}

}  // namespace
}  // namespace kvasir::core::testing
