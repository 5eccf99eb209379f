// Saved sequences and prefixes whose rows lie in the memory of a device: gone on from in place, bit
// for bit; in whose memory they may be found; what is given up when a device is short.
#include <chrono>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/device_fixture.h"

namespace kvasir::core::testing {
namespace {

using ::testing::HasSubstr;

using DeviceSnapshotTest = DeviceCoreTest;

TEST_F(DeviceSnapshotTest, WhoGoesOnSeesWhatTheSequenceSees) {
  uint64_t id = 0;
  for (const char* retention : kDeviceRetentions) {
    for (const uint64_t rows : {uint64_t{5}, uint64_t{64}, uint64_t{93}}) {
      SCOPED_TRACE(std::string(retention) + " rows " + std::to_string(rows));
      uint32_t model = 0, other_model = 0;
      FakeEngine& engine = ConnectOn(1, &model);
      FakeEngine& other = ConnectOn(1, &other_model);
      absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, rows, retention);
      ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
      const absl::Status saved = Save(engine, *stream, ++id);
      ASSERT_TRUE(saved.ok()) << MessageOf(saved);
      ExpectConserved();
      absl::StatusOr<FakeEngine::Stream> resumed = Resume(other, other_model, id, stream->ids);
      ASSERT_TRUE(resumed.ok()) << MessageOf(resumed.status());
      ASSERT_EQ(resumed->rows, rows);
      if (retention != std::string("full")) {  // of which no row is recent
        const std::span<std::byte> block = other.GroupOf(*resumed, rows - 1);
        uint32_t id_there = 0;
        std::memcpy(&id_there, &block[resumed->recent.tok_off + 4 * ((rows - 1) % 16)], 4);
        EXPECT_EQ(id_there, stream->ids.back()) << "copied with its trailer";
      }
      ExpectConserved();
      for (int i = 0; i < 4 && !HasFatalFailure(); ++i) {
        Write(engine, *stream, 1 + 12 * static_cast<uint64_t>(i));
        Write(other, *resumed, 1 + 12 * static_cast<uint64_t>(i));
        EXPECT_EQ(SeenAtEnd(other, *resumed), SeenAtEnd(engine, *stream));
      }
      core_->EndSession(engine.session_id());
      core_->EndSession(other.session_id());
      EXPECT_TRUE(core_->DropSnapshot(ConnectOn(1, &model).session(), IdOf(id)).ok());
      core_->EndSession(engines_.back().second->session_id());
      (void)core_->Settle();
      EXPECT_EQ(OnDevice().charged_bytes, 0U);
      engines_.clear();
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(DeviceSnapshotTest, ItIsOfTheDevicesBudgetAndOutlivesItsSession) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectOn(1, &model);
  absl::StatusOr<FakeEngine::Stream> stream =
      Written(engine, model, 200, "streamingllm:start_size=4,recent_size=60");
  ASSERT_TRUE(stream.ok());
  const uint64_t before = OnDevice().held_bytes;
  ASSERT_TRUE(Save(engine, *stream, 1).ok());
  EXPECT_GT(OnDevice().held_bytes, before);  // copies of its recent blocks
  core_->EndSession(engine.session_id());
  (void)core_->Settle();
  EXPECT_GT(OnDevice().held_bytes, 0U);
  EXPECT_GT(OnDevice().charged_bytes, 0U);
  EXPECT_GT(core_->TenantReports()[0].charged_bytes, 0U);  // its trailers
  EXPECT_EQ(core_->TenantReports()[0].held_bytes, 0U);
  ExpectConserved();
}

TEST_F(DeviceSnapshotTest, AFullOneIsGoneOnFromAtAnEarlierRow) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectOn(1, &model);
  absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, 90);
  ASSERT_TRUE(stream.ok());
  ASSERT_TRUE(Save(engine, *stream, 1).ok());
  OpenRequest request{model, "", 0, "", 0, false, IdOf(1), 37};
  const absl::StatusOr<Sequence*> cut = core_->OpenSequence(engine.session(), request);
  ASSERT_TRUE(cut.ok()) << MessageOf(cut.status());
  EXPECT_EQ((*cut)->rows(), 37U);
  RunJobs();
  ExpectConserved();
}

TEST_F(DeviceSnapshotTest, WhoDoesNotWaitIsToldInWhichMemoryItLies) {
  uint32_t model = 0, host_model = 0;
  FakeEngine& engine = ConnectOn(1, &model);
  FakeEngine& host = ConnectOn(1, &host_model, "");
  absl::StatusOr<FakeEngine::Stream> there = Written(engine, model, 40);
  absl::StatusOr<FakeEngine::Stream> here = Written(host, host_model, 40);
  ASSERT_TRUE(there.ok() && here.ok());
  ASSERT_TRUE(Save(engine, *there, 1).ok());
  ASSERT_TRUE(Save(host, *here, 2).ok());
  const absl::Status up = Resume(host, host_model, 1, there->ids).status();
  EXPECT_EQ(up.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(MessageOf(up), HasSubstr("place=gpu0"));
  const absl::Status down = Resume(engine, model, 2, here->ids).status();
  EXPECT_EQ(down.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(MessageOf(down), HasSubstr("place=memory"));
  EXPECT_EQ(Resume(ConnectOn(2, &model), model, 1, there->ids).status().code(),
            absl::StatusCode::kNotFound);  // another tenant's
}

TEST_F(DeviceSnapshotTest, CopiesThatFailAreAnErrorOfTheirCallAlone) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectOn(1, &model);
  absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, 40, "window:size=60");
  ASSERT_TRUE(stream.ok());
  device_->FailCopiesForTest(0, 1);
  const absl::Status failed = Save(engine, *stream, 1);
  EXPECT_EQ(failed.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(MessageOf(failed), HasSubstr("as a test asked for"));
  ExpectConserved();
  const auto seen = SeenAtEnd(engine, *stream);
  ASSERT_TRUE(Save(engine, *stream, 1).ok());
  device_->FailCopiesForTest(0, 1);
  absl::StatusOr<FakeEngine::Stream> resumed = Resume(engine, model, 1, stream->ids);
  ASSERT_TRUE(resumed.ok());  // the service asks what became of it
  const Sequence* const opened = core_->OpenedSequence(engine.session(), resumed->id);
  EXPECT_THAT(MessageOf(opened->failure()), HasSubstr("as a test asked for"));
  core_->GiveUpOpening(resumed->id);
  resumed = Resume(engine, model, 1, stream->ids);
  ASSERT_TRUE(resumed.ok());
  EXPECT_TRUE(core_->OpenedSequence(engine.session(), resumed->id)->failure().ok());
  (void)engine.Writable(*resumed);
  EXPECT_EQ(SeenAtEnd(engine, *resumed), seen);
}

TEST_F(DeviceSnapshotTest, NothingOfItGoesToATier) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectOn(1, &model);
  const std::vector<uint32_t> tokens = Tokens(96, 1);
  Store(engine, model, "full", tokens);
  absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, 40);
  ASSERT_TRUE(stream.ok());
  ASSERT_TRUE(Save(engine, *stream, 1).ok());
  const DrainState state = core_->DrainStateOf("a");
  EXPECT_EQ(state.memory_only, 2U);
  EXPECT_EQ(state.stored + state.not_stored + state.pending, 0U);
  EXPECT_EQ(core_->TakeHandoverJob(), nullptr);
}

