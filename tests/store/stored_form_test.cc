// A prefix of any retention that has been in a tier is what it was; what is wrong there is a miss.
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/state_codec.h"
#include "daemon/core/snapshot_state_format.h"
#include "tests/core/every_retention.h"
#include "tests/core/prefix_twins.h"
#include "tests/store/store_fixture.h"
#include "tests/support/environment.h"

#include <fmt/format.h>

namespace kvasir::core::testing {
namespace {

class StoredForm : public StoreTest, public ::testing::WithParamInterface<const char*> {
 public:
  // For ExpectTwins().
  using StoreTest::Close;
  using StoreTest::RunJobs;
  using StoreTest::Step;
  using StoreTest::WriteTokens;
};

INSTANTIATE_TEST_SUITE_P(All, StoredForm, ::testing::ValuesIn(kEveryRetention));

// The state that a job has written, with another byte in it, under a right checksum.
std::string Forged(const TierJob& job, std::mt19937_64& random) {
  const std::string& owner = job.snapshot->retention;
  std::string body(*OpenState(kSnapshotState, owner, job.state));
  const uint8_t interesting[] = {0, 1, 16, 202, 203, 204, 255, static_cast<uint8_t>(random())};
  body[random() % body.size()] = static_cast<char>(interesting[random() % std::size(interesting)]);
  return SealState(kSnapshotState, owner, body);
}

TEST_P(StoredForm, ComesBackByteForByteAtAnyRow) {
  const uint64_t seed = ::kvasir::testing::FromEnvironment("KVASIR_SEED", std::random_device{}());
  for (uint64_t round = 0; round < 5; ++round) {
    SCOPED_TRACE(fmt::format("KVASIR_SEED={} round {}", seed, round));
    std::mt19937_64 random(seed + round);
    const std::vector<uint32_t> tokens =
        Tokens(kChunkTokens + random() % 280, static_cast<uint32_t>(random()));
    const uint64_t loads = Report().counters.loads;
    uint32_t model = 0;
    FakeEngine& engine = ConnectToTiers(1, &model);
    Store(engine, model, GetParam(), tokens);
    ASSERT_FALSE(HasFatalFailure());
    Drain();
    ForgetMemory();
    ASSERT_EQ(core_->TenantReports()[0].prefixes, 0U);
    absl::StatusOr<FakeEngine::Stream> stream = Attach(engine, model, GetParam(), tokens);
    ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
    EXPECT_EQ(Report().counters.loads, loads + 1);
    EXPECT_EQ(Report().counters.load_failures, 0U);
    ASSERT_GE(stream->rows, tokens.size() / kChunkTokens * kChunkTokens);
    ExpectTwins(*this, engine, model, GetParam(), tokens, *stream, 150, random);
    ASSERT_FALSE(HasFatalFailure());
    Close(engine, *stream);
    core_->EndSession(engine.session_id());
  }
}

// Goes on for some rows, whatever its tables say: the daemon may refuse, and no more.
void GoOn(StoredForm& test, FakeEngine& engine, FakeEngine::Stream& stream) {
  for (int i = 0; i < 60; ++i) {
    if (engine.Writable(stream) == 0) {
      engine.WriteDesk(stream);
      if (!engine.Sync(stream, stream.rows + 1, stream.rows).status.ok()) return;
      test.RunJobs();
      if (engine.Writable(stream) == 0) return;
    }
    engine.WriteRow(stream, static_cast<uint32_t>(i % 8));
  }
}

// Under a right checksum and a right seal, as nobody but a daemon of another build makes them.
TEST_P(StoredForm, AForgedStateIsAMissOrDoesNoHarm) {
  const std::vector<uint32_t> tokens = Tokens(203, 3);
  std::mt19937_64 random(::kvasir::testing::FromEnvironment("KVASIR_SEED", 1));
  uint64_t refused = 0;
  for (int attempt = 0; attempt < 40; ++attempt) {
    SCOPED_TRACE(attempt);
    uint32_t model = 0;
    FakeEngine& engine = ConnectToTiers(1, &model);
    Store(engine, model, GetParam(), tokens);
    ASSERT_TRUE(core_->StartDrain("").ok());
    std::unique_ptr<TierJob> job = core_->TakeTierJob(0, TierLane::kWrites);
    ASSERT_NE(job, nullptr);
    RunTierJob(*job, *tier_, secret(), CancelToken());
    if (job->state.empty()) {  // of whole prefixes there is none
      core_->FinishTierJob(std::move(job));
      return;
    }
    job->state = Forged(*job, random);
    core_->FinishTierJob(std::move(job));
    ForgetMemory();
    absl::StatusOr<FakeEngine::Stream> stream = Attach(engine, model, GetParam(), tokens);
    ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
    refused += stream->rows == 0 ? 1 : 0;
    GoOn(*this, engine, *stream);
    ExpectConserved();
    core_->EndSession(engine.session_id());
    ASSERT_TRUE(core_->DropPrefixes("a").ok());
    ExpectConserved();
  }
  EXPECT_GT(refused, 5U);
}

TEST_P(StoredForm, ACutStateIsAMiss) {
  const std::vector<uint32_t> tokens = Tokens(203, 3);
  uint32_t model = 0;
  FakeEngine& engine = ConnectToTiers(1, &model);
  Store(engine, model, GetParam(), tokens);
  ASSERT_TRUE(core_->StartDrain("").ok());
  std::unique_ptr<TierJob> job = core_->TakeTierJob(0, TierLane::kWrites);
  ASSERT_NE(job, nullptr);
  RunTierJob(*job, *tier_, secret(), CancelToken());
  if (!job->state.empty()) {
    const std::string_view body = *OpenState(kSnapshotState, job->snapshot->retention, job->state);
    job->state =
        SealState(kSnapshotState, job->snapshot->retention, body.substr(0, body.size() / 2));
    core_->FinishTierJob(std::move(job));
    ForgetMemory();
    EXPECT_EQ(RowsAttached(engine, model, GetParam(), tokens), 0U);
    EXPECT_EQ(Report().counters.load_failures, 1U);
    EXPECT_EQ(Report().prefixes, 0U);
    return;
  }
  core_->FinishTierJob(std::move(job));
}

}  // namespace
}  // namespace kvasir::core::testing
