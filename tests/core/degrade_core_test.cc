// Degrade before evict: in which order prefixes become smaller and go, who finds them, and what
// comes of a condensing that is cut short.
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/core/degrade_fixture.h"

#include <fmt/format.h>

namespace kvasir::core::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const std::vector<std::string> kLadder = {"full+int8",
                                          "sepllm:form=static,init_cache_size=2,local_size=17"};

// What the daemon holds of 400 rows: 25 groups of 8 KiB as written, 13 encoded, fewer compacted.
TEST_F(DegradeCoreTest, FullThenEncodedThenCompactedThenGone) {
  const std::vector<uint32_t> tokens = Text(400, 3);
  uint64_t held_before = UINT64_MAX;
  struct Stage {
    uint32_t high_percent;
    std::vector<std::string> forms;
    uint64_t condensings;
  };
  for (const Stage& stage :
       {Stage{12, {"full 400"}, 0}, Stage{8, {"full+int8 condensed from full 400"}, 1},
        Stage{5, {"sepllm condensed from full+int8 400"}, 2}, Stage{2, {}, 2}}) {
    StartWith(kLadder, stage.high_percent);
    uint32_t model = 0;
    FakeEngine& engine = ConnectOwn(1, &model);
    Store(engine, model, "full", tokens);
    ASSERT_FALSE(HasFatalFailure());
    RunJobs();
    ExpectConserved();
    EXPECT_EQ(Forms(), stage.forms);
    EXPECT_EQ(Counters().condensings, stage.condensings);
    EXPECT_EQ(Counters().condensing_failures, 0U);
    EXPECT_EQ(Counters().condensed_rows, 400 * stage.condensings);
    EXPECT_LT(HeldOf("a"), held_before);
    held_before = HeldOf("a");
    std::vector<std::string> told;
    for (const PrefixEvents::Event& event : core_->prefix_events().events()) {
      const char* const names[] = {"stored", "evicted", "superseded", "degraded"};
      told.push_back(names[static_cast<int>(event.cause)]);
    }
    if (stage.forms.empty()) {
      EXPECT_THAT(told,
                  ElementsAre("stored", "stored", "degraded", "stored", "degraded", "evicted"));
    } else {
      EXPECT_EQ(told.size(), 1 + 2 * stage.condensings);
    }
  }
}

TEST_F(DegradeCoreTest, ATenantWithoutALadderGivesNothingUpBetweenTheWatermarks) {
  StartWith(kLadder, 2);
  uint32_t model = 0;
  FakeEngine& engine = ConnectOwn(2, &model);
  Store(engine, model, "full", Text(400, 3));
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_EQ(core_->TakeJob(), nullptr);
  EXPECT_THAT(Forms("b"), ElementsAre("full 400"));
  StartWith({}, 2);
  FakeEngine& another = ConnectOwn(1, &model);
  Store(another, model, "full", Text(400, 3));
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_EQ(core_->TakeJob(), nullptr);
  EXPECT_THAT(Forms("a"), ElementsAre("full 400"));
  EXPECT_EQ(Counters().condensings, 0U);
}

TEST_F(DegradeCoreTest, WhoSaysHowGoodItMustBeFindsNoWorse) {
  uint32_t model = 0;
  const std::vector<uint32_t> tokens = Text(410, 3);  // found at 400, as the prefix was
  for (const uint32_t high_percent : {8U, 5U}) {
    StartWith(kLadder, high_percent);
    FakeEngine& engine = ConnectOwn(1, &model);
    Store(engine, model, "full", tokens);
    ASSERT_FALSE(HasFatalFailure());
    RunJobs();
    const auto rows = [&](std::optional<QualityClass> least, const char* retention) {
      return RowsAtLeast(engine, model, tokens, least, retention);
    };
    const bool quantised = high_percent == 8;
    for (const char* const retention : {"full", "full+int8", kLadder[1].c_str()}) {
      EXPECT_EQ(rows(std::nullopt, retention), 0U);
      EXPECT_EQ(rows(QualityClass::kFull, retention), 0U);
      EXPECT_EQ(rows(QualityClass::kQuantised, retention), quantised ? 400U : 0U);
      EXPECT_EQ(rows(QualityClass::kCompacted, retention), 400U);
    }
    const absl::StatusOr<PrefixScopes> scopes = core_->ScopesOf(engine.session(), model, "");
    const absl::StatusOr<PrefixKeys> keys = HashPrefix(*scopes, {tokens, {}, 0});
    const auto forms = core_->MatchPrefix(engine.session(), model, *keys);
    ASSERT_TRUE(forms.ok());
    ASSERT_EQ(forms->size(), 1U);
    EXPECT_EQ((*forms)[0].quality, quantised ? QualityClass::kQuantised : QualityClass::kCompacted);
  }
}

