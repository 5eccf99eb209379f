// A core takes over what the one before has left: byte for byte, in place, and out of extents of
// which little is left.
#include <fcntl.h>

#include <chrono>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/handover/handover_fixture.h"

namespace kvasir::core::testing {
namespace {

using Kind = HandoverJob::Kind;

TEST_F(HandoverCoreTest, RowsAreWhatTheyWereWhereTheyWere) {
  uint32_t model = 0;
  FakeEngine& before = ConnectToHandover(1, &model);
  const std::vector<uint32_t> tokens = Tokens(203, 3);
  Store(before, model, "full", {tokens.begin(), tokens.begin() + 192});
  EXPECT_EQ(RunHandover()[Kind::kNote], 1);
  const uint64_t held = KeptBytes();
  const AdoptionCounts counts = NextLife();
  EXPECT_EQ(counts.prefixes, 1U);
  EXPECT_EQ(counts.dropped, 0U);
  EXPECT_GT(counts.bytes, 0U);
  EXPECT_EQ(PrefixesIn("handover"), 1U);
  EXPECT_EQ(KeptBytes(), held);

  FakeEngine& engine = ConnectToHandover(1, &model);
  absl::StatusOr<FakeEngine::Stream> stream = Attach(engine, model, "full", tokens);
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  EXPECT_EQ(stream->rows, 192U);
  EXPECT_EQ(PrefixesIn("handover"), 0U);
  EXPECT_EQ(PrefixesIn("memory"), 1U);
  EXPECT_EQ(KeptBytes(), held);  // nothing was copied
  absl::StatusOr<FakeEngine::Stream> reference = engine.Open(model, "full");
  ASSERT_TRUE(reference.ok()) << MessageOf(reference.status());
  WriteTokens(engine, *reference, {tokens.begin(), tokens.begin() + 192});
  for (uint64_t row = 192; row < tokens.size(); ++row) {
    Step(engine, *reference, tokens[row]);
    Step(engine, *stream, tokens[row]);
    ASSERT_FALSE(HasFatalFailure());
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      ASSERT_TRUE(engine.Seen(*stream, row, layer) == engine.Seen(*reference, row, layer)) << row;
    }
  }
  Close(engine, *stream);
  Close(engine, *reference);
  // Its record still says where it is.
  EXPECT_EQ(RunHandover(), (std::map<Kind, int>()));
  EXPECT_EQ(records_.size(), 1U);
}

TEST_F(HandoverCoreTest, PromptsThatBeginAlikeShareTheirGroups) {
  uint32_t model = 0;
  FakeEngine* engine = &ConnectToHandover(1, &model);
  const std::vector<uint32_t> stem = Tokens(320, 3);
  std::vector<std::vector<uint32_t>> prompts;
  for (uint32_t tail = 0; tail < 4; ++tail) {
    prompts.push_back(stem);
    for (const uint32_t token : Tokens(32, 10 + tail)) prompts.back().push_back(token);
    Store(*engine, model, "full", prompts.back());
  }
  RunHandover();
  const uint64_t held = KeptBytes();
  EXPECT_EQ(NextLife().prefixes, core_->PrefixReports().size());
  EXPECT_EQ(KeptBytes(), held);
  engine = &ConnectToHandover(1, &model);
  for (const std::vector<uint32_t>& prompt : prompts) {
    EXPECT_EQ(RowsAttached(*engine, model, "full", prompt), prompt.size());
  }
}

TEST_F(HandoverCoreTest, OthersFindNothing) {
  uint32_t model = 0;
  const std::vector<uint32_t> tokens = Tokens(203, 3);
  Store(ConnectToHandover(1, &model), 1, "full", tokens);
  RunHandover();
  NextLife();
  EXPECT_EQ(RowsAttached(ConnectToHandover(2, &model), 1, "full", tokens), 0U);
  ModelDescription other = RotatedModel();
  other.weights_digest = std::string(32, 'x');
  EXPECT_EQ(RowsAttached(ConnectToHandover(1, &model, other), 1, "full", tokens), 0U);
  EXPECT_EQ(RowsAttached(ConnectToHandover(1, &model), 1, "full", tokens, {}, "salt"), 0U);
  EXPECT_EQ(RowsAttached(ConnectToHandover(1, &model), 1, "full", tokens), 192U);
}

TEST_F(HandoverCoreTest, WhatIsCutOrGoneIsWrittenDownAnew) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectToHandover(1, &model);
  Store(engine, model, "full", Tokens(200, 3));
  EXPECT_EQ(RunHandover()[Kind::kNote], 1);
  EXPECT_EQ(RunHandover(), (std::map<Kind, int>()));
  // A longer one takes its place: written down before the other is struck out.
  const std::vector<uint32_t> tokens = Tokens(300, 3);
  Store(engine, model, "full", tokens);
  std::unique_ptr<HandoverJob> job = core_->TakeHandoverJob();
  ASSERT_EQ(job->kind, Kind::kNote);
  Run(*job);
  core_->FinishHandoverJob(std::move(job));
  EXPECT_EQ(records_.size(), 2U);
  EXPECT_EQ(RunHandover()[Kind::kForget], 1);
  EXPECT_EQ(records_.size(), 1U);
  ASSERT_TRUE((*core_->TenantOf({1}))->GivesUpPrefix());
  const bool is_cut = PrefixesIn("memory") == 1;
  const std::map<Kind, int> done = RunHandover();
  EXPECT_EQ(done.contains(Kind::kNote), is_cut);
  EXPECT_EQ(records_.size(), is_cut ? 1U : 0U);
  (void)core_->DropPrefixes("");
  EXPECT_EQ(RunHandover()[Kind::kForget], is_cut ? 1 : 0);
  EXPECT_TRUE(records_.empty());
}

