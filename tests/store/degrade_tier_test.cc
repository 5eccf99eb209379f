// A tenant with a ladder and a tier: what the tier has is given up in memory, what is worth a write
// is written first, and only the rest is made smaller.
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "tests/store/store_fixture.h"

namespace kvasir::core::testing {
namespace {

class DegradeTierTest : public StoreTest {
 protected:
  void Configure(CoreConfig& config) override {
    StoreTest::Configure(config);
    config.tenants[0].degrade = {"streamingllm:start_size=4,recent_size=40"};
    config.eviction = "lru";
  }

  // Cached rows above three hundredths of the limit are too many: eleven groups.
  void StartPressed() {
    high_percent_ = 4;
    low_percent_ = 3;
    Restart(3 * kMiB);
  }

  uint64_t RowsAtLeastCompacted(FakeEngine& engine, uint32_t model,
                                const std::vector<uint32_t>& tokens) {
    OpenRequest request;
    request.model_id = model;
    request.retention = "full";
    request.least_quality = QualityClass::kCompacted;
    absl::StatusOr<FakeEngine::Stream> stream = engine.Attach(request, "", {tokens, {}, 0});
    EXPECT_TRUE(stream.ok()) << MessageOf(stream.status());
    if (!stream.ok()) return 0;
    RunJobs();
    Close(engine, *stream);
    return stream->rows;
  }
};

TEST_F(DegradeTierTest, WhatWasNeverUsedIsMadeSmallerAndNotWritten) {
  StartPressed();
  uint32_t model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  const std::vector<uint32_t> tokens = Tokens(400, 3);
  Store(engine, model, "full", tokens);
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_EQ(RunTiers(), 0U);
  RunJobs();
  ExpectConserved();
  EXPECT_EQ(Report().counters.stores, 0U);
  EXPECT_EQ(core_->TenantReports()[0].counters.condensings, 1U);
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens), 0U);
  EXPECT_EQ(RowsAtLeastCompacted(engine, model, tokens), 400U);
  EXPECT_EQ(core_->DrainStateOf("a").not_stored, 1U);
}

TEST_F(DegradeTierTest, WhatWasUsedIsWrittenAndThenGivenUpInMemory) {
  StartPressed();
  uint32_t model = 0;
  const std::vector<uint32_t> tokens = Tokens(400, 3);
  FakeEngine& engine = ConnectOwn(1, &model);
  absl::StatusOr<FakeEngine::Stream> stream = Attach(engine, model, "full", tokens);
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  WriteTokens(engine, *stream, tokens);
  ASSERT_TRUE(Publish(engine, *stream).ok());
  Close(engine, *stream);
  std::unique_ptr<SequenceJob> job = core_->TakeJob();
  ASSERT_NE(job, nullptr);  // it is being made smaller: nobody had used it
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens), 400U);
  core::Run(*job);
  core_->FinishJob(std::move(job));  // somebody has: it stays, and is worth a write
  EXPECT_EQ(core_->TenantReports()[0].counters.condensing_failures, 1U);
  EXPECT_FALSE(core_->HasWork());
  EXPECT_GE(RunTiers(), 1U);
  RunJobs();
  ExpectConserved();
  EXPECT_EQ(Report().counters.stores, 1U);
  EXPECT_EQ(Report().prefixes, 1U);
  EXPECT_EQ(core_->TenantReports()[0].counters.condensings, 0U);
  EXPECT_EQ(core_->TenantReports()[0].prefixes, 0U);
}

}  // namespace
}  // namespace kvasir::core::testing
