// A saved sequence that has been in a tier is gone on from as if it had stayed in memory.
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/core/every_retention.h"
#include "tests/core/prefix_twins.h"
#include "tests/store/store_fixture.h"
#include "tests/support/environment.h"

#include <fmt/format.h>

namespace kvasir::core::testing {
namespace {

class SavedTier : public StoreTest, public ::testing::WithParamInterface<const char*> {
 public:
  // For ExpectTwins().
  using StoreTest::Close;
  using StoreTest::RunJobs;
  using StoreTest::Step;
  using StoreTest::WriteTokens;

 protected:
  FakeEngine& Connect(uint32_t* model) {
    FakeEngine& engine = StoreTest::Connect(1, model);
    engine.run_tiers = [this] { RunTiers(); };
    return engine;
  }

  // A sequence of these tokens is saved, and closed.
  void SaveOne(FakeEngine& engine, uint32_t model, const std::string& retention,
               const std::vector<uint32_t>& tokens, uint64_t id) {
    absl::StatusOr<FakeEngine::Stream> stream = engine.Open(model, retention);
    ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
    WriteTokens(engine, *stream, tokens);
    RunJobs();
    ASSERT_TRUE(Save(engine, *stream, id).ok());
    Close(engine, *stream);
  }

  absl::StatusOr<FakeEngine::Stream> Reopen(FakeEngine& engine, uint32_t model, uint64_t id,
                                            const std::vector<uint32_t>& tokens) {
    absl::StatusOr<FakeEngine::Stream> stream = engine.Resume(model, "", IdOf(id), tokens);
    RunJobs();
    return stream;
  }