class DevicePrefixTest : public DeviceCoreTest {
 protected:
  // Publishes prefixes of 128 rows under seeds [first, last).
  void StoreMany(FakeEngine& engine, uint32_t model, uint32_t first, uint32_t last) {
    for (uint32_t seed = first; seed < last && !HasFatalFailure(); ++seed) {
      Store(engine, model, "full", Tokens(128, seed));
      ExpectConserved();
    }
  }
};

TEST_F(DevicePrefixTest, WhatOneSessionHasComputedAnotherAttachesInPlace) {
  uint32_t model = 0, other_model = 0;
  for (const char* retention : {"full", "streamingllm:start_size=4,recent_size=37"}) {
    SCOPED_TRACE(retention);
    FakeEngine& engine = ConnectOn(1, &model);
    FakeEngine& other = ConnectOn(1, &other_model);
    const std::vector<uint32_t> tokens = Tokens(200, 3);
    const std::vector<uint32_t> head(tokens.begin(), tokens.begin() + 96);
    Store(engine, model, retention, head);
    const uint64_t held = OnDevice().held_bytes;
    absl::StatusOr<FakeEngine::Stream> attached = Attach(other, other_model, retention, tokens);
    ASSERT_TRUE(attached.ok()) << MessageOf(attached.status());
    EXPECT_EQ(attached->rows, 96U);
    if (retention == std::string("full")) {  // two granted blocks, and no copy of its rows
      EXPECT_LE(OnDevice().held_bytes, held + 2 * 4 * kKiB);
    }
    absl::StatusOr<FakeEngine::Stream> computed = engine.Open(model, retention);
    ASSERT_TRUE(computed.ok());
    WriteTokens(engine, *computed, tokens);
    WriteTokens(other, *attached, tokens);
    EXPECT_EQ(SeenAtEnd(other, *attached), SeenAtEnd(engine, *computed));
    ExpectConserved();
    const std::vector<PrefixReport> reports = core_->PrefixReports();
    ASSERT_FALSE(reports.empty());
    EXPECT_EQ(reports.back().place, "gpu0");
    EXPECT_GT(reports.back().hits, 0U);
    core_->EndSession(other.session_id());
    core_->EndSession(engine.session_id());
    ExpectConserved();
  }
}

