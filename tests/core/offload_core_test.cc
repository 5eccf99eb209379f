// Prefixes and saved sequences that move between a device and host memory: bit for bit, once, and
// with every byte in the books, whatever goes wrong on the way.
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

constexpr const char* kRetentions[] = {
    "full",
    "window:size=40",
    "streamingllm:start_size=4,recent_size=37",
    "sepllm:form=static,init_cache_size=3,local_size=40",
    "sepllm:form=manager,init_cache_size=3,sep_cache_size=20,local_size=33,cache_size=60",
    "sinks:size=4|separators|window:size=30"};

using OffloadSavedTest = OffloadCoreTest;

TEST_F(OffloadSavedTest, WhoGoesOnInTheOtherMemorySeesWhatTheSequenceSees) {
  uint64_t id = 0;
  for (const char* retention : kRetentions) {
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

class OffloadPrefixTest : public OffloadCoreTest {
 protected:
  // Publishes prefixes of 128 rows, and goes on from each, so that it is worth keeping.
  void StoreUsed(FakeEngine& engine, uint32_t model, uint32_t first, uint32_t last,
                 const std::string& retention = "full") {
    for (uint32_t seed = first; seed < last && !HasFatalFailure(); ++seed) {
      Store(engine, model, retention, Tokens(128, seed));
      EXPECT_EQ(RowsAttached(engine, model, retention, Tokens(128, seed)), 128U);
    }
  }
};

TEST_F(OffloadPrefixTest, WhatFillsADeviceGoesDownAndComesUpWhenItIsAskedFor) {
  for (const char* retention : {"full", "streamingllm:start_size=4,recent_size=37"}) {
    SCOPED_TRACE(retention);
    const uint64_t limit = (retention == std::string("full") ? 16 : 11) * kUnit;
    StartWith(limit, limit);
    uint32_t model = 0;
    FakeEngine& engine = ConnectTo(1, &model);
    const std::vector<uint32_t> tokens = Tokens(140, 1);
    Store(engine, model, retention, std::vector(tokens.begin(), tokens.begin() + 128));
    absl::StatusOr<FakeEngine::Stream> here = Attach(engine, model, retention, tokens);
    ASSERT_TRUE(here.ok());
    ASSERT_EQ(here->rows, 128U);
    WriteTokens(engine, *here, tokens);
    const auto seen = SeenAtEnd(engine, *here);
    Close(engine, *here);
    uint32_t seed = 2;
    uint64_t jobs = 0;
    for (; jobs == 0 && seed < 39; ++seed) {
      StoreUsed(engine, model, seed, seed + 1, retention);
      jobs += RunOffloads();
    }
    EXPECT_EQ(jobs, seed - 1) << "all of them, while they are there";
    EXPECT_EQ(Counters().stores, jobs);
    EXPECT_EQ(Counters().failures, 0U);
    EXPECT_EQ(PrefixesIn("memory"), jobs);
    EXPECT_LT(PrefixesIn("gpu0"), jobs);
    const uint64_t stored = Counters().stored_bytes;
    for (uint32_t other = 1; other < seed && !HasFatalFailure(); ++other) {
      EXPECT_EQ(RowsAttached(engine, model, retention, Tokens(128, other)), 128U) << other;
      ExpectConserved();
    }
    EXPECT_GT(Counters().loads, 0U);
    absl::StatusOr<FakeEngine::Stream> back = Attach(engine, model, retention, tokens);
    ASSERT_TRUE(back.ok());
    ASSERT_EQ(back->rows, 128U);
    WriteTokens(engine, *back, tokens);
    EXPECT_EQ(SeenAtEnd(engine, *back), seen);
    Close(engine, *back);
    // What came up has its twin below still: nothing is copied down again.
    (void)RunOffloads();
    EXPECT_EQ(Counters().stored_bytes, stored);
    core_->EndSession(engine.session_id());
  }
}

TEST_F(OffloadPrefixTest, HostMemoryThatIsSmallIsNotFilledOverAndOver) {
  host_limit_ = 1536 * kKiB;  // of which trailers of the device take most
  StartWith(16 * kUnit, 16 * kUnit);
  uint32_t model = 0, host_model = 0;
  FakeEngine& host = ConnectTo(1, &host_model, "");
  absl::StatusOr<FakeEngine::Stream> saved = Written(host, host_model, 200);
  ASSERT_TRUE(saved.ok()) << MessageOf(saved.status());
  ASSERT_TRUE(Save(host, *saved, 1).ok());
  Close(host, *saved);
  FakeEngine& engine = ConnectTo(1, &model);
  uint32_t seed = 2;
  uint64_t jobs = 0;
  for (; jobs == 0 && seed < 39; ++seed) {
    StoreUsed(engine, model, seed, seed + 1);
    jobs += RunOffloads();  // ends
  }
  EXPECT_GT(jobs, 0U);
  EXPECT_LE(jobs, seed - 2) << "each at most once";
  EXPECT_LT(PrefixesIn("memory"), seed - 2) << "not all have room there";
  EXPECT_TRUE(Resume(host, host_model, 1, saved->ids).ok()) << "what was saved there is there";
}

TEST_F(OffloadPrefixTest, GroupsThatPrefixesShareAreCopiedOnce) {
  uint32_t model = 0, host_model = 0;
  FakeEngine& engine = ConnectTo(1, &model);
  FakeEngine& host = ConnectTo(1, &host_model, "");
  std::vector<uint32_t> one = Tokens(128, 1), other = one;
  Store(engine, model, "full", one);
  other.resize(192, 3);
  Store(engine, model, "full", other);
  EXPECT_EQ(RowsAttached(host, host_model, "full", one), 128U);
  const uint64_t first = Counters().stored_bytes;
  EXPECT_GT(first, 0U);
  EXPECT_EQ(RowsAttached(host, host_model, "full", other), 192U);
  EXPECT_EQ(Counters().stored_bytes, first + first / 2);
  EXPECT_EQ(Counters().stores, 2U);
}

TEST_F(OffloadPrefixTest, RowsOfHostMemoryServeADevice) {
  uint32_t model = 0, host_model = 0;
  FakeEngine& engine = ConnectTo(1, &model);
  FakeEngine& host = ConnectTo(1, &host_model, "");
  const std::vector<uint32_t> tokens = Tokens(96, 4);
  Store(host, host_model, "full", tokens);
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens), 96U);
  EXPECT_EQ(Counters().loads, 1U);
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens), 96U) << "there now";
  EXPECT_EQ(Counters().loads, 1U);
}

