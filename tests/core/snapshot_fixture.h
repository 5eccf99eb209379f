// A core, engines on it, and what tests of snapshots do with them.
#ifndef KVASIR_TESTS_CORE_SNAPSHOT_FIXTURE_H_
#define KVASIR_TESTS_CORE_SNAPSHOT_FIXTURE_H_

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "tests/core/fake_engine.h"

namespace kvasir::core::testing {

inline constexpr uint32_t kLayers = 2;

inline ModelDescription RotatedModel() {
  ModelDescription model = SmallModel(kLayers);
  model.rope = {true, kernels::RopePairing::kHalfSplit, 10000.0, 8};
  return model;
}

inline SnapshotId IdOf(uint64_t number) {
  SnapshotId id;
  std::memcpy(id.bytes.data(), &number, sizeof(number));
  return id;
}

class SnapshotCoreTest : public ::testing::Test {
 protected:
  SnapshotCoreTest() { Start(6 * kMiB); }

  // Ends every session and drops the snapshots; nothing may be left.
  void TearDown() override { ExpectNothingIsLeft(); }

  void Start(uint64_t limit_bytes) {
    core_.reset();
    pool_ = MakePool();
    CoreConfig config;
    config.tenants = {{"a", {1}, limit_bytes, "full"},
                      {"b", {2}, limit_bytes, "full"},
                      {"library", {3}, limit_bytes, "full", /*is_public=*/true}};
    config.prefix_secret.fill(7);
    for (TenantConfig& tenant : config.tenants) {
      tenant.counts.prefixes = 40;
      tenant.counts.snapshots = 3;
    }
    config.session_limits = limits_;
    config.first_extent_bytes = 16 * kKiB;
    config.extent_bytes = 64 * kKiB;
    Configure(config);
    core_ = std::make_unique<KvCore>(config, *pool_);
  }

  virtual void Configure(CoreConfig& /*config*/) {}
  virtual std::unique_ptr<HostPool> MakePool() { return MakeTestPool(16 * kMiB); }

  void ExpectConserved() {
    const absl::Status conserved = core_->CheckConservation();
    EXPECT_TRUE(conserved.ok()) << MessageOf(conserved);
  }

  void ExpectNothingIsLeft() {
    for (auto& [uid, engine] : engines_) {
      if (engine->open()) core_->EndSession(engine->session_id());
    }
    for (const uint32_t uid : {1U, 2U}) {
      FakeEngine last(*core_, limits_, uid);
      for (uint64_t id = 0; id < 1000; ++id) {
        (void)core_->DropSnapshot(last.session(), IdOf(id));
      }
      core_->EndSession(last.session_id());
    }
    (void)core_->DropPrefixes("");
    (void)core_->Settle();
    ExpectConserved();
    for (const TenantReport& tenant : core_->TenantReports()) {
      EXPECT_EQ(tenant.held_bytes, 0U) << tenant.name;
      EXPECT_EQ(tenant.charged_bytes, 0U) << tenant.name;
      EXPECT_EQ(tenant.snapshots, 0U) << tenant.name;
    }
    EXPECT_EQ(pool_->counts().charged_bytes, 0U);
  }

  FakeEngine& Connect(uint32_t uid, uint32_t* model,
                      const ModelDescription& description = RotatedModel()) {
    engines_.emplace_back(uid, std::make_unique<FakeEngine>(*core_, limits_, uid));
    FakeEngine& engine = *engines_.back().second;
    const absl::StatusOr<uint32_t> registered = engine.RegisterModel(description);
    EXPECT_TRUE(registered.ok()) << MessageOf(registered.status());
    if (registered.ok()) *model = *registered;
    return engine;
  }

  void RunJobs() {
    while (std::unique_ptr<SequenceJob> job = core_->TakeJob()) {
      core::Run(*job);
      core_->FinishJob(std::move(job));
    }
  }

  // The next row. What the engine asks for is asked for until it is there, as a client does.
  void Step(FakeEngine& engine, FakeEngine::Stream& stream, uint32_t id, bool jobs_at_once = true) {
    for (int attempt = 0; engine.Writable(stream) == 0; ++attempt) {
      ASSERT_LT(attempt, 4) << "row " << stream.rows;
      engine.WriteDesk(stream);
      const SyncAnswer answer = engine.Sync(stream, stream.rows + 1, stream.rows);
      ASSERT_TRUE(answer.status.ok()) << MessageOf(answer.status);
      RunJobs();
    }
    engine.WriteRow(stream, id);
    if (stream.rows % 16 != 0) return;
    engine.WriteDesk(stream);
    ASSERT_TRUE(engine.Sync(stream, 0, std::nullopt).status.ok());
    if (jobs_at_once) RunJobs();
  }

  void Write(FakeEngine& engine, FakeEngine::Stream& stream, uint64_t rows) {
    for (uint64_t i = 0; i < rows && !HasFatalFailure(); ++i) {
      Step(engine, stream, static_cast<uint32_t>(stream.rows * 7 % 11));
    }
  }

  absl::StatusOr<FakeEngine::Stream> Written(FakeEngine& engine, uint32_t model, uint64_t rows,
                                             const std::string& retention = "full") {
    absl::StatusOr<FakeEngine::Stream> stream = engine.Open(model, retention);
    if (stream.ok()) Write(engine, *stream, rows);
    return stream;
  }

  absl::Status Save(FakeEngine& engine, const FakeEngine::Stream& stream, uint64_t id) {
    engine.WriteDesk(stream);
    bool asked = false;
    for (int attempt = 0; attempt < 4; ++attempt) {
      const SaveAnswer answer = engine.Save(stream, IdOf(id), &asked);
      if (!answer.status.ok()) return answer.status;
      if (answer.ready) {
        EXPECT_EQ(answer.rows, stream.rows);
        return absl::OkStatus();
      }
      RunJobs();
    }
    return Internal("a save does not come to its end");
  }

  absl::StatusOr<FakeEngine::Stream> Resume(FakeEngine& engine, uint32_t model, uint64_t id,
                                            const std::vector<uint32_t>& ids,
                                            const std::string& retention = "") {
    absl::StatusOr<FakeEngine::Stream> stream = engine.Resume(model, retention, IdOf(id), ids);
    if (!stream.ok()) return stream;
    RunJobs();  // there is one where recent blocks are copied
    EXPECT_FALSE(engine.Opening(*stream));
    return stream;
  }

  const SessionLimits limits_{16, 4, 1 << 10, 8, 1 << 12, 256 * kKiB};
  std::unique_ptr<HostPool> pool_;
  std::vector<std::pair<uint32_t, std::unique_ptr<FakeEngine>>> engines_;
  std::unique_ptr<KvCore> core_;  // goes before the engines that it writes to
};

}  // namespace kvasir::core::testing

#endif  // KVASIR_TESTS_CORE_SNAPSHOT_FIXTURE_H_
