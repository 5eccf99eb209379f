// One row for all ranks, and it stays: what a lease promises while it lives.
#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/core/lease_fixture.h"

#include <fmt/format.h>

namespace kvasir::core::testing {
namespace {

constexpr char kStreaming[] = "streamingllm:start_size=4,recent_size=40";

TEST_F(PrefixLeaseTest, RanksOpenAtOneRowWhateverEachHas) {
  const Rank first = ConnectRank(1, 0), second = ConnectRank(1, 1);
  const std::vector<uint32_t> tokens = Tokens(203, 3);
  Store(*first.engine, first.model, "full", tokens);
  Store(*second.engine, second.model, "full", First(tokens, 100));
  ASSERT_FALSE(HasFatalFailure());
  const absl::StatusOr<LeaseAnswer> lease =
      Lease(*first.engine, 1, {MemberOf(first), MemberOf(second)}, tokens);
  ASSERT_TRUE(lease.ok()) << MessageOf(lease.status());
  EXPECT_EQ(lease->rows, 96U);
  EXPECT_EQ(lease->ttl_ms, kLeaseMsMax);
  ASSERT_EQ(lease->forms.size(), 2U);
  EXPECT_EQ(lease->forms[0].retention, "full");
  EXPECT_EQ(lease->forms[0].quality, QualityClass::kFull);
  EXPECT_FALSE(lease->forms[0].is_public);
  for (const Rank& rank : {first, second}) {
    absl::StatusOr<FakeEngine::Stream> stream = OpenLeased(rank, 1, tokens);
    ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
    EXPECT_EQ(stream->rows, 96U);
    EXPECT_EQ(core_->PrefixLookups("a")->back().why.cause,
              rank.engine == first.engine ? MissCause::kLease : MissCause::kModel);
    ExpectAsComputed(rank, *stream, "full", tokens);
  }
  // Without the lease each takes the longest that it has.
  EXPECT_EQ(RowsAttached(*first.engine, first.model, "full", tokens), 192U);
}

// The least of what each finds is 100 rows, and the first one cannot go on from there.
TEST_F(PrefixLeaseTest, TheRowIsOneThatAllHaveNotTheLeastOfTheLongest) {
  const Rank first = ConnectRank(1, 0), second = ConnectRank(1, 1);
  const std::vector<uint32_t> tokens = Tokens(160, 3);
  for (const uint64_t rows : {50U, 120U}) {
    Store(*first.engine, first.model, kStreaming, First(tokens, rows));
  }
  for (const uint64_t rows : {50U, 100U}) {
    Store(*second.engine, second.model, kStreaming, First(tokens, rows));
  }
  ASSERT_FALSE(HasFatalFailure());
  const std::vector<LeaseMember> members = {MemberOf(first, kStreaming),
                                            MemberOf(second, kStreaming)};
  EXPECT_EQ(Lease(*first.engine, 1, members, tokens)->rows, 50U);
  EXPECT_EQ(Lease(*first.engine, 2, members, First(tokens, 49))->rows, 0U);
  EXPECT_EQ(Lease(*first.engine, 3, members, tokens, {.rows_max = 49})->rows, 0U);
  EXPECT_EQ(Leases(), 1U);  // where nothing is in common there is no lease
  for (const Rank& rank : {first, second}) {
    absl::StatusOr<FakeEngine::Stream> stream = OpenLeased(rank, 1, tokens);
    ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
    EXPECT_EQ(stream->rows, 50U);
    ExpectAsComputed(rank, *stream, kStreaming, tokens);
  }
}

TEST_F(PrefixLeaseTest, FormsMeetWhereAllCanBeGoneOnFrom) {
  const std::vector<Rank> ranks = {ConnectRank(1, 0), ConnectRank(1, 1), ConnectRank(1, 2)};
  const std::vector<uint32_t> tokens = Tokens(200, 3);
  Store(*ranks[0].engine, ranks[0].model, "full", tokens);
  Store(*ranks[1].engine, ranks[1].model, "full+int8:rows=32", First(tokens, 150));
  Store(*ranks[1].engine, ranks[1].model, "full+int8:rows=32", First(tokens, 128));
  for (const uint64_t rows : {64U, 128U, 150U, 171U}) {
    Store(*ranks[2].engine, ranks[2].model, kStreaming, First(tokens, rows));
  }
  ASSERT_FALSE(HasFatalFailure());
  // 171 and 150 are behind no chunk, where `full` cannot be cut.
  const std::vector<LeaseMember> members = {
      MemberOf(ranks[0]), MemberOf(ranks[1], "full+int8:rows=32"), MemberOf(ranks[2], kStreaming)};
  const absl::StatusOr<LeaseAnswer> lease = Lease(*ranks[0].engine, 1, members, tokens);
  ASSERT_TRUE(lease.ok()) << MessageOf(lease.status());
  EXPECT_EQ(lease->rows, 128U);
  EXPECT_EQ(lease->forms[0].quality, QualityClass::kFull);
  EXPECT_EQ(lease->forms[1].quality, QualityClass::kQuantised);
  EXPECT_EQ(lease->forms[2].quality, QualityClass::kCompacted);
  // Two of them meet later.
  EXPECT_EQ(Lease(*ranks[0].engine, 2, {members[1], members[2]}, tokens)->rows, 150U);
  const char* const retentions[] = {"full", "full+int8:rows=32", kStreaming};
  for (size_t i = 0; i < ranks.size(); ++i) {
    absl::StatusOr<FakeEngine::Stream> stream = OpenLeased(ranks[i], 1, tokens);
    ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
    EXPECT_EQ(stream->rows, 128U);
    ExpectAsComputed(ranks[i], *stream, retentions[i], tokens);
  }
}

TEST_F(PrefixLeaseTest, AnotherFormIsLeasedWhereItIsGoodEnough) {
  const Rank first = ConnectRank(1, 0), second = ConnectRank(1, 1);
  const std::vector<uint32_t> tokens = Tokens(200, 3);
  Store(*first.engine, first.model, "full", tokens);
  Store(*second.engine, second.model, "full", First(tokens, 64));
  Store(*second.engine, second.model, kStreaming, First(tokens, 160));
  ASSERT_FALSE(HasFatalFailure());
  const auto rows = [&](uint64_t number, std::optional<QualityClass> least) {
    return Lease(*first.engine, number, {MemberOf(first), MemberOf(second, "full", least)}, tokens)
        ->rows;
  };
  EXPECT_EQ(rows(1, std::nullopt), 64U);
  EXPECT_EQ(rows(2, QualityClass::kQuantised), 64U);
  EXPECT_EQ(rows(3, QualityClass::kCompacted), 160U);
  // "full" is what it asked for, and streamingllm what the lease has for it.
  for (const char* retention : {"", "full"}) {
    absl::StatusOr<FakeEngine::Stream> stream = OpenLeased(second, 3, tokens, retention);
    ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
    EXPECT_EQ(stream->rows, 160U);
    ExpectAsComputed(second, *stream, kStreaming, tokens);
  }
}

// The same look, pressure and open, with a lease between and without.
TEST_F(PrefixLeaseTest, MemoryPressureTakesWhatWasSeenButNotWhatIsLeased) {
  for (const bool leased : {false, true}) {
    Start(600 * kKiB);
    const Rank first = ConnectRank(1, 0), second = ConnectRank(1, 1);
    const std::vector<uint32_t> tokens = Tokens(176, 3);
    for (const Rank& rank : {first, second}) {
      Store(*rank.engine, rank.model, "full", First(tokens, 160));
      ASSERT_FALSE(HasFatalFailure());
      EXPECT_EQ(RowsAttached(*rank.engine, rank.model, "full", tokens), 160U);
    }
    if (leased) {
      EXPECT_EQ(Lease(*first.engine, 1, {MemberOf(first), MemberOf(second)}, tokens)->rows, 160U);
    }
    const absl::StatusOr<FakeEngine::Stream> eater = FillMemory(first);
    ASSERT_TRUE(eater.ok()) << MessageOf(eater.status());
    Close(*first.engine, *eater);
    ASSERT_TRUE(core_->DropPrefixes("a").ok());  // kvasirctl evict
    ASSERT_TRUE(core_->DropPrefixes("").ok());
    ExpectConserved();
    if (!leased) {
      EXPECT_EQ(RowsAttached(*first.engine, first.model, "full", tokens), 0U);
      EXPECT_EQ(RowsAttached(*second.engine, second.model, "full", tokens), 0U);
      for (auto& [uid, engine] : engines_) {  // before what they share with the core goes
        if (engine->open()) core_->EndSession(engine->session_id());
      }
      engines_.clear();
      continue;
    }
    for (const Rank& rank : {first, second}) {
      absl::StatusOr<FakeEngine::Stream> stream = OpenLeased(rank, 1, tokens);
      ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
      EXPECT_EQ(stream->rows, 160U);
      ExpectAsComputed(rank, *stream, "full", tokens);
      Close(*rank.engine, *stream);
    }
    // With the lease goes what held them.
    ASSERT_TRUE(core_->ReleaseLease(first.engine->session(), LeaseIdOf(1)).ok());
    EXPECT_EQ(*core_->DropPrefixes("a"), 2U);
    EXPECT_EQ(RowsAttached(*second.engine, second.model, "full", tokens), 0U);
  }
}

// What is behind the leased row goes, what is below it stays.
TEST_F(PrefixLeaseTest, APrefixIsHeldUpToTheLeasedRow) {
  const Rank rank = ConnectRank(1, 0);
  const std::vector<uint32_t> tokens = Tokens(320, 3);
  Store(*rank.engine, rank.model, "full", tokens);
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_EQ(Lease(*rank.engine, 1, {MemberOf(rank)}, tokens, {.rows_max = 100})->rows, 96U);
  ASSERT_EQ(core_->PrefixReports().size(), 1U);
  EXPECT_EQ(core_->PrefixReports()[0].rows, 320U);
  EXPECT_EQ(core_->PrefixReports()[0].leases, 1U);
  ASSERT_TRUE(core_->DropPrefixes("a").ok());
  ASSERT_EQ(core_->PrefixReports().size(), 1U);
  EXPECT_EQ(core_->PrefixReports()[0].rows, 96U);
  EXPECT_EQ(core_->PrefixReports()[0].leases, 1U);
  EXPECT_EQ(RowsAttached(*rank.engine, rank.model, "full", tokens), 96U);
}

// A longer prefix of other groups takes the place of the leased one.
TEST_F(PrefixLeaseTest, WhatIsLeasedMayBeSuperseded) {
  const Rank rank = ConnectRank(1, 0), other = ConnectRank(1, 0);
  const std::vector<uint32_t> tokens = Tokens(176, 3);
  absl::StatusOr<FakeEngine::Stream> own = Attach(*other.engine, other.model, "full", tokens);
  ASSERT_TRUE(own.ok());
  Store(*rank.engine, rank.model, "full", First(tokens, 96));
  EXPECT_EQ(Lease(*rank.engine, 1, {MemberOf(rank)}, tokens)->rows, 96U);
  WriteTokens(*other.engine, *own, tokens);
  ASSERT_TRUE(Publish(*other.engine, *own).ok());
  ExpectConserved();
  ASSERT_EQ(core_->PrefixReports().size(), 1U);
  EXPECT_EQ(core_->PrefixReports()[0].rows, 176U);
  EXPECT_EQ(core_->PrefixReports()[0].leases, 1U);
  Close(*other.engine, *own);
  ASSERT_TRUE(core_->DropPrefixes("a").ok());
  for (const Rank& each : {rank, other}) {
    absl::StatusOr<FakeEngine::Stream> stream = OpenLeased(each, 1, tokens);
    ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
    EXPECT_EQ(stream->rows, 96U);
    ExpectAsComputed(each, *stream, "full", tokens);
  }
}

TEST_F(PrefixLeaseTest, APublicTenantsPrefixIsHeldForOthers) {
  const Rank library = ConnectRank(3, 0), rank = ConnectRank(1, 0), own = ConnectRank(1, 1);
  const std::vector<uint32_t> tokens = Tokens(160, 3);
  Store(*library.engine, library.model, "full", First(tokens, 128));
  Store(*own.engine, own.model, "full", tokens);
  core_->EndSession(library.engine->session_id());
  const absl::StatusOr<LeaseAnswer> lease =
      Lease(*own.engine, 1, {MemberOf(rank), MemberOf(own)}, tokens);
  ASSERT_TRUE(lease.ok()) << MessageOf(lease.status());
  EXPECT_EQ(lease->rows, 128U);
  EXPECT_TRUE(lease->forms[0].is_public);
  EXPECT_FALSE(lease->forms[1].is_public);
  EXPECT_EQ(Leases(0), 1U);
  EXPECT_EQ(Leases(2), 0U);  // the library's sessions have taken none
  ASSERT_TRUE(core_->DropPrefixes("").ok());
  ExpectConserved();
  for (const Rank& each : {rank, own}) {
    absl::StatusOr<FakeEngine::Stream> stream = OpenLeased(each, 1, tokens);
    ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
    EXPECT_EQ(stream->rows, 128U);
    ExpectAsComputed(each, *stream, "full", tokens);
    Close(*each.engine, *stream);
  }
  core_->EndSession(own.engine->session_id());
  ASSERT_TRUE(core_->DropPrefixes("").ok());
  EXPECT_EQ(core_->TenantReports()[2].prefixes, 0U);
  ExpectConserved();
}

// A lease asks for nothing that a later open does not ask for again.
TEST_F(PrefixLeaseTest, ALeaseIsNoUseAndNoLookup) {
  const Rank rank = ConnectRank(1, 0);
  const std::vector<uint32_t> tokens = Tokens(160, 3);
  Store(*rank.engine, rank.model, "full", tokens);
  const TenantCounters before = core_->TenantReports()[0].counters;
  EXPECT_EQ(Lease(*rank.engine, 1, {MemberOf(rank)}, tokens)->rows, 160U);
  EXPECT_EQ(core_->PrefixReports()[0].hits, 0U);
  EXPECT_EQ(core_->TenantReports()[0].counters.prefix_lookups, before.prefix_lookups);
  absl::StatusOr<FakeEngine::Stream> stream = OpenLeased(rank, 1, tokens);
  ASSERT_TRUE(stream.ok());
  EXPECT_EQ(core_->PrefixReports()[0].hits, 1U);
  EXPECT_EQ(core_->TenantReports()[0].counters.prefix_lookups, before.prefix_lookups + 1);
  EXPECT_EQ(core_->TenantReports()[0].counters.prefix_hits, before.prefix_hits + 1);
  EXPECT_EQ(core_->TenantReports()[0].counters.prefix_rows_hit, before.prefix_rows_hit + 160);
  EXPECT_EQ(core_->PrefixLookups("a")->back().why.cause, MissCause::kNone);
}

// Any order of publishing, leasing, evicting and opening: the books add up, and who has a lease
// opens at its row.
TEST_F(PrefixLeaseTest, NoOrderOfEventsTakesALeasedRow) {
  const uint64_t seed = TestSeed(1);
  SCOPED_TRACE(fmt::format("KVASIR_SEED={}", seed));
  std::mt19937_64 random(seed);
  Start(1500 * kKiB);
  const std::vector<Rank> ranks = {ConnectRank(1, 0), ConnectRank(1, 1)};
  Rank eater;
  const std::vector<uint32_t> stem = Tokens(240, 1);
  const std::vector<std::string> retentions = {"full", kStreaming, "full+int8:rows=32"};
  struct Held {
    uint64_t number = 0, rows = 0;
    std::vector<uint32_t> tokens;
  };
  std::vector<Held> held;
  uint64_t opened = 0, number = 0;
  for (int round = 0; round < 600 && !HasFatalFailure(); ++round) {
    const std::vector<uint32_t> tokens = First(stem, 20 + random() % 220);
    const std::string& retention = retentions[random() % retentions.size()];
    switch (random() % 8) {
      case 0:
      case 1:
        for (const Rank& rank : ranks) {  // the second one may have less of it
          const uint64_t rows =
              rank.engine == ranks[0].engine ? tokens.size() : 16 + random() % tokens.size();
          Store(*rank.engine, rank.model, retention,
                First(tokens, std::min<uint64_t>(rows, tokens.size())));
        }
        break;
      case 2:
      case 3: {
        if (held.size() == kLeasesOfSessionMax) break;
        const absl::StatusOr<LeaseAnswer> lease =
            Lease(*ranks[0].engine, ++number,
                  {MemberOf(ranks[0], retention, QualityClass::kCompacted),
                   MemberOf(ranks[1], retentions[random() % retentions.size()])},
                  tokens);
        ASSERT_TRUE(lease.ok()) << MessageOf(lease.status());
        if (lease->rows > 0) held.push_back({number, lease->rows, tokens});
        break;
      }
      case 4:
        (void)core_->DropPrefixes("a");
        break;
      case 5:
        eater = ConnectRank(1, 2);
        ASSERT_TRUE(FillMemory(eater).ok());
        core_->EndSession(eater.engine->session_id());
        break;
      default:
        if (held.empty()) break;
        std::swap(held[random() % held.size()], held.back());
        for (const Rank& each : ranks) {
          absl::StatusOr<FakeEngine::Stream> stream =
              OpenLeased(each, held.back().number, held.back().tokens);
          ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
          ASSERT_EQ(stream->rows, held.back().rows);
          ++opened;
          Close(*each.engine, *stream);
        }
        if (random() % 2 == 0) break;
        ASSERT_TRUE(
            core_->ReleaseLease(ranks[0].engine->session(), LeaseIdOf(held.back().number)).ok());
        held.pop_back();
    }
    ExpectConserved();
    EXPECT_EQ(Leases(), held.size());
  }
  EXPECT_GT(opened, 20U);
}

}  // namespace
}  // namespace kvasir::core::testing