TEST_F(DegradeCoreTest, AMissSaysThatItWasDegradedAndNotEvicted) {
  StartWith(kLadder, 5);
  uint32_t model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  const std::vector<uint32_t> tokens = Text(400, 3);
  Store(engine, model, "full", tokens);
  ASSERT_FALSE(HasFatalFailure());
  RunJobs();
  const auto why = [&](const char* retention) {
    (void)RowsAttached(engine, model, retention, tokens);
    return core_->PrefixLookups("a")->back().why;
  };
  EXPECT_EQ(why("full").cause, MissCause::kDegraded);
  EXPECT_THAT(why("full").nearest, ::testing::HasSubstr("condensed from full+int8"));
  EXPECT_EQ(why("full").nearest_rows, 400U);
  // These were never there.
  EXPECT_EQ(why("full+int8").cause, MissCause::kForm);
  EXPECT_EQ(why(kLadder[1].c_str()).cause, MissCause::kForm);
  ASSERT_TRUE(core_->DropPrefixes("a").ok());
  EXPECT_EQ(why("full").cause, MissCause::kEvicted);
}

// Where somebody went on from an earlier row, others may: that beginning stays as it is.
TEST_F(DegradeCoreTest, TheBeginningThatOthersWentOnFromStays) {
  StartWith({kLadder[1]}, 12);
  uint32_t model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  const std::vector<uint32_t> tokens = Text(640, 3);
  std::vector<uint32_t> other(tokens.begin(), tokens.begin() + 100);
  for (const uint32_t token : Text(40, 8)) other.push_back(token);
  absl::StatusOr<FakeEngine::Stream> stream = Attach(engine, model, "full", tokens);
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  WriteTokens(engine, *stream, {tokens.begin(), tokens.begin() + 320});
  ASSERT_TRUE(Publish(engine, *stream).ok());
  EXPECT_EQ(RowsAttached(engine, model, "full", other), 96U);
  WriteTokens(engine, *stream, tokens);
  ASSERT_TRUE(Publish(engine, *stream).ok());
  Close(engine, *stream);
  Store(engine, model, "full", Text(16, 99));  // so that somebody looks again
  ASSERT_FALSE(HasFatalFailure());
  RunJobs();
  ExpectConserved();
  EXPECT_EQ(Counters().condensings, 1U);
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens), 96U);
  EXPECT_EQ(RowsAttached(engine, model, "full", other), 96U);
  EXPECT_EQ(RowsAtLeast(engine, model, tokens, QualityClass::kCompacted), 640U);
}

// What would not be smaller is not made; the next rung may be.
TEST_F(DegradeCoreTest, WhatWouldNotBeSmallerIsNotMade) {
  // Encoded, 48 rows take as much as they do now: none of them is old enough for a record.
  StartWith({"full+int8"}, 1);
  uint32_t model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  Store(engine, model, "full", Text(48, 3));
  ASSERT_FALSE(HasFatalFailure());
  RunJobs();
  ExpectConserved();
  EXPECT_EQ(Counters().condensings, 0U);
  EXPECT_EQ(Counters().condensing_failures, 1U);
  EXPECT_THAT(Forms(), IsEmpty());  // it was given up as it was
  StartWith({"full+int8", "streamingllm:start_size=2,recent_size=4"}, 1);
  FakeEngine& another = ConnectOwn(1, &model);
  Store(another, model, "full", Text(48, 3));
  ASSERT_FALSE(HasFatalFailure());
  RunJobs();
  ExpectConserved();
  EXPECT_EQ(Counters().condensings, 1U);
  EXPECT_EQ(Counters().condensing_failures, 1U);
}