TEST_F(OffloadPrefixTest, ALookupSaysWhereItLiesAndAPrefetchMovesIt) {
  uint32_t model = 0, host_model = 0;
  FakeEngine& engine = ConnectTo(1, &model);
  FakeEngine& host = ConnectTo(1, &host_model, "");
  const std::vector<uint32_t> tokens = Tokens(96, 4);
  Store(host, host_model, "full", tokens);
  const auto scopes = core_->ScopesOf(engine.session(), model, "");
  ASSERT_TRUE(scopes.ok());
  const auto keys = HashPrefix(*scopes, {tokens, {}, 0});
  ASSERT_TRUE(keys.ok());
  auto matches = core_->MatchPrefix(engine.session(), model, *keys);
  ASSERT_TRUE(matches.ok());
  ASSERT_EQ(matches->size(), 1U);
  EXPECT_EQ(matches->front().hit.snapshot->place(), "memory");
  matches->clear();
  ASSERT_TRUE(core_->PrefetchPrefix(engine.session(), model, *keys).ok());
  ASSERT_TRUE(core_->PrefetchPrefix(engine.session(), model, *keys).ok());
  EXPECT_EQ(RunOffloads(), 1U) << "the second one has joined";
  matches = core_->MatchPrefix(engine.session(), model, *keys);
  ASSERT_TRUE(matches.ok());
  ASSERT_EQ(matches->size(), 2U);
  EXPECT_EQ(matches->front().hit.snapshot->place(), "gpu0");
  ASSERT_TRUE(core_->PrefetchPrefix(engine.session(), model, *keys).ok());
  EXPECT_EQ(RunOffloads(), 0U);
}

TEST_F(OffloadPrefixTest, NoOtherTenantsRowsComeToADevice) {
  uint32_t model = 0, host_model = 0, library_model = 0;
  FakeEngine& engine = ConnectTo(1, &model);
  const std::vector<uint32_t> tokens = Tokens(96, 4);
  FakeEngine& library = ConnectTo(3, &library_model, "");  // a public tenant
  Store(library, library_model, "full", tokens);
  FakeEngine& host = ConnectTo(1, &host_model, "");
  EXPECT_EQ(RowsAttached(host, host_model, "full", tokens), 96U);
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens), 0U);
  FakeEngine& other = ConnectTo(2, &host_model, "");
  Store(other, host_model, "full", Tokens(96, 5));
  EXPECT_EQ(RowsAttached(engine, model, "full", Tokens(96, 5)), 0U);
  EXPECT_EQ(Counters().loads, 0U);
}

TEST_F(OffloadPrefixTest, WhatADeviceCannotHoldStaysWhereItIs) {
  uint32_t model = 0, host_model = 0;
  FakeEngine& engine = ConnectTo(1, &model);
  FakeEngine& host = ConnectTo(1, &host_model, "");
  absl::StatusOr<FakeEngine::Stream> stream = Written(host, host_model, 100, "full+int8");
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  ASSERT_TRUE(Save(host, *stream, 1).ok());
  const absl::Status up = Resume(engine, model, 1, stream->ids).status();
  EXPECT_EQ(up.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(MessageOf(up), HasSubstr("they are encoded: device=gpu0"));
}

TEST_F(OffloadPrefixTest, WithoutRoomItIsComputedAgain) {
  StartWith(8 * kUnit, 8 * kUnit);
  uint32_t model = 0, host_model = 0;
  FakeEngine& engine = ConnectTo(1, &model);
  FakeEngine& host = ConnectTo(1, &host_model, "");
  const std::vector<uint32_t> tokens = Tokens(1024, 4);
  Store(host, host_model, "full", tokens);
  absl::StatusOr<FakeEngine::Stream> busy = Written(engine, model, 1500);
  ASSERT_TRUE(busy.ok()) << MessageOf(busy.status());
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens), 0U);
  EXPECT_EQ(Counters().failures, 1U);
  EXPECT_EQ(Counters().loads, 0U);
  ExpectConserved();
}

}  // namespace
}  // namespace kvasir::core::testing
