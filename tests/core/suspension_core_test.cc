// Which sequences are asked to be suspended when a tenant's memory is short, and what an operator
// grants by number.
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/shortage.h"
#include "tests/core/fake_engine.h"

namespace kvasir::core::testing {
namespace {

using std::chrono::milliseconds;

constexpr uint64_t kLimit = 512 * kKiB;

class SuspensionTest : public ::testing::Test {
 protected:
  SuspensionTest() {
    CoreConfig config;
    config.tenants = {{"a", {1}, kLimit, "full"}, {"b", {2}, kLimit, "full"}};
    config.tenants[0].counts.sessions = 2;
    config.tenants[0].counts.sequences = 5;
    config.tenants[0].counts.models = 2;
    config.session_limits = limits_;
    config.first_extent_bytes = 32 * kKiB;
    config.extent_bytes = 64 * kKiB;
    config.starving_ms = 10'000;
    core_ = std::make_unique<KvCore>(config, *pool_);
    core_->set_now(now_);
    engine_ = std::make_unique<FakeEngine>(*core_, limits_, 1);
    model_ = *engine_->RegisterModel(2);
  }
  void TearDown() override {
    if (engine_->open()) core_->EndSession(engine_->session_id());
    const absl::Status conserved = core_->CheckConservation();
    EXPECT_TRUE(conserved.ok()) << MessageOf(conserved);
  }

  FakeEngine::Stream Open(const preemption::Hints& hints, uint64_t age_ms = 0) {
    absl::StatusOr<FakeEngine::Stream> stream = engine_->Open(model_, "full");
    EXPECT_TRUE(stream.ok()) << MessageOf(stream.status());
    if (!stream.ok()) return {};
    EXPECT_TRUE(
        core_->SetHints(engine_->session(), stream->slot, stream->uid, {hints, age_ms}).ok());
    return *std::move(stream);
  }
  // Writes rows until there are so many, or there is no memory.
  absl::Status Grow(FakeEngine::Stream& stream, uint64_t rows) {
    while (stream.rows < rows) {
      if (engine_->Writable(stream) > 0) {
        engine_->WriteRow(stream, 5);
        continue;
      }
      engine_->WriteDesk(stream);
      const SyncAnswer answer = engine_->Sync(stream, stream.rows + 1, stream.rows);
      if (!answer.status.ok()) return answer.status;
      while (std::unique_ptr<SequenceJob> job = core_->TakeJob()) {
        core::Run(*job);
        core_->FinishJob(std::move(job));
      }
    }
    return absl::OkStatus();
  }
  bool Asked(const FakeEngine::Stream& stream) {
    return engine_->board(stream.slot).suspend_wanted.load() != 0;
  }
  void Close(const FakeEngine::Stream& stream) {
    const absl::StatusOr<bool> closed =
        core_->CloseSequence(engine_->session(), stream.slot, stream.uid);
    EXPECT_TRUE(closed.ok() && *closed);
  }
  void Advance(milliseconds by) {
    now_ += by;
    core_->set_now(now_);
  }
  TenantReport Report() { return core_->TenantReports()[0]; }

