// Sequences that ask their engine for something, one attack each.
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "daemon/core/score_job.h"
#include "tests/core/fake_engine.h"

namespace kvasir::core::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kGemFilter[] = "gemfilter:filter_layer=0,topk=3";
constexpr char kInfLlm[] =
    "infllm:n_init=0,n_local=4,block_size=4,topk=1,repr_topk=1,max_cached_block=1,"
    "exc_block_size=1";

class AskedCoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    CoreConfig config;
    config.tenants = {{"a", {1}, 4 * kMiB, "full"}};
    config.session_limits = limits_;
    config.first_extent_bytes = 32 * kKiB;
    config.extent_bytes = 64 * kKiB;
    core_ = std::make_unique<KvCore>(config, *pool_);
    engine_ = std::make_unique<FakeEngine>(*core_, limits_, 1);
    const absl::StatusOr<uint32_t> model = engine_->RegisterModel(2);
    ASSERT_TRUE(model.ok()) << MessageOf(model.status());
    model_ = *model;
  }
  void TearDown() override {
    if (core_ == nullptr) return;
    const absl::Status conserved = core_->CheckConservation();
    EXPECT_TRUE(conserved.ok()) << MessageOf(conserved);
  }

  FakeEngine::Stream Open(const std::string& retention, uint64_t prompt_rows = 0) {
    absl::StatusOr<FakeEngine::Stream> stream = engine_->Open(model_, retention, prompt_rows);
    EXPECT_TRUE(stream.ok()) << MessageOf(stream.status());
    return stream.ok() ? *std::move(stream) : FakeEngine::Stream{};
  }
  // Runs whatever is to be run.
  void RunJobs() {
    while (std::unique_ptr<SequenceJob> job = core_->TakeJob()) {
      core::Run(*job);
      core_->FinishJob(std::move(job));
    }
  }
  // Writes rows up to `rows`, with all tables that come up to there.
  void WriteTo(FakeEngine::Stream& stream, uint64_t rows, float mass = 0.5F) {
    for (int tries = 0; stream.rows < rows && tries < 1000; ++tries) {
      while (stream.rows < rows && engine_->Writable(stream) > 0) {
        engine_->WriteRow(stream, 3, mass);
      }
      engine_->WriteDesk(stream);
      (void)engine_->Sync(stream, stream.rows + 1, stream.rows);
      RunJobs();
    }
    engine_->WriteDesk(stream);
    ASSERT_EQ(stream.rows, rows);
  }
  absl::Status SyncHere(const FakeEngine::Stream& stream) {
    (void)engine_->Sync(stream, stream.rows, stream.rows);
    RunJobs();
    return engine_->Sync(stream, stream.rows, stream.rows).status;
  }
  // The same call again, until it is answered or given up.
  SelectAnswer Select(const FakeEngine::Stream& stream) {
    SelectAnswer answer = core_->SelectRows(engine_->session(), stream.slot, stream.uid, &asked_);
    if (answer.ready || !answer.status.ok()) GiveUp();
    return answer;
  }
  RetrieveAnswer Retrieve(const FakeEngine::Stream& stream, uint32_t layer) {
    RetrieveAnswer answer =
        core_->Retrieve(engine_->session(), stream.slot, stream.uid, layer, 0, &asked_);
    if (answer.ready || !answer.status.ok()) GiveUp();
    return answer;
  }
  void GiveUp() { asked_ = false; }

  const SessionLimits limits_{4, 2, 64, 8, 1 << 9, 64 * kKiB};
  std::unique_ptr<HostPool> pool_ = MakeTestPool(8 * kMiB);
  std::unique_ptr<FakeEngine> engine_;
  std::unique_ptr<KvCore> core_;
  uint32_t model_ = 0;
  bool asked_ = false;
};

