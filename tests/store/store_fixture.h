// A core of the tests with one tier in host memory, of which the test runs the jobs itself.
#ifndef KVASIR_TESTS_STORE_STORE_FIXTURE_H_
#define KVASIR_TESTS_STORE_STORE_FIXTURE_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "allocator/tier/host_tier.h"
#include "daemon/store/run_tier_job.h"
#include "tests/core/prefix_fixture.h"

namespace kvasir::core::testing {

class StoreTest : public PrefixCoreTest {
 protected:
  StoreTest() { Restart(6 * kMiB); }

  // A new core on the same tier, and no engine.
  void Restart(uint64_t limit_bytes) {
    engines_.clear();
    if (tier_ == nullptr) {
      HostTierOptions options;
      options.capacity_bytes = 32 * kMiB;
      options.unit_bytes = 4 * kKiB;
      tier_ = *HostTier::Create(options);
    }
    Start(limit_bytes);
  }

  void Configure(CoreConfig& config) override {
    config.tiers = {{"disk", shared_, capacity_bytes_}};
    for (TenantConfig& tenant : config.tenants) tenant.stored_bytes = stored_bytes_;
    config.write_down_high_percent = high_percent_;
    config.write_down_low_percent = low_percent_;
  }

  FakeEngine& ConnectToTiers(uint32_t uid, uint32_t* model,
                             const ModelDescription& description = RotatedModel()) {
    FakeEngine& engine = ConnectOwn(uid, model, description);
    engine.run_tiers = [this] { RunTiers(); };
    return engine;
  }

  // PrefixCoreTest's.
  static ChainHasher::Secret secret() {
    ChainHasher::Secret secret{};
    secret.fill(7);
    return secret;
  }

  // Every job that there is; how many it were.
  uint64_t RunTiers() {
    uint64_t jobs = 0;
    CancelToken cancel;
    for (bool some = true; some;) {
      some = false;
      for (const TierLane lane : {TierLane::kReads, TierLane::kWrites}) {
        while (std::unique_ptr<TierJob> job = core_->TakeTierJob(0, lane)) {
          ExpectConserved();
          RunTierJob(*job, *tier_, secret(), cancel);
          core_->FinishTierJob(std::move(job));
          ExpectConserved();
          ++jobs;
          some = true;
        }
      }
    }
    return jobs;
  }

  void Drain() {
    ASSERT_TRUE(core_->StartDrain("").ok());
    RunTiers();
    EXPECT_EQ(core_->DrainStateOf("").pending, 0U);
  }

  // Memory forgets; what is stored stays.
  void ForgetMemory() {
    for (const uint32_t uid : {1U, 2U, 3U}) {
      Tenant& tenant = **core_->TenantOf({uid});
      while (tenant.GivesUpPrefix()) {
      }
    }
    ExpectConserved();
  }

  TierReport Report(size_t tenant = 0) const { return core_->TierReports().at(tenant); }

  bool shared_ = false;
  uint64_t stored_bytes_ = 16 * kMiB, capacity_bytes_ = 0;
  uint32_t high_percent_ = 80, low_percent_ = 60;
  std::unique_ptr<HostTier> tier_;
};

}  // namespace kvasir::core::testing

#endif  // KVASIR_TESTS_STORE_STORE_FIXTURE_H_
