// A condensing that is cut short: nothing leaks, nobody waits, and the prefix is where it was or
// gone.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/core/degrade_fixture.h"

namespace kvasir::core::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const std::vector<std::string> kLadder = {"full+int8",
                                          "sepllm:form=static,init_cache_size=2,local_size=17"};

class CutShort : public DegradeCoreTest {
 protected:
  // A prefix of 400 rows that is about to be made smaller, its first job taken.
  void Begin() {
    StartWith(kLadder, 8);
    engine_ = &ConnectOwn(1, &model_);
    Store(*engine_, model_, "full", tokens_);
    ASSERT_FALSE(HasFatalFailure());
    for (int i = 0; i < 5; ++i) {
      job_ = core_->TakeJob();
      ASSERT_NE(job_, nullptr);
      if (i == 4) break;
      core::Run(*job_);
      core_->FinishJob(std::move(job_));
    }
    ExpectConserved();
    EXPECT_THAT(Forms(), ElementsAre("full 400"));
  }
  void FinishIt() {
    core::Run(*job_);
    core_->FinishJob(std::move(job_));
    RunJobs();
    ExpectConserved();
  }

  const std::vector<uint32_t> tokens_ = Text(400, 3);
  uint32_t model_ = 0;
  FakeEngine* engine_ = nullptr;
  std::unique_ptr<SequenceJob> job_;
};

TEST_F(CutShort, ByTheEndOfEverySessionItIsNot) {
  Begin();
  if (HasFatalFailure()) return;
  core_->EndSession(engine_->session_id());
  EXPECT_EQ(core_->TenantReports()[0].sessions, 0U);
  EXPECT_THAT(core_->SequenceReports(), IsEmpty());  // nobody's sequence
  FinishIt();
  EXPECT_EQ(Counters().condensings, 1U);
  FakeEngine& later = ConnectOwn(1, &model_);
  EXPECT_EQ(RowsAtLeast(later, model_, tokens_, QualityClass::kQuantised), 400U);
}

TEST_F(CutShort, ByAnOperatorWhileAWorkerIsAtIt) {
  Begin();
  if (HasFatalFailure()) return;
  EXPECT_EQ(*core_->DropPrefixes("a"), 1U);
  EXPECT_GT(HeldOf("a"), 0U);  // what the worker reads and writes
  FinishIt();
  EXPECT_THAT(Forms(), IsEmpty());
  EXPECT_EQ(Counters().condensings, 0U);
  EXPECT_EQ(Counters().condensing_failures, 1U);
  EXPECT_EQ(HeldOf("a"), 0U);
}

TEST_F(CutShort, ByAnOperatorWhileItWaits) {
  Begin();
  if (HasFatalFailure()) return;
  ASSERT_TRUE(core_->PutBackJob(std::move(job_)));
  EXPECT_EQ(*core_->DropPrefixes("a"), 1U);
  EXPECT_FALSE(core_->HasWork());
  EXPECT_EQ(HeldOf("a"), 0U);
  EXPECT_EQ(Counters().condensing_failures, 1U);
  ExpectConserved();
}

TEST_F(CutShort, BetweenPartsOfItsJob) {
  Begin();
  if (HasFatalFailure()) return;
  while (!RunPart(*job_)) {  // until one has another part
    core_->FinishJob(std::move(job_));
    job_ = core_->TakeJob();
    ASSERT_NE(job_, nullptr);
  }
  ASSERT_TRUE(core_->DropPrefixes("a").ok());
  EXPECT_FALSE(core_->PutBackJob(std::move(job_)));
  EXPECT_EQ(HeldOf("a"), 0U);
  ExpectConserved();
}

// Who goes on from it meanwhile keeps it.
TEST_F(CutShort, ByWhoGoesOnFromIt) {
  Begin();
  if (HasFatalFailure()) return;
  absl::StatusOr<FakeEngine::Stream> stream =
      engine_->Attach({model_, "full", 0, "", 0, true, {}}, "", {tokens_, {}, 0});
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  EXPECT_EQ(stream->rows, 400U);
  FinishIt();
  EXPECT_EQ(Counters().condensings, 0U);
  EXPECT_EQ(Counters().condensing_failures, 1U);
  EXPECT_THAT(Forms(), ElementsAre("full 400"));
}

TEST_F(CutShort, ByTheEndOfTheDaemon) {
  Begin();
  if (HasFatalFailure()) return;
  ASSERT_TRUE(core_->PutBackJob(std::move(job_)));
  core_.reset();
  engines_.clear();
  EXPECT_EQ(pool_->counts().charged_bytes, 0U);
  Start(kDegradeLimit);
}

// A sequence that needs memory gets what a condensing has, at once.
TEST_F(CutShort, ByASequenceThatNeedsItsMemory) {
  Begin();
  if (HasFatalFailure()) return;
  ASSERT_TRUE(core_->PutBackJob(std::move(job_)));
  absl::StatusOr<FakeEngine::Stream> stream = engine_->Open(model_, "full");
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  absl::Status status;
  while (status.ok() && stream->rows < 8000) {
    while (engine_->Writable(*stream) > 0) engine_->WriteRow(*stream, 3);
    engine_->WriteDesk(*stream);
    status = engine_->Sync(*stream, stream->rows + 1, stream->rows).status;
    ExpectConserved();
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GT(stream->rows * 512, kDegradeLimit / 10 * 9);
  EXPECT_THAT(Forms(), IsEmpty());
  EXPECT_EQ(Counters().condensings, 0U);
  EXPECT_EQ(Counters().condensing_failures, 1U);
}

// A tenant at its limit has no room for what is to be smaller: the prefix goes as it would have,
// and nobody else's memory is taken.
TEST_F(DegradeCoreTest, WithoutRoomItIsGivenUpAsItIs) {
  StartWith(kLadder, 20, 1 * kMiB);
  uint32_t model = 0, others_model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  FakeEngine& other = ConnectOwn(2, &others_model);
  Store(other, others_model, "full", Text(200, 7));
  absl::StatusOr<FakeEngine::Stream> blocks = engine.Open(model, "full");
  ASSERT_TRUE(blocks.ok()) << MessageOf(blocks.status());
  absl::StatusOr<FakeEngine::Stream> stream = Attach(engine, model, "full", Text(400, 3));
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  WriteTokens(engine, *stream, Text(400, 3));
  // The rest of the limit.
  absl::Status status;
  while (status.ok()) {
    while (engine.Writable(*blocks) > 0) engine.WriteRow(*blocks, 3);
    engine.WriteDesk(*blocks);
    status = engine.Sync(*blocks, blocks->rows + 1, blocks->rows).status;
  }
  (void)Publish(engine, *stream);
  RunJobs();
  ExpectConserved();
  EXPECT_EQ(Counters().condensings, 0U);
  EXPECT_THAT(Forms("b"), ElementsAre("full 200"));
}

}  // namespace
}  // namespace kvasir::core::testing