TEST_F(HandoverCoreTest, WrongBytesAreAMissAndStruckOut) {
  uint32_t model = 0;
  const std::vector<uint32_t> tokens = Tokens(203, 3);
  Store(ConnectToHandover(1, &model), 1, "full", tokens);
  RunHandover();
  NextLife();
  std::unique_ptr<HandoverJob> job = core_->TakeHandoverJob();
  ASSERT_EQ(job->kind, Kind::kVerify);
  job->items[1].digest[0] ^= 1;
  Run(*job);
  EXPECT_EQ(job->status.code(), absl::StatusCode::kDataLoss);
  core_->FinishHandoverJob(std::move(job));
  EXPECT_TRUE(core_->PrefixReports().empty());
  EXPECT_EQ(RunHandover()[Kind::kForget], 1);
  EXPECT_TRUE(records_.empty());
  EXPECT_EQ(RowsAttached(ConnectToHandover(1, &model), 1, "full", tokens), 0U);
  EXPECT_EQ(FrozenExtents(), 0U);
  (void)core_->Settle();
  EXPECT_TRUE(kept_.empty());
}

TEST_F(HandoverCoreTest, AMissingExtentIsAMiss) {
  uint32_t model = 0;
  Store(ConnectToHandover(1, &model), 1, "full", Tokens(203, 3));
  RunHandover();
  kept_.erase(kept_.begin());
  const AdoptionCounts counts = NextLife();
  EXPECT_EQ(counts.prefixes, 0U);
  EXPECT_EQ(counts.dropped, 1U);
  EXPECT_EQ(counts.bytes, 0U);
  EXPECT_TRUE(kept_.empty());  // what is left of it is of no use
  EXPECT_EQ(RunHandover()[Kind::kForget], 1);
}