  SnapshotStore& snapshots() { return (*core_->TenantOf({1}))->snapshots; }
};

INSTANTIATE_TEST_SUITE_P(All, SavedTier, ::testing::ValuesIn(kEveryRetention));

TEST_P(SavedTier, IsGoneOnFromByteForByteAtAnyRow) {
  const uint64_t seed = ::kvasir::testing::FromEnvironment("KVASIR_SEED", std::random_device{}());
  for (uint64_t round = 0; round < 5; ++round) {
    SCOPED_TRACE(fmt::format("KVASIR_SEED={} round {}", seed, round));
    std::mt19937_64 random(seed + round);
    const std::vector<uint32_t> tokens = Tokens(random() % 300, static_cast<uint32_t>(random()));
    uint32_t model = 0;
    FakeEngine& engine = Connect(&model);
    SaveOne(engine, model, GetParam(), tokens, 7);
    ASSERT_FALSE(HasFatalFailure());
    Drain();
    EXPECT_EQ(core_->DrainStateOf("a").stored, 1U);
    ASSERT_TRUE(snapshots().DropLeastRecentlyUsed(nullptr));
    ASSERT_FALSE(
        snapshots().DropLeastRecentlyUsed(nullptr));  // nothing of it is in memory any more
    ExpectConserved();
    EXPECT_EQ(core_->SnapshotReports().at(0).held_bytes, 0U);
    absl::StatusOr<FakeEngine::Stream> stream = Reopen(engine, model, 7, tokens);
    ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
    ASSERT_EQ(stream->rows, tokens.size());
    ExpectTwins(*this, engine, model, GetParam(), tokens, *stream, 100, random);
    ASSERT_FALSE(HasFatalFailure());
    Close(engine, *stream);
    ASSERT_TRUE(core_->DropSnapshot(engine.session(), IdOf(7)).ok());
    RunTiers();
    EXPECT_EQ(Report().stored_bytes, 0U);  // what nobody names is erased
    core_->EndSession(engine.session_id());
  }
}

class SavedTierTest : public SavedTier {};

INSTANTIATE_TEST_SUITE_P(Full, SavedTierTest, ::testing::Values("full"));

TEST_P(SavedTierTest, OneThatIsInMemoryAsWellIsNotRead) {
  uint32_t model = 0;
  FakeEngine& engine = Connect(&model);
  SaveOne(engine, model, GetParam(), Tokens(203, 3), 7);
  Drain();
  absl::StatusOr<FakeEngine::Stream> stream = Reopen(engine, model, 7, Tokens(203, 3));
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  EXPECT_EQ(Report().counters.loads, 0U);
  Close(engine, *stream);
}

TEST_P(SavedTierTest, AnEarlierRowCanBeGoneOnFrom) {
  uint32_t model = 0;
  FakeEngine& engine = Connect(&model);
  const std::vector<uint32_t> tokens = Tokens(203, 3);
  SaveOne(engine, model, GetParam(), tokens, 7);
  Drain();
  ASSERT_TRUE(snapshots().DropLeastRecentlyUsed(nullptr));
  absl::StatusOr<FakeEngine::Stream> stream = Reopen(engine, model, 7, tokens);
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  EXPECT_EQ(snapshots().entries().begin()->second.snapshot->first_rows, 0U);
  Close(engine, *stream);
}

TEST_P(SavedTierTest, WhoDoesNotWaitIsToldToTryAgain) {
  uint32_t model = 0;
  FakeEngine& engine = Connect(&model);
  SaveOne(engine, model, GetParam(), Tokens(203, 3), 7);
  Drain();
  ASSERT_TRUE(snapshots().DropLeastRecentlyUsed(nullptr));
  engine.waits_for_tiers = false;
  EXPECT_EQ(Reopen(engine, model, 7, Tokens(203, 3)).status().code(),
            absl::StatusCode::kUnavailable);
  RunTiers();  // it has come up meanwhile
  EXPECT_TRUE(Reopen(engine, model, 7, Tokens(203, 3)).ok());
}

TEST_P(SavedTierTest, OneThatIsDroppedOnItsWayUpIsUnknown) {
  uint32_t model = 0;
  FakeEngine& engine = Connect(&model);
  SaveOne(engine, model, GetParam(), Tokens(203, 3), 7);
  Drain();
  ASSERT_TRUE(snapshots().DropLeastRecentlyUsed(nullptr));
  engine.run_tiers = [&] {
    EXPECT_TRUE(core_->DropSnapshot(engine.session(), IdOf(7)).ok());
    RunTiers();
  };
  EXPECT_EQ(Reopen(engine, model, 7, Tokens(203, 3)).status().code(), absl::StatusCode::kNotFound);
  ExpectConserved();
}

TEST_P(SavedTierTest, OneThatIsDroppedOnItsWayDownLeavesNothing) {
  uint32_t model = 0;
  FakeEngine& engine = Connect(&model);
  SaveOne(engine, model, GetParam(), Tokens(203, 3), 7);
  ASSERT_TRUE(core_->StartDrain("").ok());
  std::unique_ptr<TierJob> job = core_->TakeTierJob(0, TierLane::kWrites);
  ASSERT_NE(job, nullptr);
  EXPECT_TRUE(core_->DropSnapshot(engine.session(), IdOf(7)).ok());
  RunTierJob(*job, *tier_, secret(), CancelToken());
  core_->FinishTierJob(std::move(job));
  RunTiers();
  EXPECT_EQ(Report().stored_bytes, 0U);
  EXPECT_EQ(core_->SnapshotReports().size(), 0U);
}

// In a place that is written to by other hosts too, it could not be dropped for good.
TEST_P(SavedTierTest, NoneGoesToATierOfManyHosts) {
  shared_ = true;
  Restart(6 * kMiB);
  uint32_t model = 0;
  FakeEngine& engine = Connect(&model);
  SaveOne(engine, model, GetParam(), Tokens(203, 3), 7);
  Drain();
  EXPECT_EQ(core_->DrainStateOf("a").memory_only, 1U);
  EXPECT_EQ(Report().stored_bytes, 0U);
}

}  // namespace
}  // namespace kvasir::core::testing
