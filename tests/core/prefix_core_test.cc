// Whoever goes on from a cached prefix sees what it would have computed, byte for byte; and nobody
// goes on from what is not its own.
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/core/prefix_fixture.h"

#include <fmt/format.h>

namespace kvasir::core::testing {
namespace {

class EveryShareable : public PrefixCoreTest, public ::testing::WithParamInterface<const char*> {};

INSTANTIATE_TEST_SUITE_P(
    All, EveryShareable,
    ::testing::Values("full", "full:positions=unrotated", "full+int8:rows=32,recent=5",
                      "window:size=24", "sinks:size=3|separators|window:size=20",
                      "streamingllm:start_size=3,recent_size=10,positions=original",
                      "streamingllm:start_size=4,recent_size=40",
                      "streamingllm:start_size=3,recent_size=90,positions=original+int8:rows=32",
                      "sepllm:form=static,init_cache_size=4,local_size=33",
                      "sepllm:form=sepcache,init_cache_size=4,sep_cache_size=8,local_size=16,"
                      "cache_size=48",
                      "fixllm:init_cache_size=4,local_size=16,delta=5",
                      "knorm:max_capacity=24,recent_size=3"));

// Prompts that have beginnings in common, in small memory; each is compared with a stream that
// computes everything itself, in a core of its own.
TEST_P(EveryShareable, GoesOnAsIfEverythingHadBeenComputed) {
  const uint64_t seed = TestSeed(1);
  std::mt19937_64 random(seed);
  SCOPED_TRACE(fmt::format("KVASIR_SEED={}", seed));
  Start(1500 * kKiB);
  uint32_t model = 0, second_model = 0;
  FakeEngine& first = ConnectOwn(1, &model);
  FakeEngine& second = ConnectOwn(1, &second_model);
  const std::vector<uint32_t> stem = Tokens(400, 1);
  uint64_t hits = 0, rows_attached = 0;
  for (int round = 0; round < 60; ++round) {
    FakeEngine& engine = round % 2 == 0 ? first : second;
    const uint32_t own_model = round % 2 == 0 ? model : second_model;
    const uint64_t common = random() % 200;
    std::vector<uint32_t> tokens(stem.begin(), stem.begin() + static_cast<ptrdiff_t>(common));
    const uint32_t tail = static_cast<uint32_t>(random() % 5);
    for (const uint32_t token : Tokens(20 + random() % 40, 100 + tail)) tokens.push_back(token);
    absl::StatusOr<FakeEngine::Stream> stream = Attach(engine, own_model, GetParam(), tokens);
    ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
    ExpectConserved();
    hits += stream->rows > 0 ? 1 : 0;
    rows_attached += stream->rows;
    absl::StatusOr<FakeEngine::Stream> reference = engine.Open(own_model, GetParam());
    ASSERT_TRUE(reference.ok()) << MessageOf(reference.status());
    const uint64_t from = stream->rows;
    WriteTokens(engine, *reference,
                {tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(from)});
    for (uint64_t row = from; row < tokens.size(); ++row) {
      Step(engine, *reference, tokens[row]);
      Step(engine, *stream, tokens[row]);
      if (HasFatalFailure()) return;
      ASSERT_TRUE(engine.Seen(*stream, row, 1) == engine.Seen(*reference, row, 1))
          << "round " << round << " from " << from << " row " << row;
      if (random() % 40 == 0) {
        const absl::Status published = Publish(engine, *stream);
        ASSERT_TRUE(published.ok() || row < 15) << MessageOf(published);
        ExpectConserved();
      }
    }
    if (random() % 4 != 0) {
      const absl::Status published = Publish(engine, *stream);
      ASSERT_TRUE(published.ok()) << MessageOf(published);
    }
    Close(engine, *stream);
    Close(engine, *reference);
    ExpectConserved();
  }
  EXPECT_GT(hits, 5U);
  EXPECT_GT(rows_attached, 400U);
}

TEST_F(PrefixCoreTest, TheLongestIsFoundAtAnyChunkWhereEveryRowStays) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  const std::vector<uint32_t> tokens = Tokens(203, 3);
  Store(engine, model, "full", tokens);
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens), 192U);
  for (const uint64_t changed : {0U, 15U, 16U, 100U, 190U}) {
    std::vector<uint32_t> other = tokens;
    other[changed] ^= 9;
    EXPECT_EQ(RowsAttached(engine, model, "full", other), changed / 16 * 16) << changed;
  }
  EXPECT_EQ(RowsAttached(engine, model, "full", {tokens.begin(), tokens.begin() + 50}), 48U);
  // A longer one takes its place.
  std::vector<uint32_t> longer = tokens;
  for (const uint32_t token : Tokens(60, 4)) longer.push_back(token);
  Store(engine, model, "full", longer);
  EXPECT_EQ(RowsAttached(engine, model, "full", longer), 256U);
  EXPECT_EQ(core_->TenantReports()[0].prefixes, 1U);
}

