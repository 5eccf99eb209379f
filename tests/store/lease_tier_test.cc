// Leases of what lies in a tier: all ranks get it, or none begins there.
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/core/lease_fixture.h"
#include "tests/store/store_fixture.h"

namespace kvasir::core::testing {
namespace {

class LeaseTierTest : public LeaseFixture<StoreTest> {
 protected:
  LeaseTierTest() { Restart(6 * kMiB); }  // with its own configuration

  Rank ConnectRankToTiers(uint32_t uid, uint32_t rank) {
    const Rank connected = ConnectRank(uid, rank);
    connected.engine->run_tiers = [this] { RunTiers(); };
    return connected;
  }
};

TEST_F(LeaseTierTest, WhatAllLackComesUpForAll) {
  const Rank first = ConnectRankToTiers(1, 0), second = ConnectRankToTiers(1, 1);
  const std::vector<uint32_t> tokens = Tokens(203, 3);
  for (const Rank& rank : {first, second}) Store(*rank.engine, rank.model, "full", tokens);
  ASSERT_FALSE(HasFatalFailure());
  Drain();
  ForgetMemory();
  ASSERT_EQ(core_->TenantReports()[0].prefixes, 0U);
  const absl::StatusOr<LeaseAnswer> lease =
      Lease(*first.engine, 1, {MemberOf(first), MemberOf(second)}, tokens);
  ASSERT_TRUE(lease.ok()) << MessageOf(lease.status());
  EXPECT_EQ(lease->rows, 192U);
  EXPECT_EQ(Report().counters.loads, 2U);
  (void)core_->DropPrefixes("");  // memory and tier
  for (const Rank& rank : {first, second}) {
    absl::StatusOr<FakeEngine::Stream> stream = OpenLeased(rank, 1, tokens);
    ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
    EXPECT_EQ(stream->rows, 192U);
    ExpectAsComputed(rank, *stream, "full", tokens);
  }
}

TEST_F(LeaseTierTest, NoMoreIsReadThanAllCanUse) {
  const Rank first = ConnectRankToTiers(1, 0), second = ConnectRankToTiers(1, 1);
  const std::vector<uint32_t> tokens = Tokens(400, 3);
  Store(*first.engine, first.model, "full", tokens);
  Drain();
  ForgetMemory();
  const std::vector<LeaseMember> members = {MemberOf(first), MemberOf(second)};
  EXPECT_EQ(Lease(*first.engine, 1, members, tokens)->rows, 0U);
  EXPECT_EQ(Report().counters.loads, 0U);  // the second has nothing
  Store(*second.engine, second.model, "full", First(tokens, 100));
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_EQ(Lease(*first.engine, 2, members, tokens)->rows, 96U);
  EXPECT_EQ(Report().counters.load_rows, 96U);
  // Compacted rows of the second are in memory alone, at a row that only the tier has of the first.
  const char* streaming = "streamingllm:start_size=4,recent_size=40";
  Store(*second.engine, second.model, streaming, First(tokens, 320));
  EXPECT_EQ(Lease(*first.engine, 3, {MemberOf(first), MemberOf(second, streaming)}, tokens)->rows,
            320U);
  EXPECT_EQ(Report().counters.load_rows, 96U + 320U);
}

// One rank's values are damaged or gone: both begin where both still can.
TEST_F(LeaseTierTest, ALoadThatFailsShortensTheRowOfAll) {
  const Rank first = ConnectRankToTiers(1, 0), second = ConnectRankToTiers(1, 1);
  const std::vector<uint32_t> tokens = Tokens(203, 3);
  Store(*second.engine, second.model, "full", tokens);
  Drain();
  std::vector<TierKey> of_second;
  ASSERT_TRUE(tier_
                  ->ForEach([&](const TierKey& key, uint64_t) {
                    if (!IsManifest(key)) of_second.push_back(key);
                  })
                  .ok());
  Store(*first.engine, first.model, "full", tokens);
  Drain();
  ForgetMemory();
  ASSERT_FALSE(HasFatalFailure());
  ASSERT_FALSE(of_second.empty());
  ASSERT_TRUE(tier_->Erase(std::span(of_second).first(1)).ok());
  const std::vector<LeaseMember> members = {MemberOf(first), MemberOf(second)};
  EXPECT_EQ(Lease(*first.engine, 1, members, tokens)->rows, 0U);
  EXPECT_EQ(Report().counters.load_failures, 1U);
  Store(*second.engine, second.model, "full", First(tokens, 64));
  EXPECT_EQ(Lease(*first.engine, 2, members, tokens)->rows, 64U);
  for (const Rank& rank : {first, second}) {
    EXPECT_EQ(OpenLeased(rank, 2, tokens)->rows, 64U);
  }
}

// What is loaded for one member is given no room that another member's rows lie in.
TEST_F(LeaseTierTest, ALoadTakesNoOtherMembersRows) {
  Restart(700 * kKiB);
  const Rank first = ConnectRankToTiers(1, 0), second = ConnectRankToTiers(1, 1);
  const std::vector<uint32_t> tokens = Tokens(160, 3);
  Store(*second.engine, second.model, "full", tokens);
  Drain();
  ForgetMemory();
  Store(*first.engine, first.model, "full", tokens);
  ASSERT_FALSE(HasFatalFailure());
  // Another sequence gets everything but the first one's rows.
  ASSERT_EQ(Lease(*first.engine, 1, {MemberOf(first)}, tokens)->rows, 160U);
  const Rank eater = ConnectRank(1, 2);
  ASSERT_TRUE(FillMemory(eater).ok());
  ASSERT_TRUE(core_->ReleaseLease(first.engine->session(), LeaseIdOf(1)).ok());
  const std::vector<LeaseMember> members = {MemberOf(first), MemberOf(second)};
  EXPECT_EQ(Lease(*first.engine, 2, members, tokens)->rows, 0U);
  EXPECT_EQ(Report().counters.load_failures, 1U);
  ASSERT_EQ(core_->TenantReports()[0].prefixes, 1U);
  EXPECT_EQ(core_->PrefixReports()[0].rows, 160U);
  // With room for it, it is loaded.
  core_->EndSession(eater.engine->session_id());
  EXPECT_EQ(Lease(*first.engine, 3, members, tokens)->rows, 160U);
  EXPECT_EQ(Report().counters.loads, 1U);
}

}  // namespace
}  // namespace kvasir::core::testing