TEST_F(HandoverCoreTest, TheNewerOfTwoThatWantAGroupHasIt) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectToHandover(1, &model);
  const std::vector<uint32_t> gone = Tokens(96, 3), there = Tokens(96, 4);
  Store(engine, model, "full", Tokens(96, 5));  // which keeps their extents
  Store(engine, model, "full", gone);
  RunHandover();
  const auto old = records_;
  PrefixCache& cache = (*core_->TenantOf({1}))->prefixes;
  cache.DropEntry(cache.entries().rbegin()->first);
  Store(engine, model, "full", there);  // where the other lay
  RunHandover();
  ASSERT_EQ(records_.size(), 2U);
  records_.insert(old.begin(), old.end());  // as if the stroke had come too late
  ASSERT_EQ(records_.size(), 3U);
  const AdoptionCounts counts = NextLife();
  EXPECT_EQ(counts.prefixes, 2U);
  EXPECT_EQ(counts.dropped, 1U);
  FakeEngine& next = ConnectToHandover(1, &model);
  EXPECT_EQ(RowsAttached(next, model, "full", gone), 0U);
  EXPECT_EQ(RowsAttached(next, model, "full", there), 96U);
}

class RehomeTest : public HandoverCoreTest {
 protected:
  // Many short prompts side by side, taken over.
  void TakeOverMany() {
    FakeEngine& engine = ConnectToHandover(1, &model_);
    for (uint32_t i = 0; i < 24; ++i) {
      prompts_.push_back(Tokens(64, 100 + i));
      Store(engine, model_, "full", prompts_.back());
    }
    RunHandover();
    ASSERT_EQ(NextLife().prefixes, 24U);
    ASSERT_GT(FrozenExtents(), 1U);
  }
  // All but every fourth.
  void GiveUpMost() {
    RunHandover();
    ASSERT_EQ(PrefixesIn("memory"), 24U);
    PrefixCache& cache = (*core_->TenantOf({1}))->prefixes;
    std::vector<uint64_t> ids;
    for (const auto& [id, entry] : cache.entries()) ids.push_back(id);
    for (size_t i = 0; i < ids.size(); ++i) {
      if (i % 4 != 0) cache.DropEntry(ids[i]);
    }
    ExpectConserved();
  }

  uint32_t model_ = 0;
  std::vector<std::vector<uint32_t>> prompts_;
};

TEST_F(RehomeTest, FullExtentsStayWhereTheyAre) {
  ASSERT_NO_FATAL_FAILURE(TakeOverMany());
  const size_t frozen = FrozenExtents(), sparse = SparseExtents();
  EXPECT_LT(sparse, frozen);
  RunHandover();
  EXPECT_EQ(FrozenExtents(), frozen - sparse);
}

TEST_F(RehomeTest, LiveGroupsLeaveExtentsOfWhichLittleIsLeft) {
  ASSERT_NO_FATAL_FAILURE(TakeOverMany());
  ASSERT_NO_FATAL_FAILURE(GiveUpMost());
  const uint64_t charged = core_->TenantReports()[0].charged_bytes;
  EXPECT_GT(SparseExtents(), 0U);
  EXPECT_GT(RunHandover()[Kind::kRehome], 0);
  (void)core_->Settle();
  EXPECT_EQ(SparseExtents(), 0U);
  EXPECT_LT(core_->TenantReports()[0].charged_bytes, charged);
  EXPECT_EQ(records_.size(), 6U);
  // Right where they are now, and in the next life.
  for (int life = 0; life < 2; ++life) {
    FakeEngine& engine = ConnectToHandover(1, &model_);
    for (size_t i = 0; i < prompts_.size(); ++i) {
      EXPECT_EQ(RowsAttached(engine, model_, "full", prompts_[i]), i % 4 == 0 ? 64U : 0U) << i;
    }
    if (life == 0) {
      EXPECT_EQ(NextLife().prefixes, 6U);
    }
  }
}

