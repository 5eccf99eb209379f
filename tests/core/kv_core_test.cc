// KvCore without threads or sockets: one operation after the other, bytes checked after every one.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "tests/core/fake_engine.h"

namespace kvasir::core::testing {
namespace {

constexpr char kTinyWindow[] = "sepllm:form=static,init_cache_size=2,local_size=20";

class KvCoreTest : public ::testing::Test {
 protected:
  void SetUp() override { Start(4 * kMiB); }
  void TearDown() override {
    if (core_) ExpectConserved();
  }

  void Start(uint64_t limit_bytes) {
    core_.reset();
    pool_ = MakeTestPool(8 * kMiB);
    CoreConfig config;
    config.tenants = {{"a", {1}, limit_bytes, "full"}, {"b", {2}, limit_bytes, "full"}};
    config.session_limits = limits_;
    config.first_extent_bytes = 32 * kKiB;
    config.extent_bytes = 64 * kKiB;
    core_ = std::make_unique<KvCore>(config, *pool_);
  }

  void ExpectConserved() {
    const absl::Status conserved = core_->CheckConservation();
    EXPECT_TRUE(conserved.ok()) << MessageOf(conserved);
  }

  // Writes rows until a copy job comes out.
  std::unique_ptr<SequenceJob> RunUntilJob(FakeEngine& engine, FakeEngine::Stream& stream) {
    for (int step = 0; step < 1000; ++step) {
      if (engine.Writable(stream) > 0)
        engine.WriteRow(stream, static_cast<uint32_t>(stream.rows % 3));
      engine.WriteDesk(stream);
      EXPECT_TRUE(engine.Sync(stream, stream.rows + 1, std::nullopt).status.ok());
      if (std::unique_ptr<SequenceJob> job = core_->TakeJob()) return job;
    }
    ADD_FAILURE() << "no compaction in 1000 rows";
    return nullptr;
  }

  SessionLimits limits_{8, 4, 64, 8, 1 << 12, 256 * kKiB};
  std::unique_ptr<HostPool> pool_;
  std::unique_ptr<KvCore> core_;
};

TEST_F(KvCoreTest, TheLastSessionEndsWhileACopyIsOut) {
  FakeEngine engine(*core_, limits_, 1);
  const absl::StatusOr<uint32_t> model = engine.RegisterModel(1);
  ASSERT_TRUE(model.ok()) << MessageOf(model.status());
  absl::StatusOr<FakeEngine::Stream> stream = engine.Open(*model, kTinyWindow);
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  std::unique_ptr<SequenceJob> job = RunUntilJob(engine, *stream);
  ASSERT_NE(job, nullptr);
  core_->EndSession(engine.session_id());
  EXPECT_FALSE(core_->IsGone(engine.session_id()));  // the copy still reads its memory
  ExpectConserved();
  core::Run(*job);
  core_->FinishJob(std::move(job));
  EXPECT_TRUE(core_->IsGone(engine.session_id()));
  for (const TenantReport& tenant : core_->TenantReports()) {
    EXPECT_EQ(tenant.held_bytes, 0U) << tenant.name;
    EXPECT_EQ(tenant.charged_bytes, 0U) << tenant.name;
  }
}

TEST_F(KvCoreTest, TenantsTakeTurnsBetweenPartsOfJobs) {
  FakeEngine first(*core_, limits_, 1), second(*core_, limits_, 2);
  const absl::StatusOr<uint32_t> model = first.RegisterModel(1), other = second.RegisterModel(1);
  ASSERT_TRUE(model.ok() && other.ok());
  std::vector<FakeEngine::Stream> streams;
  for (FakeEngine* engine : {&first, &first, &first, &second}) {
    absl::StatusOr<FakeEngine::Stream> stream =
        engine->Open(engine == &second ? *other : *model, kTinyWindow);
    ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
    streams.push_back(*std::move(stream));
  }
  std::vector<std::unique_ptr<SequenceJob>> jobs;
  for (FakeEngine::Stream& stream : streams) {
    jobs.push_back(RunUntilJob(&stream == &streams.back() ? second : first, stream));
    ASSERT_NE(jobs.back(), nullptr);
  }
  const uint64_t a1 = jobs[0]->sequence_id, a2 = jobs[1]->sequence_id, a3 = jobs[2]->sequence_id,
                 b = jobs[3]->sequence_id;
  for (std::unique_ptr<SequenceJob>& job : jobs) core_->PutBackJob(std::move(job));
  // The second tenant was served last, then each has its turn, though the first came with three.
  std::vector<uint64_t> order;
  for (int turn = 0; turn < 5; ++turn) {
    std::unique_ptr<SequenceJob> job = core_->TakeJob();
    ASSERT_NE(job, nullptr);
    order.push_back(job->sequence_id);
    core_->PutBackJob(std::move(job));
  }
  EXPECT_EQ(order, (std::vector<uint64_t>{a1, b, a2, b, a3}));
  while (std::unique_ptr<SequenceJob> job = core_->TakeJob()) {
    core::Run(*job);
    core_->FinishJob(std::move(job));
  }
  core_->EndSession(first.session_id());
  core_->EndSession(second.session_id());
}

TEST_F(KvCoreTest, AJobThatNobodyWaitsForIsForgottenBetweenItsParts) {
  FakeEngine engine(*core_, limits_, 1);
  const absl::StatusOr<uint32_t> model = engine.RegisterModel(1);
  ASSERT_TRUE(model.ok());
  absl::StatusOr<FakeEngine::Stream> stream = engine.Open(*model, kTinyWindow);
  ASSERT_TRUE(stream.ok());
  std::unique_ptr<SequenceJob> job = RunUntilJob(engine, *stream);
  ASSERT_NE(job, nullptr);
  (void)core::RunPart(*job);
  core_->EndSession(engine.session_id());
  EXPECT_FALSE(core_->IsGone(engine.session_id()));
  core_->PutBackJob(std::move(job));
  EXPECT_TRUE(core_->IsGone(engine.session_id()));
  EXPECT_FALSE(core_->HasWork());
}

}  // namespace
}  // namespace kvasir::core::testing