class AnyEviction : public DegradeCoreTest, public ::testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(All, AnyEviction,
                         ::testing::Values("lru", "return-hazard", "arc", "s3-fifo"));

// Conversations that go on, fork and are asked for again, in memory that is always short, with jobs
// that are run in parts and put back: exact forms stay exact, and the books right.
TEST_P(AnyEviction, KeepsExactFormsExactInAnyTiming) {
  const uint64_t seed = TestSeed(1);
  std::mt19937_64 random(seed);
  SCOPED_TRACE(fmt::format("KVASIR_SEED={}", seed));
  eviction_ = GetParam();
  StartWith(kLadder, 12);
  uint32_t model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  std::vector<std::vector<uint32_t>> conversations(6, Text(90, 1));
  uint64_t worse = 0;
  for (uint32_t round = 0; round < 120; ++round) {
    std::vector<uint32_t>& tokens = conversations[random() % conversations.size()];
    if (tokens.size() > 400) tokens.resize(90);
    for (const uint32_t token : Text(16 + random() % 60, round)) tokens.push_back(token);
    const bool any = random() % 2 == 0;
    OpenRequest request;
    request.model_id = model;
    request.retention = "full";
    if (any) request.least_quality = QualityClass::kCompacted;
    absl::StatusOr<FakeEngine::Stream> stream = engine.Attach(request, "", {tokens, {}, 0});
    ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
    while (engine.Opening(*stream)) {
      std::unique_ptr<SequenceJob> job = core_->TakeJob();
      ASSERT_NE(job, nullptr);
      core::Run(*job);
      core_->FinishJob(std::move(job));
    }
    ExpectConserved();
    const Sequence& sequence = *core_->OpenedSequence(engine.session(), stream->id);
    const bool exact = sequence.identity().retention == "full";
    worse += exact ? 0 : 1;
    ASSERT_TRUE(exact || any);
    ASSERT_EQ(sequence.identity().condensed_from.empty(), exact);
    while (stream->rows < tokens.size() && !HasFatalFailure()) {
      Step(engine, *stream, tokens[stream->rows], /*jobs_at_once=*/false);
      if (random() % 3 != 0) continue;
      if (std::unique_ptr<SequenceJob> job = core_->TakeJob()) {
        if (RunPart(*job)) {
          (void)core_->PutBackJob(std::move(job));
        } else {
          core_->FinishJob(std::move(job));
        }
      }
    }
    if (HasFatalFailure()) return;
    if (exact) {
      const auto seen = engine.Seen(*stream, stream->rows - 1, 1);
      absl::StatusOr<FakeEngine::Stream> reference = engine.Open(model, "full");
      ASSERT_TRUE(reference.ok());
      WriteTokens(engine, *reference, tokens);
      ASSERT_TRUE(seen == engine.Seen(*reference, reference->rows - 1, 1)) << "round " << round;
      Close(engine, *reference);
    }
    if (random() % 8 != 0) {
      const absl::Status published = Publish(engine, *stream);
      ASSERT_TRUE(published.ok()) << MessageOf(published);
    }
    Close(engine, *stream);
    if (random() % 2 == 0) RunJobs();
    ExpectConserved();
  }
  fmt::print("{}: {} condensings, {} given up, {} gone on from\n", GetParam(),
             Counters().condensings, Counters().condensing_failures, worse);
  EXPECT_GT(worse, 3U);
  EXPECT_GT(Counters().condensings, 5U);
}

}  // namespace
}  // namespace kvasir::core::testing
