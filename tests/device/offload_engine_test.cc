// The offload engine over a device that fails, holds still and is lost when the test wants it to.
#include "device/offload/offload_engine.h"

#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "device/host/host_device.h"
#include "tests/device/offload_fixture.h"

namespace kvasir::device::testing {
namespace {

using ::testing::HasSubstr;

class OffloadEngineTest : public ::testing::Test {
 protected:
  void Start(const OffloadOptions& options) {
    engine_ = OffloadEngine::Create(*device_, options).value();
  }
  absl::StatusOr<uint64_t> Submit(uint32_t group, uint32_t block,
                                  CopyDirection direction = CopyDirection::kToDevice) {
    return engine_->Submit(world_.layout(),
                           {.direction = direction, .blocks = {{world_.group(group), block}}});
  }
  void Poll() {
    for (OffloadResult& result : engine_->Poll()) {
      EXPECT_TRUE(results_.emplace(result.id, result.status).second) << "told twice";
    }
    EXPECT_TRUE(engine_->CheckBooks().ok()) << engine_->CheckBooks();
  }
  void Finish() {
    while (engine_->counts().queued + engine_->counts().in_flight > 0) Poll();
    Poll();
  }

  std::unique_ptr<HostDevice> device_ = HostDevice::Create({}).value();
  OffloadWorld world_{*device_};
  std::unique_ptr<OffloadEngine> engine_;
  std::map<uint64_t, absl::Status> results_;
};

TEST_F(OffloadEngineTest, WhatIsOverTheBoundWaitsAndWhatIsOverTheQueueIsRefused) {
  Start({.in_flight_bytes_max = 2 * world_.group_bytes(), .queued_max = 1});
  device_->HoldForTest(true);
  ASSERT_TRUE(Submit(0, 0).ok());
  ASSERT_TRUE(Submit(1, 1).ok());
  ASSERT_TRUE(Submit(2, 2).ok());
  EXPECT_EQ(engine_->counts().in_flight, 2U);
  EXPECT_EQ(engine_->counts().queued, 1U);
  const absl::Status status = Submit(3, 3).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("in_flight=2"));
  device_->HoldForTest(false);
  Finish();
  EXPECT_EQ(engine_->counts().done, 3U);
  ASSERT_TRUE(Submit(3, 3).ok());
}

TEST_F(OffloadEngineTest, ARequestThatIsLargerThanTheBoundIsRefusedForEver) {
  Start({.in_flight_bytes_max = world_.group_bytes() - 1});
  EXPECT_EQ(Submit(0, 0).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(OffloadEngineTest, CancellingDropsWhatIsQueuedAndLetsWhatIsIssuedEnd) {
  Start({.in_flight_bytes_max = world_.group_bytes()});
  device_->HoldForTest(true);
  world_.Fill(0, 1);
  const uint64_t issued = Submit(0, 0).value(), queued = Submit(1, 1).value();
  EXPECT_TRUE(engine_->Cancel(issued).ok());
  EXPECT_TRUE(engine_->Cancel(queued).ok());
  EXPECT_EQ(engine_->Cancel(queued).code(), absl::StatusCode::kNotFound);
  Poll();
  EXPECT_EQ(results_.size(), 1U);
  device_->HoldForTest(false);
  Finish();
  EXPECT_EQ(results_[issued].code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(results_[queued].code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(engine_->counts().cancelled, 2U);
}

TEST_F(OffloadEngineTest, ACopyThatIsRefusedEndsItsRequestAloneOnceItTouchesNothing) {
  Start({});
  device_->HoldForTest(true);
  device_->FailCopiesForTest(2, 1);  // the third step of the first request
  const uint64_t first = Submit(0, 0).value(), second = Submit(1, 1).value();
  Poll();
  EXPECT_TRUE(results_.empty()) << "two of its steps are still to come";
  device_->HoldForTest(false);
  Finish();
  EXPECT_EQ(results_[first].code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(results_[second].ok());
}

TEST_F(OffloadEngineTest, ALostDeviceEndsEveryRequestAndTouchesNoBuffer) {
  Start({.in_flight_bytes_max = 2 * world_.group_bytes()});
  device_->HoldForTest(true);
  for (uint32_t i = 0; i < 4; ++i) {
    world_.Fill(i, i + 1);
    ASSERT_TRUE(Submit(i, i, CopyDirection::kToHost).ok());
  }
  device_->LoseForTest("pulled out");
  Finish();
  ASSERT_EQ(results_.size(), 4U);
  for (const auto& [id, status] : results_) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), HasSubstr("pulled out"));
  }
  EXPECT_EQ(Submit(0, 0).status().code(), absl::StatusCode::kUnavailable);
  device_->HoldForTest(false);
  engine_.reset();  // its streams have ended
  for (uint32_t i = 0; i < 4; ++i) EXPECT_TRUE(world_.Has(i, i + 1));
}

// Submits, cancels and faults in an order that a seed says, against a model of what each block of
// the device holds. Each run goes through the same seeds.
class OffloadSeeds : public ::testing::TestWithParam<uint64_t> {};

TEST_P(OffloadSeeds, BooksBalanceAndBytesArrive) {
  constexpr uint32_t kBlocks = OffloadWorld::kBlocks;
  std::mt19937_64 random(GetParam());
  const auto device = HostDevice::Create({}).value();
  const OffloadWorld world(*device);
  auto engine = OffloadEngine::Create(
                    *device, {.streams_per_direction = 1 + static_cast<uint32_t>(GetParam() % 3),
                              .in_flight_bytes_max = 3 * world.group_bytes(),
                              .queued_max = 4})
                    .value();
  struct Pending {
    CopyDirection direction;
    std::vector<uint32_t> groups;  // host group i goes with device block i
    bool cancelled = false;
  };
  std::map<uint64_t, Pending> pending;
  std::set<uint32_t> busy;                    // in a request that has not ended
  std::vector<uint64_t> held(kBlocks, 0);     // seed of what the device's block holds; 0: unknown
  std::vector<uint64_t> written(kBlocks, 0);  // seed of what the host's group holds; 0: unknown
  uint64_t next_seed = 1;
  bool lost = false;

  const auto poll = [&] {
    for (const OffloadResult& result : engine->Poll()) {
      const auto request = pending.find(result.id);
      ASSERT_NE(request, pending.end()) << "told twice, or never asked for";
      const Pending& what = request->second;
      if (result.status.ok()) {
        EXPECT_FALSE(what.cancelled);
      } else if (!what.cancelled && !lost) {
        EXPECT_EQ(result.status.code(), absl::StatusCode::kInternal) << result.status;
      }
      for (const uint32_t group : what.groups) {
        const bool in = what.direction == CopyDirection::kToDevice;
        auto& to = in ? held[group] : written[group];
        to = result.status.ok() ? (in ? written[group] : held[group]) : 0;
        if (!in && to != 0) {
          ASSERT_TRUE(world.Has(group, to)) << "group " << group;
        }
        busy.erase(group);
      }
      pending.erase(request);
    }
    ASSERT_TRUE(engine->CheckBooks().ok()) << engine->CheckBooks();
  };

  for (int step = 0; step < 400 && !HasFatalFailure(); ++step) {
    const uint64_t dice = random() % 100;
    if (dice < 55) {
      Pending what{random() % 2 == 0 ? CopyDirection::kToDevice : CopyDirection::kToHost, {}};
      std::vector<BlockPair> blocks;
      const uint32_t first = static_cast<uint32_t>(random() % kBlocks);
      for (uint32_t i = 0; i < 1 + random() % 4; ++i) {
        const uint32_t group = (first + i) % kBlocks;
        if (busy.contains(group) || blocks.size() == 3) continue;
        if (what.direction == CopyDirection::kToDevice) {
          written[group] = next_seed;
          world.Fill(group, next_seed++);
        }
        what.groups.push_back(group);
        blocks.push_back({world.group(group), group});
      }
      if (blocks.empty()) continue;
      const auto id = engine->Submit(
          world.layout(), {.direction = what.direction,
                           .order = random() % 2 == 0 ? StepOrder::kByLayer : StepOrder::kByGroup,
                           .blocks = blocks});
      if (id.ok()) {
        busy.insert(what.groups.begin(), what.groups.end());
        pending.emplace(*id, std::move(what));
      } else if (!lost) {
        ASSERT_EQ(id.status().code(), absl::StatusCode::kResourceExhausted) << id.status();
      }
    } else if (dice < 65 && !pending.empty()) {
      auto victim = pending.begin();
      std::advance(victim, static_cast<long>(random() % pending.size()));
      if (engine->Cancel(victim->first).ok()) victim->second.cancelled = true;
    } else if (dice < 70) {
      device->FailCopiesForTest(random() % 6, 1);
    } else if (dice < 78) {
      device->HoldForTest(random() % 2 == 0);
    } else if (dice == 99 && GetParam() % 4 == 0 && step > 200) {
      device->LoseForTest("by seed");
      lost = true;
    } else {
      poll();
    }
  }
  device->HoldForTest(false);
  while (!pending.empty() && !HasFatalFailure()) poll();
  const OffloadCounts counts = engine->counts();
  EXPECT_EQ(counts.submitted, counts.done + counts.cancelled + counts.failed);
  EXPECT_EQ(counts.submitted_bytes, counts.ended_bytes);
}

INSTANTIATE_TEST_SUITE_P(Of, OffloadSeeds, ::testing::Range<uint64_t>(1, 41));

}  // namespace
}  // namespace kvasir::device::testing