  const SessionLimits limits_{8, 4, 64, 8, 1024, 256 * kKiB};
  const std::unique_ptr<HostPool> pool_ = MakeTestPool(2 * kMiB);
  Instant now_ = Instant() + std::chrono::hours(1);
  std::unique_ptr<KvCore> core_;
  std::unique_ptr<FakeEngine> engine_;
  uint32_t model_ = 0;
};

TEST_F(SuspensionTest, AtItsLimitTheTenantIsToldWhatIsMissingAndWhichOnesShouldGo) {
  FakeEngine::Stream small = Open({0, 10}), large = Open({0, 9000}), dear = Open({50, 90'000});
  for (FakeEngine::Stream* const stream : {&small, &large, &dear}) {
    ASSERT_TRUE(Grow(*stream, 200).ok());
  }
  const absl::Status full = Grow(small, 100'000);
  ASSERT_EQ(full.code(), absl::StatusCode::kResourceExhausted) << MessageOf(full);
  const std::optional<Shortage> shortage = ShortageOf(full);
  ASSERT_TRUE(shortage.has_value()) << MessageOf(full);
  EXPECT_EQ(shortage->budget, "tenant.limit_bytes");
  EXPECT_GT(shortage->missing, 0U);
  EXPECT_LE(shortage->missing, 64 * kKiB);
  EXPECT_GT(shortage->retry_after, milliseconds(0));
  // It has outgrown what was said of it, and has 4,800 rows to go now by that.
  EXPECT_TRUE(Asked(large));
  EXPECT_FALSE(Asked(dear));
  EXPECT_EQ(Report().counters.suspensions_asked, 1U);
  Close(large);
  EXPECT_FALSE(Asked(small) || Asked(dear));
  EXPECT_TRUE(Grow(small, small.rows + 16).ok());
}

TEST_F(SuspensionTest, WhatIsOldGoesLastAndOneAlwaysGoesOn) {
  FakeEngine::Stream old = Open({-100, 90'000}, 9'000), young = Open({100, 1});
  Advance(milliseconds(1'000));
  ASSERT_TRUE(Grow(young, 100).ok());
  ASSERT_FALSE(Grow(old, 100'000).ok());
  EXPECT_TRUE(Asked(young));
  EXPECT_FALSE(Asked(old));
  Close(young);
  ASSERT_FALSE(Grow(old, 100'000).ok());
  Advance(milliseconds(100));
  ASSERT_FALSE(Grow(old, 100'000).ok());
  EXPECT_FALSE(Asked(old)) << "nobody else could make room";
}

TEST_F(SuspensionTest, ANewLifeOfTheSlotIsNotAsked) {
  FakeEngine::Stream first = Open({0, 10}), second = Open({0, 9000});
  ASSERT_TRUE(Grow(second, 100).ok());
  ASSERT_FALSE(Grow(first, 100'000).ok());
  ASSERT_TRUE(Asked(second));
  Close(second);
  const FakeEngine::Stream next = Open({});
  ASSERT_EQ(next.slot, second.slot);
  EXPECT_FALSE(Asked(next));
}

TEST_F(SuspensionTest, HintsAreChecked) {
  const FakeEngine::Stream stream = Open({});
  const auto set = [&](const SequenceHints& hints) {
    return MessageOf(core_->SetHints(engine_->session(), stream.slot, stream.uid, hints));
  };
  EXPECT_NE(set({{101}, 0}).find("priority is out of bounds: value=101"), std::string::npos);
  EXPECT_NE(set({{-101}, 0}).find("priority is out of bounds"), std::string::npos);
  EXPECT_NE(set({{0, 5, 5}, 0}).find("exclude each other"), std::string::npos);
  EXPECT_NE(set({{0, UINT64_MAX}, 0}).find("predicted_rows is out of bounds"), std::string::npos);
  EXPECT_NE(set({{}, UINT64_MAX}).find("request_age_ms is out of bounds"), std::string::npos);
  EXPECT_EQ(core_->SetHints(engine_->session(), 99, 0, {}).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(core_->SetHints(engine_->session(), stream.slot, stream.uid + 1, {}).code(),
            absl::StatusCode::kAborted);
  OpenRequest request;
  request.model_id = model_;
  request.hints.hints.priority = 1000;
  EXPECT_EQ(core_->OpenSequence(engine_->session(), request).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(SuspensionTest, HowGoodHintsAreIsReported) {
  for (uint64_t i = 1; i <= 4; ++i) {
    FakeEngine::Stream stream = Open({0, 10 * i});
    ASSERT_TRUE(Grow(stream, 16 * i).ok());
    engine_->WriteDesk(stream);
    ASSERT_TRUE(engine_->Sync(stream, 1, std::nullopt).status.ok());
    Close(stream);
  }
  EXPECT_EQ(Report().foretold, 4U);
  EXPECT_EQ(Report().foretold_tau, 1.0);
  EXPECT_EQ(Report().typical_response_rows, 40U);
}

TEST_F(SuspensionTest, WhatIsGrantedByNumberIsKept) {
  FakeEngine second(*core_, limits_, 1);
  std::vector<FakeEngine::Stream> streams;
  for (int i = 0; i < 5; ++i) streams.push_back(Open({}));
  const absl::Status sixth = engine_->Open(model_, "full").status();
  EXPECT_NE(MessageOf(sixth).find("tenant.sequences_max=5"), std::string::npos);
  ASSERT_TRUE(ShortageOf(sixth).has_value());
  EXPECT_EQ(ShortageOf(sixth)->budget, "tenant.sequences_max");
  Close(streams.back());
  EXPECT_TRUE(engine_->Open(model_, "full").ok());

  ASSERT_TRUE(second.RegisterModel(1).ok());
  const absl::Status third = second.RegisterModel(1).status();
  EXPECT_NE(MessageOf(third).find("tenant.models_max=2"), std::string::npos) << MessageOf(third);

  FakeEngine other(*core_, limits_, 2);  // another tenant's are not counted
  const absl::StatusOr<Session*> refused =
      core_->OpenSession({1, 0, 0}, SessionToken{{9}}, 1, {}, other);
  EXPECT_NE(MessageOf(refused.status()).find("tenant.sessions_max=2"), std::string::npos);
  EXPECT_EQ(Report().models, 2U);
  core_->EndSession(second.session_id());
  EXPECT_EQ(Report().models, 1U);
  EXPECT_EQ(Report().sequences, 5U);

  // At run time, too.
  Budget budget = Report().budget;
  budget.counts.sequences = 6;
  ASSERT_TRUE(core_->SetBudgets({{"a", budget}}).ok());
  EXPECT_TRUE(engine_->Open(model_, "full").ok());
  EXPECT_FALSE(engine_->Open(model_, "full").ok());
  core_->EndSession(other.session_id());
}

}  // namespace
}  // namespace kvasir::core::testing