TEST_F(DevicePrefixTest, CachesOfTwoMemoriesAreApart) {
  uint32_t model = 0, host_model = 0;
  FakeEngine& engine = ConnectOn(1, &model);
  FakeEngine& host = ConnectOn(1, &host_model, "");
  const std::vector<uint32_t> tokens = Tokens(96, 4);
  Store(host, host_model, "full", tokens);
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens), 0U);
  Store(engine, model, "full", tokens);  // the same tokens in both
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens), 96U);
  EXPECT_EQ(RowsAttached(host, host_model, "full", tokens), 96U);
  EXPECT_EQ(core_->TenantReports()[0].prefixes, 2U);
  EXPECT_EQ(*core_->DropPrefixes("a"), 2U);
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens), 0U);
}

TEST_F(DevicePrefixTest, APublicTenantsAreNotFoundOnADevice) {
  uint32_t model = 0, host_model = 0, other_model = 0;
  const std::vector<uint32_t> tokens = Tokens(96, 5);
  FakeEngine& library = ConnectOn(3, &model);
  FakeEngine& library_host = ConnectOn(3, &host_model, "");
  Store(library, model, "full", tokens);
  Store(library_host, host_model, "full", tokens);
  FakeEngine& other = ConnectOn(1, &other_model);
  EXPECT_EQ(RowsAttached(other, other_model, "full", tokens), 0U);
  uint32_t of_host = 0;
  FakeEngine& other_host = ConnectOn(1, &of_host, "");
  EXPECT_EQ(RowsAttached(other_host, of_host, "full", tokens), 96U);
  EXPECT_EQ(RowsAttached(library, model, "full", tokens), 96U);
}

TEST_F(DevicePrefixTest, ALeaseHoldsWhatLiesOnADevice) {
  StartWith(kPool, 12 * kUnit);
  uint32_t model = 0;
  FakeEngine& engine = ConnectOn(1, &model);
  const std::vector<uint32_t> tokens = Tokens(128, 1);
  Store(engine, model, "full", tokens);
  std::vector<LeaseMember> members(1);
  members[0].model_fingerprint = engine.session().models.at(model)->model.fingerprint();
  const absl::StatusOr<PrefixScopes> scopes = core_->LeaseScopesOf(engine.session(), members, "");
  ASSERT_TRUE(scopes.ok()) << MessageOf(scopes.status());
  const absl::StatusOr<PrefixKeys> keys = HashPrefix(*scopes, {tokens, {}, 0});
  ASSERT_TRUE(keys.ok());
  LeaseRequest request;
  request.members = &members;
  request.prefix = &*keys;
  request.id.bytes.fill(9);
  const auto leased = core_->LeasePrefix(engine.session(), request);
  ASSERT_TRUE(leased.ok() && *leased) << MessageOf(leased.status());
  EXPECT_EQ((*leased)->rows, 128U);
  StoreMany(engine, model, 2, 40);  // more than the budget holds
  EXPECT_LT(core_->TenantReports()[0].prefixes, 39U);
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens), 128U);
  ASSERT_TRUE(core_->ReleaseLease(engine.session(), request.id).ok());
}

// 128 rows are 8 groups of 4 KiB; a unit holds 16.
TEST_F(DevicePrefixTest, CachedPrefixesGiveRoomToOthers) {
  StartWith(kPool, 12 * kUnit);
  uint32_t model = 0, host_model = 0;
  FakeEngine& host = ConnectOn(1, &host_model, "");
  Store(host, host_model, "full", Tokens(128, 1));
  FakeEngine& engine = ConnectOn(1, &model);
  StoreMany(engine, model, 1, 30);
  const uint64_t left = core_->TenantReports()[0].prefixes;
  EXPECT_GT(left, 4U);
  EXPECT_LT(left, 29U);
  EXPECT_EQ(RowsAttached(engine, model, "full", Tokens(128, 29)), 128U);
  EXPECT_EQ(RowsAttached(host, host_model, "full", Tokens(128, 1)), 128U)
      << "host memory was not short";
  // Nobody has the extents mapped: they become recent blocks.
  absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, 1500);
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  EXPECT_LT(core_->TenantReports()[0].prefixes, left);
  EXPECT_LE(OnDevice().charged_bytes, 12 * kUnit);
  ExpectConserved();
}

