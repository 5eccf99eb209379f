// A pool that becomes smaller: what is held for later goes, of those first who are furthest above
// their share; what a sequence uses stays.
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/core/prefix_fixture.h"

namespace kvasir::core::testing {
namespace {

class PoolSizeCoreTest : public PrefixCoreTest {
 protected:
  uint64_t Charged() {
    uint64_t bytes = 0;
    for (const TenantReport& tenant : core_->TenantReports()) bytes += tenant.charged_bytes;
    return bytes;
  }
  TenantReport ReportOf(const std::string& name) {
    for (const TenantReport& tenant : core_->TenantReports()) {
      if (tenant.name == name) return tenant;
    }
    ADD_FAILURE() << "no tenant " << name;
    return {};
  }
  void GiveUpCached(uint64_t charged_max) {
    while (core_->GiveUpCached(charged_max)) ExpectConserved();
    ExpectConserved();
  }
  void StoreMany(FakeEngine& engine, uint32_t model, uint32_t count, uint32_t seed) {
    for (uint32_t i = 0; i < count && !HasFatalFailure(); ++i) {
      Store(engine, model, "full", Tokens(96, seed + i));
    }
  }
};

TEST_F(PoolSizeCoreTest, NoMoreGoesThanIsAskedFor) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  StoreMany(engine, model, 12, 1);
  const uint64_t charged = Charged();
  EXPECT_FALSE(core_->GiveUpCached(charged)) << "it fits";
  EXPECT_EQ(ReportOf("a").prefixes, 12U);
  const uint64_t half = ReportOf("a").prefix_bytes / 2;
  GiveUpCached(charged - half);
  EXPECT_LE(Charged(), charged - half);
  EXPECT_GT(ReportOf("a").prefixes, 0U);
  EXPECT_LT(ReportOf("a").prefix_bytes, half + 64 * kKiB);
}

TEST_F(PoolSizeCoreTest, WhoIsFurthestAboveItsShareGivesFirst) {
  uint32_t model_a = 0, model_b = 0;
  FakeEngine& a = ConnectOwn(1, &model_a);
  FakeEngine& b = ConnectOwn(2, &model_b);
  StoreMany(a, model_a, 12, 1);
  StoreMany(b, model_b, 2, 1);
  const uint64_t of_b = ReportOf("b").charged_bytes;
  GiveUpCached(Charged() - ReportOf("a").prefix_bytes / 2);
  EXPECT_LT(ReportOf("a").prefixes, 12U);
  EXPECT_EQ(ReportOf("b").prefixes, 2U);
  EXPECT_EQ(ReportOf("b").charged_bytes, of_b);
  // In the end both give all.
  GiveUpCached(0);
  EXPECT_EQ(ReportOf("a").prefixes, 0U);
  EXPECT_EQ(ReportOf("b").prefixes, 0U);
}

TEST_F(PoolSizeCoreTest, SnapshotsGoAndAreCounted) {
  uint32_t model = 0;
  FakeEngine& engine = Connect(1, &model);
  const absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, 70, "window:size=40");
  ASSERT_TRUE(stream.ok());
  for (uint64_t id = 1; id <= 3; ++id) ASSERT_TRUE(Save(engine, *stream, id).ok());
  Close(engine, *stream);
  GiveUpCached(0);
  EXPECT_EQ(ReportOf("a").snapshots, 0U);
  EXPECT_EQ(ReportOf("a").counters.snapshots_dropped, 3U);
}

TEST_F(PoolSizeCoreTest, WhatASequenceUsesStaysAndTheSequenceGoesOn) {
  uint32_t model = 0;
  FakeEngine& engine = Connect(1, &model);
  const std::vector<uint32_t> tokens = Tokens(160, 7);
  Store(engine, model, "full", tokens);
  StoreMany(engine, model, 4, 100);
  absl::StatusOr<FakeEngine::Stream> stream = Attach(engine, model, "full", tokens);
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  ASSERT_EQ(stream->rows, 160U);
  ASSERT_TRUE(pool_->Resize(kMiB / 4).ok());
  GiveUpCached(0);
  EXPECT_EQ(ReportOf("a").prefixes, 1U) << "the one that is in use";
  ASSERT_TRUE(pool_->Resize(16 * kMiB).ok());
  Write(engine, *stream, 40);
  std::vector<uint64_t> all(stream->rows);
  for (uint64_t row = 0; row < all.size(); ++row) all[row] = row;
  EXPECT_EQ(engine.VisibleRows(*stream, stream->rows - 1, 1), all);
}

TEST_F(PoolSizeCoreTest, APoolThatIsFullOfSequencesRefusesAndRecovers) {
  uint32_t model = 0;
  FakeEngine& engine = Connect(1, &model);
  absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, 200);
  ASSERT_TRUE(stream.ok());
  const uint64_t charged = Charged();
  ASSERT_TRUE(pool_->Resize(charged / 2).ok());
  GiveUpCached(charged / 2);
  EXPECT_EQ(Charged(), charged) << "nothing was taken from the sequence";
  EXPECT_EQ(pool_->counts().over_bytes, charged - charged / 2);
  absl::Status refused;
  for (int i = 0; i < 50 && refused.ok(); ++i) refused = engine.Open(model, "full").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << MessageOf(refused);
  Close(engine, *stream);
  core_->EndSession(engine.session_id());
  EXPECT_EQ(pool_->counts().over_bytes, 0U);
  EXPECT_EQ(pool_->counts().idle_bytes, charged / 2);
}

}  // namespace
}  // namespace kvasir::core::testing