TEST_F(AskedCoreTest, NothingIsLeftWhereTheReportGroupCannotBeHandedOver) {
  (void)Open("full");  // its blocks are as large, and their extent is known
  engine_->refuse_extents = true;
  const absl::StatusOr<FakeEngine::Stream> stream = engine_->Open(model_, kGemFilter);
  EXPECT_EQ(stream.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(core_->SequenceReports().size(), 1U);
  engine_->refuse_extents = false;
  (void)Open(kGemFilter);
}

TEST_F(AskedCoreTest, AChoiceThatNobodyFetchedIsNotGivenForOtherRows) {
  FakeEngine::Stream stream = Open(kGemFilter);
  WriteTo(stream, 20);
  EXPECT_FALSE(Select(stream).ready);
  RunJobs();
  GiveUp();
  const TruncateAnswer cut = core_->Truncate(engine_->session(), stream.slot, stream.uid, 2);
  ASSERT_TRUE(cut.ready && cut.status.ok()) << MessageOf(cut.status);
  stream.rows = 2;
  stream.uid = cut.uid;
  WriteTo(stream, 4);
  EXPECT_FALSE(Select(stream).ready);
  RunJobs();
  GiveUp();
  WriteTo(stream, 6);
  EXPECT_FALSE(Select(stream).ready);
  RunJobs();
  const SelectAnswer answer = Select(stream);
  ASSERT_TRUE(answer.ready) << MessageOf(answer.status);
  ASSERT_EQ(answer.rows.size(), 3U);
  EXPECT_LT(answer.rows.back(), 6U);
}

TEST_F(AskedCoreTest, BlocksThatNobodyFetchedAreNotGivenForAnotherQuery) {
  FakeEngine::Stream stream = Open(kInfLlm);
  WriteTo(stream, 40);
  EXPECT_FALSE(Retrieve(stream, 0).ready);
  RunJobs();
  GiveUp();
  FakeEngine::FillReports(stream, -0.5F);
  EXPECT_FALSE(Retrieve(stream, 0).ready);
  RunJobs();
  const RetrieveAnswer answer = Retrieve(stream, 0);
  ASSERT_TRUE(answer.ready) << MessageOf(answer.status);
  ASSERT_EQ(answer.blocks.size(), 1U);
  EXPECT_EQ(answer.blocks[0].block, 0U);  // elements grow with the row: the smallest product
}

TEST_F(AskedCoreTest, ABlockThatIsFoundIsNeverInViewAsWell) {
  FakeEngine::Stream stream = Open(kInfLlm);
  uint64_t found = 0;
  for (uint64_t rows = 1; rows <= 40; ++rows) {
    WriteTo(stream, rows);
    (void)engine_->Writable(stream);  // adopts what there is, and the desk does not say so yet
    (void)Retrieve(stream, 0);
    RunJobs();
    const RetrieveAnswer answer = Retrieve(stream, 0);
    GiveUp();
    ASSERT_TRUE(answer.ready) << MessageOf(answer.status);
    const std::vector<uint64_t> visible = engine_->VisibleRows(stream, rows, 0);
    for (const Sequence::RetrievedBlock& block : answer.blocks) {
      ++found;
      for (const uint64_t row : visible) EXPECT_NE(row / 4, block.block) << "row " << rows;
    }
  }
  EXPECT_GT(found, 25U);
}

TEST_F(AskedCoreTest, ALookupTakesNothingFromTheDesk) {
  FakeEngine::Stream stream = Open(kInfLlm);
  WriteTo(stream, 40);
  engine_->desk(stream.slot).rows = uint64_t{1} << 40;
  EXPECT_FALSE(Retrieve(stream, 0).ready);
  RunJobs();
  const RetrieveAnswer answer = Retrieve(stream, 0);
  ASSERT_TRUE(answer.ready) << MessageOf(answer.status);
  ASSERT_EQ(answer.blocks.size(), 1U);
  engine_->ExpectBlock(stream, 0, answer.blocks[0], uint64_t{4} * answer.blocks[0].block, 4);
  ASSERT_TRUE(engine_->open());
  EXPECT_EQ(engine_->Sync(stream, 40, 40).status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_FALSE(engine_->open());
}

TEST_F(AskedCoreTest, PeopleDoNotSeeALookupThatIsUnderWay) {
  FakeEngine::Stream stream = Open(kInfLlm);
  WriteTo(stream, 11);
  const auto seen = [&] {
    const absl::StatusOr<Inspection> inspection = core_->Inspect(nullptr, stream.id, 0, 0, 4);
    EXPECT_TRUE(inspection.ok());
    uint32_t rows = 0;
    for (const InspectedRow& row : inspection->rows) rows += row.row.kept_heads;
    return rows;
  };
  EXPECT_FALSE(Retrieve(stream, 0).ready);
  std::unique_ptr<SequenceJob> job = core_->TakeJob();
  ASSERT_NE(job, nullptr);
  core::Run(*job);
  EXPECT_EQ(seen(), 0U);  // a worker writes at this moment, without the core's lock
  core_->FinishJob(std::move(job));
  EXPECT_EQ(seen(), 4U);
}

TEST_F(AskedCoreTest, RepresentativesOfBlocksArePaidFor) {
  FakeEngine::Stream stream = Open(
      "infllm:n_init=0,n_local=2,block_size=1,topk=1,repr_topk=1,"
      "max_cached_block=1,exc_block_size=1");
  WriteTo(stream, 3);
  const uint64_t before = core_->SequenceReports()[0].summary.unseen_bytes;
  WriteTo(stream, 4);
  // 2 layers x 2 query heads x 4 elements, behind the rows and a page of trailer.
  const shm::GroupGeometry plain = shm::MakeGroupGeometry(stream.recent.row_bytes, 1, {1, 0});
  EXPECT_GE(core_->SequenceReports()[0].summary.unseen_bytes - before, plain.pos_off + 8 + 64);
}

TEST_F(AskedCoreTest, MassThatIsNoMassSealsNothing) {
  struct Case {
    float mass;
    absl::StatusCode code;
    const char* text;
  };
  for (const Case& wrong :
       {Case{0.0F, absl::StatusCode::kFailedPrecondition, "no attention mass was reported"},
        Case{-1.0F, absl::StatusCode::kInvalidArgument, "mass must be finite and not negative"},
        Case{std::numeric_limits<float>::quiet_NaN(), absl::StatusCode::kInvalidArgument,
             "mass must be finite and not negative"}}) {
    for (const char* retention : {kInfLlm, "h2o:hh_size=4,recent_size=0,evict_interval=4"}) {
      SCOPED_TRACE(retention);
      FakeEngine::Stream stream = Open(retention);
      WriteTo(stream, 8, wrong.mass);
      const absl::Status status = SyncHere(stream);
      EXPECT_EQ(status.code(), wrong.code) << MessageOf(status);
      EXPECT_THAT(MessageOf(status), AllOf(HasSubstr(wrong.text), HasSubstr("layer=0")));
      EXPECT_EQ(SyncHere(stream), status);  // for good
      const absl::StatusOr<bool> closed =
          core_->CloseSequence(engine_->session(), stream.slot, stream.uid);
      EXPECT_TRUE(closed.ok() && *closed) << MessageOf(closed.status());
    }
  }
}

TEST_F(AskedCoreTest, QueriesThatAreNoneNameTheLayer) {
  FakeEngine::Stream retrieves = Open(kInfLlm);
  WriteTo(retrieves, 20);
  FakeEngine::FillReports(retrieves, std::numeric_limits<float>::infinity());
  EXPECT_FALSE(Retrieve(retrieves, 1).ready);
  RunJobs();
  EXPECT_THAT(MessageOf(Retrieve(retrieves, 1).status),
              AllOf(HasSubstr("layer=1"), HasSubstr("query is not finite")));
  FakeEngine::FillReports(retrieves, 0.5F);
  EXPECT_FALSE(Retrieve(retrieves, 1).ready);
  RunJobs();
  EXPECT_TRUE(Retrieve(retrieves, 1).ready);  // nothing was lost

  FakeEngine::Stream selects = Open(kGemFilter);
  WriteTo(selects, 20);
  engine_->SpoilKeys(selects, 7, 0x7E00);
  EXPECT_FALSE(Select(selects).ready);
  RunJobs();
  EXPECT_THAT(MessageOf(Select(selects).status),
              AllOf(HasSubstr("filter_layer=0"), HasSubstr("score is not finite: index=7")));
}

TEST_F(AskedCoreTest, ReportsOfASequenceAreBounded) {
  for (const char* retention :
       {"h2o:hh_size=2147483648", "snapkv:window_size=65536,max_capacity_prompt=2147483648"}) {
    const absl::StatusOr<FakeEngine::Stream> stream =
        engine_->Open(model_, retention, uint64_t{1} << 40);
    if (std::string(retention).starts_with("snapkv")) {  // 65536 small queries fit
      EXPECT_EQ(stream.status().code(), absl::StatusCode::kResourceExhausted);
      continue;
    }
    EXPECT_EQ(stream.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(MessageOf(stream.status()), AllOf(HasSubstr("max=536870912"), HasSubstr("h2o:")));
  }
  EXPECT_TRUE(core_->SequenceReports().empty());
}

TEST_F(AskedCoreTest, ScoresBeyondMemoryAreRefused) {
  // 65536 query heads of one element cost the engine little, and a worker 256 GiB.
  LaneScoring scoring;
  scoring.needs.source = ScoreSource::kWindowQueries;
  scoring.needs.window_size = 1;
  scoring.layers = {HeadShape{kernels::RowType::kF16, 1, 65536, 1}};
  scoring.end = uint64_t{1} << 20;
  EXPECT_FALSE(ScoreNextLayer(scoring));
  EXPECT_EQ(scoring.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(scoring.status), AllOf(HasSubstr("heads=65536"), HasSubstr("layer=0")));
}

TEST_F(AskedCoreTest, NobodyWaitsForTheScoresOfASessionThatHasEnded) {
  FakeEngine::Stream stream = Open("h2o:hh_size=4,recent_size=0,evict_interval=4");
  while (engine_->Writable(stream) > 0) engine_->WriteRow(stream, 3);
  engine_->WriteDesk(stream);
  (void)engine_->Sync(stream, stream.rows + 1, stream.rows);
  std::unique_ptr<SequenceJob> job = core_->TakeJob();
  ASSERT_NE(job, nullptr);
  ASSERT_EQ(job->scorings.size(), 1U);
  core_->EndSession(engine_->session_id());
  core::Run(*job);
  EXPECT_EQ(job->scorings[0].status.code(), absl::StatusCode::kCancelled);
  core_->FinishJob(std::move(job));
  EXPECT_TRUE(core_->IsGone(engine_->session_id()));
}

TEST_F(AskedCoreTest, TheCoreEndsWhileJobsWait) {
  FakeEngine::Stream stream = Open(kGemFilter);
  WriteTo(stream, 20);
  EXPECT_FALSE(Select(stream).ready);
  EXPECT_TRUE(core_->HasWork());
  core_.reset();
  EXPECT_EQ(pool_->counts().charged_bytes, 0U);
}

}  // namespace
}  // namespace kvasir::core::testing