TEST_F(DevicePrefixTest, WhatEnginesHaveMappedIsNotGivenUpForNothing) {
  StartWith(kPool, 12 * kUnit);
  uint32_t model = 0;
  FakeEngine& engine = ConnectOn(1, &model);
  std::vector<UniqueFd> held;
  engine.holds = &held;
  StoreMany(engine, model, 1, 30);
  const uint64_t left = core_->TenantReports()[0].prefixes;
  EXPECT_GT(left, 4U);
  absl::StatusOr<FakeEngine::Stream> stream = engine.Open(model, "full");
  ASSERT_TRUE(stream.ok());
  engine.WriteDesk(*stream);
  EXPECT_EQ(engine.Sync(*stream, 1 << 11, std::nullopt).status.code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(core_->TenantReports()[0].prefixes, left);
}

TEST_F(DevicePrefixTest, ASnapshotIsGivenUpAfterThePrefixes) {
  StartWith(kPool, 12 * kUnit);
  uint32_t model = 0;
  FakeEngine& engine = ConnectOn(1, &model);
  Store(engine, model, "full", Tokens(128, 1));
  absl::StatusOr<FakeEngine::Stream> saved = Written(engine, model, 300);
  ASSERT_TRUE(saved.ok());
  ASSERT_TRUE(Save(engine, *saved, 1).ok());
  Close(engine, *saved);
  absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, 2500);
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  EXPECT_EQ(core_->TenantReports()[0].prefixes, 0U);
  EXPECT_EQ(core_->TenantReports()[0].counters.snapshots_dropped, 1U);
  EXPECT_EQ(Resume(engine, model, 1, saved->ids).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(DevicePrefixTest, WhoLacksItsOwnPartGetsItFromOthersCaches) {
  StartWith(24 * kUnit, 24 * kUnit);  // three tenants: 8 units each are their own
  uint32_t model = 0, other_model = 0;
  FakeEngine& engine = ConnectOn(1, &model);
  StoreMany(engine, model, 1, 40);
  EXPECT_GT(OnDevice(0).charged_bytes, 20 * kUnit);
  FakeEngine& other = ConnectOn(2, &other_model);
  absl::StatusOr<FakeEngine::Stream> stream = Written(other, other_model, 1500);
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  EXPECT_GE(OnDevice(1).charged_bytes, 6 * kUnit);
  EXPECT_GE(OnDevice(0).charged_bytes, 8 * kUnit - 2 * kUnit) << "no more than it had to";
  EXPECT_GT(core_->TenantReports()[0].prefixes, 0U);
  ExpectConserved();
}

TEST_F(DevicePrefixTest, SequencesOfADeviceThatIsShortAreAskedToBeSuspended) {
  StartWith(kPool, 8 * kUnit);
  uint32_t model = 0, host_model = 0;
  FakeEngine& host = ConnectOn(1, &host_model, "");
  absl::StatusOr<FakeEngine::Stream> here = Written(host, host_model, 40);
  FakeEngine& engine = ConnectOn(1, &model);
  std::vector<UniqueFd> held;
  engine.holds = &held;
  absl::StatusOr<FakeEngine::Stream> first = Written(engine, model, 40);
  absl::StatusOr<FakeEngine::Stream> second = engine.Open(model, "full");
  ASSERT_TRUE(here.ok() && first.ok() && second.ok());
  core_->set_now(Instant() + std::chrono::seconds(1));
  engine.WriteDesk(*second);
  EXPECT_EQ(engine.Sync(*second, 4000, std::nullopt).status.code(),
            absl::StatusCode::kResourceExhausted);
  const auto asked = [](FakeEngine& of, const FakeEngine::Stream& stream) {
    return of.board(stream.slot).suspend_wanted.load() != 0;
  };
  EXPECT_TRUE(asked(engine, *first) || asked(engine, *second));
  EXPECT_FALSE(asked(host, *here));
  FakeEngine::Stream& one = asked(engine, *first) ? *first : *second;
  EXPECT_TRUE(Save(engine, one, 1).ok());
  Close(engine, one);
  EXPECT_TRUE(Resume(engine, model, 1, one.ids).ok());
}

}  // namespace
}  // namespace kvasir::core::testing