// What drops rows can be gone on from where it was published, to the row.
TEST_F(PrefixCoreTest, ACompactedPrefixIsFoundAtItsOwnRow) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  const char* retention = "streamingllm:start_size=4,recent_size=40";
  const std::vector<uint32_t> tokens = Tokens(150, 3);
  Store(engine, model, retention, {tokens.begin(), tokens.begin() + 96});
  Store(engine, model, retention, {tokens.begin(), tokens.begin() + 101});
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_EQ(RowsAttached(engine, model, retention, tokens), 101U);
  EXPECT_EQ(RowsAttached(engine, model, retention, {tokens.begin(), tokens.begin() + 100}), 96U);
  EXPECT_EQ(RowsAttached(engine, model, retention, {tokens.begin(), tokens.begin() + 95}), 0U);
  std::vector<uint32_t> other = tokens;
  other[100] ^= 9;
  EXPECT_EQ(RowsAttached(engine, model, retention, other), 96U);
}

TEST_F(PrefixCoreTest, NothingIsFoundAcrossWhatRowsDependOn) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  const std::vector<uint32_t> tokens = Tokens(64, 3);
  const std::vector<TokenExtra> image = {{20, "digest of an image"}};
  Store(engine, model, "full", tokens, image, "salt");
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens, image, "salt"), 64U);
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens, image, "other"), 0U);
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens, {{20, "another image"}}, "salt"), 16U);
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens, {{21, "digest of an image"}}, "salt"), 16U);
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens, {}, "salt"), 16U);
  EXPECT_EQ(RowsAttached(engine, model, "full:positions=unrotated", tokens, image, "salt"), 0U);
  using Change = void (*)(ModelDescription&);
  const std::vector<Change> changes = {
      [](ModelDescription& m) { m.weights_digest[0] ^= 1; },
      [](ModelDescription& m) { m.adapter_digests = {m.weights_digest}; },
      [](ModelDescription& m) { m.dtype = kernels::RowType::kBF16; },
      [](ModelDescription& m) { m.rope.theta = 5000; },
      [](ModelDescription& m) { m.separators = {1}; }};
  for (const Change& change : changes) {
    ModelDescription description = RotatedModel();
    change(description);
    uint32_t other_model = 0;
    FakeEngine& other = ConnectOwn(1, &other_model, description);
    EXPECT_EQ(RowsAttached(other, other_model, "full", tokens, image, "salt"), 0U);
  }
  uint32_t others_model = 0;
  FakeEngine& stranger = ConnectOwn(2, &others_model);
  EXPECT_EQ(RowsAttached(stranger, others_model, "full", tokens, image, "salt"), 0U);
}

TEST_F(PrefixCoreTest, WhatDependsOnThePromptsEndIsSharedForThatPromptAlone) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  const std::vector<uint32_t> tokens = Tokens(90, 3);
  OpenRequest request;
  request.model_id = model;
  request.retention = "sepllm:form=static,init_cache_size=4,local_size=16,prefill_local_size=40";
  request.prompt_rows = 80;
  absl::StatusOr<FakeEngine::Stream> stream = engine.Attach(request, "", {tokens, {}, 0});
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  WriteTokens(engine, *stream, tokens);
  ASSERT_TRUE(Publish(engine, *stream).ok());
  for (const uint64_t prompt_rows : {80U, 81U}) {
    request.prompt_rows = prompt_rows;
    absl::StatusOr<FakeEngine::Stream> other = engine.Attach(request, "", {tokens, {}, 0});
    ASSERT_TRUE(other.ok()) << MessageOf(other.status());
    EXPECT_EQ(other->rows, prompt_rows == 80 ? 90U : 0U);
    RunJobs();
  }
}

