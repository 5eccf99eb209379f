// Saved sequences that move between a device and host memory: bit for bit, once, and with every
// byte in the books, whatever goes wrong on the way.
#include <cstdint>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/offload_fixture.h"

namespace kvasir::core::testing {
namespace {

using device::CopyDirection;
using ::testing::HasSubstr;

using OffloadSavedTest = OffloadCoreTest;

TEST_F(OffloadSavedTest, WhoGoesOnInTheOtherMemorySeesWhatTheSequenceSees) {
  uint64_t id = 0;
  for (const char* retention : kDeviceRetentions) {
    for (const uint64_t rows : {uint64_t{5}, uint64_t{64}, uint64_t{93}}) {
      SCOPED_TRACE(std::string(retention) + " rows " + std::to_string(rows));
      uint32_t model = 0, host_model = 0;
      FakeEngine& engine = ConnectTo(1, &model);
      FakeEngine& host = ConnectTo(1, &host_model, "");
      absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, rows, retention);
      ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
      const absl::Status saved = Save(engine, *stream, ++id);
      ASSERT_TRUE(saved.ok()) << MessageOf(saved);
      const OffloadCounters before = Counters();
      absl::StatusOr<FakeEngine::Stream> down = Resume(host, host_model, id, stream->ids);
      ASSERT_TRUE(down.ok()) << MessageOf(down.status());
      EXPECT_EQ(Counters().stores, before.stores + 1);
      ExpectConserved();
      Write(host, *down, 20);
      Write(engine, *stream, 20);
      EXPECT_EQ(SeenAtEnd(host, *down), SeenAtEnd(engine, *stream));
      // From there back to the device, further on.
      ASSERT_TRUE(Save(host, *down, ++id).ok());
      absl::StatusOr<FakeEngine::Stream> up = Resume(engine, model, id, down->ids);
      ASSERT_TRUE(up.ok()) << MessageOf(up.status());
      EXPECT_EQ(Counters().loads, before.loads + 1);
      ASSERT_EQ(up->rows, rows + 20);
      for (int i = 0; i < 3 && !HasFatalFailure(); ++i) {
        Write(host, *down, 1 + 12 * static_cast<uint64_t>(i));
        Write(engine, *up, 1 + 12 * static_cast<uint64_t>(i));
        EXPECT_EQ(SeenAtEnd(engine, *up), SeenAtEnd(host, *down));
      }
      core_->EndSession(engine.session_id());
      EXPECT_TRUE(core_->DropSnapshot(host.session(), IdOf(id - 1)).ok());
      EXPECT_TRUE(core_->DropSnapshot(host.session(), IdOf(id)).ok());
      core_->EndSession(host.session_id());
      ExpectConserved();
      (void)core_->Settle();
      EXPECT_EQ(OnDevice().charged_bytes, 0U);
      engines_.clear();
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(OffloadSavedTest, WithoutWaitingItIsSaidWhereItLies) {
  uint32_t model = 0, host_model = 0;
  FakeEngine& engine = ConnectTo(1, &model);
  FakeEngine& host = ConnectOn(1, &host_model, "");  // does not wait
  absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, 40);
  ASSERT_TRUE(stream.ok());
  ASSERT_TRUE(Save(engine, *stream, 1).ok());
  absl::Status there = Resume(host, host_model, 1, stream->ids).status();
  EXPECT_EQ(there.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(MessageOf(there), HasSubstr("place=gpu0"));
  host.run_tiers = [] {};
  host.waits_for_tiers = false;
  there = Resume(host, host_model, 1, stream->ids).status();  // begun, and not waited for
  EXPECT_EQ(there.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(RunOffloads(), 1U);
  const auto down = Resume(host, host_model, 1, stream->ids);
  EXPECT_TRUE(down.ok()) << MessageOf(down.status());
  EXPECT_EQ(OnDevice().held_bytes > 0, true) << "of the sequence, which goes on there";
}

TEST_F(OffloadSavedTest, ItGoesDownBeforeTheDeviceIsFull) {
  StartWith(16 * kUnit, 16 * kUnit);
  uint32_t model = 0;
  FakeEngine& engine = ConnectTo(1, &model);
  absl::StatusOr<FakeEngine::Stream> saved = Written(engine, model, 600, "window:size=64");
  ASSERT_TRUE(saved.ok()) << MessageOf(saved.status());
  ASSERT_TRUE(Save(engine, *saved, 1).ok());
  const auto seen = SeenAtEnd(engine, *saved);
  Close(engine, *saved);
  EXPECT_EQ(RunOffloads(), 0U) << "there is room";
  absl::StatusOr<FakeEngine::Stream> long_one = Written(engine, model, 3400);
  ASSERT_TRUE(long_one.ok()) << MessageOf(long_one.status());
  ASSERT_GE(OnDevice().held_bytes, 13 * kUnit) << "80%";
  EXPECT_EQ(RunOffloads(), 1U);
  EXPECT_EQ(Counters().stores, 1U);
  Close(engine, *long_one);
  absl::StatusOr<FakeEngine::Stream> resumed = Resume(engine, model, 1, saved->ids);
  ASSERT_TRUE(resumed.ok()) << MessageOf(resumed.status());
  (void)engine.Writable(*resumed);
  EXPECT_EQ(SeenAtEnd(engine, *resumed), seen);
  EXPECT_EQ(Counters().loads, 1U);
}

TEST_F(OffloadSavedTest, WhatIsDroppedOnTheWayStaysDropped) {
  uint32_t model = 0, host_model = 0;
  FakeEngine& engine = ConnectTo(1, &model);
  FakeEngine& host = ConnectTo(1, &host_model, "");
  absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, 70);
  ASSERT_TRUE(stream.ok());
  ASSERT_TRUE(Save(engine, *stream, 1).ok());
  host.run_tiers = [&] {
    std::unique_ptr<OffloadJob> job = Take(CopyDirection::kToHost);
    ASSERT_NE(job, nullptr);
    EXPECT_TRUE(core_->DropSnapshot(engine.session(), IdOf(1)).ok());
    core_->EndSession(engine.session_id());
    ExpectConserved();
    Run(*job);
    core_->FinishOffloadJob(std::move(job));
    ExpectConserved();
  };
  EXPECT_EQ(Resume(host, host_model, 1, stream->ids).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(core_->TenantReports()[0].snapshots, 0U);
}

TEST_F(OffloadSavedTest, ACopyThatFailsIsAnErrorOfWhoWaits) {
  uint32_t model = 0, host_model = 0;
  FakeEngine& engine = ConnectTo(1, &model);
  FakeEngine& host = ConnectTo(1, &host_model, "");
  absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, 70);
  ASSERT_TRUE(stream.ok());
  ASSERT_TRUE(Save(engine, *stream, 1).ok());
  const uint64_t before = core_->TenantReports()[0].held_bytes;
  device_->FailCopiesForTest(0, 1);
  const absl::Status failed = Resume(host, host_model, 1, stream->ids).status();
  EXPECT_EQ(failed.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(MessageOf(failed), HasSubstr("could not be moved"));
  EXPECT_EQ(Counters().failures, 1U);
  EXPECT_EQ(core_->TenantReports()[0].held_bytes, before) << "nothing is left of it in host memory";
  const auto again = Resume(host, host_model, 1, stream->ids);
  EXPECT_TRUE(again.ok()) << MessageOf(again.status());
}

TEST_F(OffloadSavedTest, ADaemonThatEndsCancelsIt) {
  uint32_t model = 0, host_model = 0;
  FakeEngine& engine = ConnectTo(1, &model);
  FakeEngine& host = ConnectTo(1, &host_model, "");
  absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, 70);
  ASSERT_TRUE(stream.ok());
  ASSERT_TRUE(Save(engine, *stream, 1).ok());
  stopping_ = true;
  EXPECT_EQ(Resume(host, host_model, 1, stream->ids).status().code(),
            absl::StatusCode::kUnavailable);
  stopping_ = false;
  // A job that nobody has taken ends with the core.
  host.run_tiers = [] {};
  host.waits_for_tiers = false;
  EXPECT_FALSE(Resume(host, host_model, 1, stream->ids).ok());
  core_.reset();
  engines_.clear();
  Start(8 * kMiB);
}

}  // namespace
}  // namespace kvasir::core::testing
