// A core with a device, of which the test moves the rows itself, as the daemon's threads do.
#ifndef KVASIR_TESTS_CORE_OFFLOAD_FIXTURE_H_
#define KVASIR_TESTS_CORE_OFFLOAD_FIXTURE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "daemon/offload/run_offload_job.h"
#include "device/offload/offload_engine.h"
#include "tests/core/device_fixture.h"

namespace kvasir::core::testing {

class OffloadCoreTest : public DeviceCoreTest {
 protected:
  ~OffloadCoreTest() override {
    core_.reset();
    engines_.clear();
    pool_.reset();  // the device has registered extents of it
  }

  // An engine that waits for what is moved for it.
  FakeEngine& ConnectTo(uint32_t uid, uint32_t* model, const std::string& pool = "gpu0") {
    FakeEngine& engine = ConnectOn(uid, model, pool);
    engine.run_tiers = [this] { RunOffloads(); };
    return engine;
  }

  std::unique_ptr<OffloadJob> Take(device::CopyDirection direction) {
    return core_->TakeOffloadJob(*memory_, direction);
  }

  void Run(OffloadJob& job) {
    auto engine = device::OffloadEngine::Create(memory_->device(), device::OffloadOptions());
    ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
    RunOffloadJob(job, *memory_, **engine, stopping_);
    const absl::Status books = (*engine)->CheckBooks();
    EXPECT_TRUE(books.ok()) << MessageOf(books);
  }

  // Every job that there is; how many it were.
  uint64_t RunOffloads() {
    uint64_t jobs = 0;
    for (bool some = true; some;) {
      some = false;
      for (const device::CopyDirection direction :
           {device::CopyDirection::kToDevice, device::CopyDirection::kToHost}) {
        while (std::unique_ptr<OffloadJob> job = Take(direction)) {
          ExpectConserved();
          Run(*job);
          core_->FinishOffloadJob(std::move(job));
          ExpectConserved();
          ++jobs;
          some = true;
        }
      }
    }
    return jobs;
  }

  OffloadCounters Counters() { return OnDevice().offloads; }

  // Cached prefixes, of all tenants, that lie in the place.
  uint64_t PrefixesIn(const std::string& place) {
    uint64_t count = 0;
    for (const PrefixReport& report : core_->PrefixReports()) count += report.place == place;
    return count;
  }

  std::atomic<bool> stopping_ = false;
};

}  // namespace kvasir::core::testing

#endif  // KVASIR_TESTS_CORE_OFFLOAD_FIXTURE_H_
