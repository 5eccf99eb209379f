// Cached prefixes that move between a device and host memory: what goes down and when, what comes
// up for whom, and with every byte in the books.
#include <chrono>
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
  // Nobody wants the device's room: what could not go down stays there, however long that is.
  const uint64_t there = PrefixesIn("gpu0");
  for (int i = 1; i <= 60; ++i) {
    core_->set_now(Instant(std::chrono::hours(1) + std::chrono::seconds(6 * i)));
    (void)RunOffloads();
  }
  EXPECT_EQ(PrefixesIn("gpu0"), there);
}

TEST_F(OffloadPrefixTest, WhatIsDroppedOnTheWayStaysDropped) {
  uint32_t model = 0, host_model = 0;
  FakeEngine& engine = ConnectTo(1, &model);
  FakeEngine& host = ConnectTo(1, &host_model, "");
  const std::vector<uint32_t> tokens = Tokens(96, 4);
  Store(engine, model, "full", tokens);
  host.run_tiers = [&] {
    std::unique_ptr<OffloadJob> job = Take(CopyDirection::kToHost);
    ASSERT_NE(job, nullptr);
    const absl::StatusOr<uint64_t> dropped = core_->DropPrefixes("");
    ASSERT_TRUE(dropped.ok());
    EXPECT_EQ(*dropped, 1U);
    Run(*job);
    core_->FinishOffloadJob(std::move(job));
    ExpectConserved();
  };
  EXPECT_EQ(RowsAttached(host, host_model, "full", tokens), 0U);
  EXPECT_EQ(PrefixesIn("memory") + PrefixesIn("gpu0"), 0U);
}

// Who has asked and waits no more does not keep what comes for it.
TEST_F(OffloadPrefixTest, AnOpeningThatIsGivenUpHoldsNothing) {
  uint32_t model = 0, host_model = 0;
  FakeEngine& engine = ConnectTo(1, &model);
  FakeEngine& host = ConnectTo(1, &host_model, "");
  const std::vector<uint32_t> tokens = Tokens(96, 4);
  for (const bool gives_up : {false, true}) {
    Store(host, host_model, "full", tokens);
    const auto scopes = core_->ScopesOf(engine.session(), model, "");
    ASSERT_TRUE(scopes.ok());
    const auto keys = HashPrefix(*scopes, {tokens, {}, 0});
    ASSERT_TRUE(keys.ok());
    PrefixLoading loading;
    OpenRequest request{model, "full", 0, "waits", 0, true, {}};
    request.prefix = &*keys;
    request.loading = &loading;
    const absl::StatusOr<Sequence*> opened = core_->OpenSequence(engine.session(), request);
    ASSERT_TRUE(opened.ok()) << MessageOf(opened.status());
    ASSERT_EQ(*opened, nullptr) << "it is on its way";
    EXPECT_NE(loading.move, 0U);
    if (gives_up) core_->GiveUpOpening(0, &loading);
    EXPECT_EQ(RunOffloads(), 1U);
    EXPECT_EQ(PrefixesIn("gpu0"), 1U);
    EXPECT_EQ(core_->DropPrefixes("").value(), gives_up ? 2U : 1U) << "the one that is held stays";
    if (!gives_up) core_->GiveUpOpening(0, &loading);
    EXPECT_EQ(core_->DropPrefixes("").value(), gives_up ? 0U : 1U);
  }
}

// What is only cached, and is brought before anybody asks, costs nobody what was saved.
TEST_F(OffloadPrefixTest, APrefixThatComesUpTakesNoSavedSequencesRoom) {
  StartWith(16 * kUnit, 16 * kUnit);
  uint32_t model = 0, host_model = 0;
  FakeEngine& engine = ConnectTo(1, &model);
  FakeEngine& host = ConnectTo(1, &host_model, "");
  absl::StatusOr<FakeEngine::Stream> saved = Written(engine, model, 900);
  ASSERT_TRUE(saved.ok()) << MessageOf(saved.status());
  ASSERT_TRUE(Save(engine, *saved, 1).ok());
  Close(engine, *saved);
  const std::vector<uint32_t> tokens = Tokens(3200, 4);
  Store(host, host_model, "full", tokens);
  const auto scopes = core_->ScopesOf(engine.session(), model, "");
  ASSERT_TRUE(scopes.ok());
  const auto keys = HashPrefix(*scopes, {tokens, {}, 0});
  ASSERT_TRUE(keys.ok());
  ASSERT_TRUE(core_->PrefetchPrefix(engine.session(), model, *keys).ok());
  (void)RunOffloads();
  EXPECT_EQ(core_->TenantReports()[0].snapshots, 1U);
  EXPECT_TRUE(Resume(engine, model, 1, saved->ids).ok());
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