TEST_F(RehomeTest, ASequenceKeepsWhatItReadsUntilItEnds) {
  ASSERT_NO_FATAL_FAILURE(TakeOverMany());
  RunHandover();
  FakeEngine& engine = ConnectToHandover(1, &model_);
  // Of all that will stay: each in its extent.
  std::vector<FakeEngine::Stream> streams;
  for (size_t i = 0; i < prompts_.size(); i += 4) {
    absl::StatusOr<FakeEngine::Stream> stream = Attach(engine, model_, "full", prompts_[i]);
    ASSERT_TRUE(stream.ok());
    streams.push_back(*std::move(stream));
  }
  ASSERT_NO_FATAL_FAILURE(GiveUpMost());
  RunHandover();
  EXPECT_GT(SparseExtents(), 0U);
  for (FakeEngine::Stream& stream : streams) {
    Step(engine, stream, 1);  // it still sees its rows
    Close(engine, stream);
  }
  ExpectConserved();
  EXPECT_EQ(SparseExtents(), 0U);
}

TEST_F(RehomeTest, WithoutRoomItWaits) {
  ASSERT_NO_FATAL_FAILURE(TakeOverMany());
  // Somebody else has all the rest of the pool.
  std::vector<std::unique_ptr<Extent>> others;
  for (uint64_t bytes = 64 * kKiB; bytes >= kPageBytes; bytes /= 2) {
    for (;;) {
      absl::StatusOr<std::unique_ptr<Extent>> extent = pool_->Take(bytes, ExtentUse::kKept);
      if (!extent.ok()) break;
      others.push_back(*std::move(extent));
    }
  }
  ASSERT_NO_FATAL_FAILURE(GiveUpMost());
  EXPECT_FALSE(RunHandover().contains(Kind::kRehome));
  EXPECT_EQ(PrefixesIn("memory"), 6U);  // nobody had to go for it
  for (std::unique_ptr<Extent>& extent : others) pool_->Return(std::move(extent));
  EXPECT_FALSE(RunHandover().contains(Kind::kRehome));
  core_->set_now(Instant{} + std::chrono::seconds(10));
  EXPECT_GT(RunHandover()[Kind::kRehome], 0);
  EXPECT_EQ(SparseExtents(), 0U);
}

TEST_F(RehomeTest, AGroupThatIsNotWhatItWasTakesItsPrefixWithIt) {
  ASSERT_NO_FATAL_FAILURE(TakeOverMany());
  ASSERT_NO_FATAL_FAILURE(GiveUpMost());
  std::unique_ptr<HandoverJob> job;
  while ((job = core_->TakeHandoverJob()) != nullptr && job->kind != Kind::kRehome) {
    Run(*job);
    core_->FinishHandoverJob(std::move(job));
  }
  ASSERT_NE(job, nullptr);
  job->items[0].at.kept->digest->at(0) ^= 1;
  Run(*job);
  EXPECT_EQ(job->status.code(), absl::StatusCode::kDataLoss);
  const size_t before = PrefixesIn("memory");
  core_->FinishHandoverJob(std::move(job));
  EXPECT_LT(PrefixesIn("memory"), before);
  ExpectConserved();
}

TEST_F(HandoverCoreTest, ATenantInNeedGivesUpWhatIsNotVerifiedYet) {
  uint32_t model = 0;
  FakeEngine& before = ConnectToHandover(1, &model);
  for (uint32_t i = 0; i < 12; ++i) Store(before, model, "full", Tokens(400, 50 + i));
  RunHandover();
  const uint64_t charged = core_->TenantReports()[0].charged_bytes;
  NextLife(charged + 64 * kKiB);
  const size_t there = PrefixesIn("handover");
  FakeEngine& engine = ConnectOwn(1, &model);  // nobody verifies
  Store(engine, model, "full", Tokens(400, 500));
  Store(engine, model, "full", Tokens(400, 501));
  EXPECT_LT(PrefixesIn("handover"), there);
  EXPECT_GT(PrefixesIn("memory"), 0U);
  const std::map<Kind, int> done = RunHandover();
  EXPECT_EQ(records_.size(), PrefixesIn("memory"));
  EXPECT_GT(done.at(Kind::kForget), 0);
}

}  // namespace
}  // namespace kvasir::core::testing