TEST_F(PrefixCoreTest, WhatAPublicTenantPublishesIsEverybodys) {
  uint32_t librarys_model = 0, model = 0;
  FakeEngine& library = ConnectOwn(3, &librarys_model);
  FakeEngine& engine = ConnectOwn(1, &model);
  const std::vector<uint32_t> tokens = Tokens(160, 3);
  std::vector<uint32_t> longer = tokens;
  for (const uint32_t token : Tokens(60, 4)) longer.push_back(token);
  Store(library, librarys_model, "full", tokens);
  ASSERT_FALSE(HasFatalFailure());
  core_->EndSession(library.session_id());
  const uint64_t before = core_->TenantReports()[0].held_bytes;
  absl::StatusOr<FakeEngine::Stream> stream = Attach(engine, model, "full", longer);
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  EXPECT_EQ(stream->rows, 160U);
  EXPECT_LE(core_->TenantReports()[0].held_bytes - before, 2 * stream->block.bytes);
  ExpectConserved();
  WriteTokens(engine, *stream, longer);
  ASSERT_TRUE(Publish(engine, *stream).ok());  // its own rows, and the public ones in them
  ExpectConserved();
  ASSERT_TRUE(core_->DropPrefixes("library").ok());
  ExpectConserved();
  absl::StatusOr<FakeEngine::Stream> again = Attach(engine, model, "full", longer);
  ASSERT_TRUE(again.ok()) << MessageOf(again.status());
  EXPECT_EQ(again->rows, 208U);
  EXPECT_TRUE(engine.Seen(*again, 207, 1).size() == 208U);
  uint32_t librarys_new_model = 0;
  FakeEngine& reader = ConnectOwn(3, &librarys_new_model);  // not the other way round
  EXPECT_EQ(RowsAttached(reader, librarys_new_model, "full", longer), 0U);
}

TEST_F(PrefixCoreTest, AnotherFormIsTakenWhereItIsGoodEnoughAndLonger) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  const std::vector<uint32_t> tokens = Tokens(200, 3);
  Store(engine, model, "full", {tokens.begin(), tokens.begin() + 64});
  Store(engine, model, "full+int8:rows=32", {tokens.begin(), tokens.begin() + 128});
  Store(engine, model, "streamingllm:start_size=4,recent_size=40", tokens);
  ASSERT_FALSE(HasFatalFailure());
  const auto attached = [&](std::optional<QualityClass> least) {
    OpenRequest request;
    request.model_id = model;
    request.retention = "full";
    request.least_quality = least;
    absl::StatusOr<FakeEngine::Stream> stream = engine.Attach(request, "", {tokens, {}, 0});
    EXPECT_TRUE(stream.ok()) << MessageOf(stream.status());
    RunJobs();
    return stream.ok() ? stream->rows : 0;
  };
  EXPECT_EQ(attached(std::nullopt), 64U);
  EXPECT_EQ(attached(QualityClass::kFull), 64U);
  EXPECT_EQ(attached(QualityClass::kQuantised), 128U);
  EXPECT_EQ(attached(QualityClass::kCompacted), 200U);
  const absl::StatusOr<PrefixScopes> scopes = core_->ScopesOf(engine.session(), model, "");
  const absl::StatusOr<PrefixKeys> keys = HashPrefix(*scopes, {tokens, {}, 0});
  ASSERT_TRUE(keys.ok());
  const auto forms = core_->MatchPrefix(engine.session(), model, *keys);
  ASSERT_TRUE(forms.ok());
  ASSERT_EQ(forms->size(), 3U);
  EXPECT_EQ((*forms)[0].quality, QualityClass::kCompacted);
  EXPECT_EQ((*forms)[1].quality, QualityClass::kQuantised);
  EXPECT_EQ((*forms)[2].quality, QualityClass::kFull);
}

}  // namespace
}  // namespace kvasir::core::testing
