// Prefixes make room, misses have reasons, and what cannot be published says why.
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/core/prefix_fixture.h"

namespace kvasir::core::testing {
namespace {

// A sequence in need of memory takes that of prefixes, from their ends; events say so.
TEST_F(PrefixCoreTest, PrefixesMakeRoomFromTheirEnds) {
  Start(600 * kKiB);
  uint32_t model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  const std::vector<uint32_t> tokens = Tokens(320, 3);
  Store(engine, model, "full", tokens);
  ASSERT_FALSE(HasFatalFailure());
  absl::StatusOr<FakeEngine::Stream> stream = engine.Open(model, "full");
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  uint64_t shortest = 320;
  absl::Status status;
  while (status.ok() && stream->rows < 4000) {
    while (engine.Writable(*stream) > 0) engine.WriteRow(*stream, 3);
    engine.WriteDesk(*stream);
    status = engine.Sync(*stream, stream->rows + 1, stream->rows).status;
    ExpectConserved();
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(core_->TenantReports()[0].prefixes, 0U);
  uint64_t stored = 0, removed = 0;
  for (const PrefixEvents::Event& event : core_->prefix_events().events()) {
    EXPECT_EQ(event.change.tenant, "a");
    if (event.cause == RemovalCause::kNone) {
      stored += event.change.keys.size();
      continue;
    }
    EXPECT_EQ(event.cause, RemovalCause::kEvicted);
    EXPECT_LE(event.change.rows, shortest);
    shortest = event.change.rows;
    ++removed;
  }
  EXPECT_EQ(stored, 20U);
  EXPECT_GE(removed, 2U);
}

TEST(PrefixEventsTest, TheNewestAreKeptAsFarAsTheirBoundsAllow) {
  PrefixEvents events(4);
  for (uint64_t entry = 1; entry <= 6; ++entry)
    events.Stored({"a", "full", 16, {{}}, entry, "memory"});
  ASSERT_EQ(events.events().size(), 4U);
  EXPECT_EQ(events.events().front().number, 3U);
  EXPECT_EQ(events.next_number(), 7U);
  const std::vector<ChainKey> many(1 << 20);
  events.Removed({"a", "full", 0, many, 9, "memory"}, RemovalCause::kEvicted);
  ASSERT_EQ(events.events().size(), 1U);  // one is kept, however large
  EXPECT_EQ(events.events().front().change.keys.size(), many.size());
  events.Stored({"a", "full", 16, {{}}, 10, "memory"});
  ASSERT_EQ(events.events().size(), 1U);
  EXPECT_EQ(events.events().front().number, 8U);
}

TEST_F(PrefixCoreTest, EveryMissHasItsReason) {
  uint32_t model = 0, other_model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  ModelDescription description = RotatedModel();
  description.weights_digest[0] ^= 1;
  FakeEngine& other = ConnectOwn(1, &other_model, description);
  const std::vector<uint32_t> tokens = Tokens(100, 3);
  const std::vector<TokenExtra> image = {{40, "an image"}};
  const char* compacted = "streamingllm:start_size=4,recent_size=40";
  Store(engine, model, "full", tokens, image, "salt");
  Store(engine, model, compacted, {tokens.begin(), tokens.begin() + 99}, image, "salt");
  ASSERT_FALSE(HasFatalFailure());
  std::vector<uint32_t> changed = tokens;
  changed[70] ^= 9;
  const auto why = [&] {
    const auto lookups = core_->PrefixLookups("a");
    return lookups.ok() && !lookups->empty() ? lookups->back().why : PrefixExplanation();
  };
  (void)RowsAttached(engine, model, "full", tokens, image, "salt");
  EXPECT_EQ(why().cause, MissCause::kNone);
  (void)RowsAttached(engine, model, "full", changed, image, "salt");
  EXPECT_EQ(why().cause, MissCause::kToken);
  EXPECT_EQ(why().row, 70U);
  (void)RowsAttached(engine, model, "full", tokens, {{40, "another"}}, "salt");
  EXPECT_EQ(why().cause, MissCause::kExtra);
  (void)RowsAttached(engine, model, "full", tokens, image, "pepper");
  EXPECT_EQ(why().cause, MissCause::kSalt);
  (void)RowsAttached(other, other_model, "full", tokens, image, "salt");
  EXPECT_EQ(why().cause, MissCause::kModel);
  (void)RowsAttached(engine, model, "window:size=24", tokens, image, "salt");
  EXPECT_EQ(why().cause, MissCause::kForm);
  (void)RowsAttached(engine, model, compacted, {tokens.begin(), tokens.begin() + 80}, image,
                     "salt");
  EXPECT_EQ(why().cause, MissCause::kBorder);
  EXPECT_EQ(why().nearest_rows, 99U);
  (void)RowsAttached(engine, model, "full", Tokens(100, 4), image, "salt");
  EXPECT_EQ(why().cause, MissCause::kToken);
  ASSERT_TRUE(core_->DropPrefixes("a").ok());
  (void)RowsAttached(engine, model, "full", tokens, image, "salt");
  EXPECT_EQ(why().cause, MissCause::kEvicted);
  (void)RowsAttached(engine, model, "full", Tokens(100, 4), image, "salt");
  EXPECT_EQ(why().cause, MissCause::kNotStored);
}

TEST_F(PrefixCoreTest, WhatCannotBePublishedSaysWhy) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  const std::vector<uint32_t> tokens = Tokens(40, 3);
  absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, 40);
  ASSERT_TRUE(stream.ok());
  EXPECT_EQ(Publish(engine, *stream).code(), absl::StatusCode::kFailedPrecondition);
  absl::StatusOr<FakeEngine::Stream> few = Attach(engine, model, "full", tokens);
  ASSERT_TRUE(few.ok());
  WriteTokens(engine, *few, {tokens.begin(), tokens.begin() + 15});
  EXPECT_EQ(Publish(engine, *few).code(), absl::StatusCode::kFailedPrecondition);
  absl::StatusOr<FakeEngine::Stream> queries =
      Attach(engine, model, "gemfilter:filter_layer=1,topk=5", tokens);
  ASSERT_TRUE(queries.ok()) << MessageOf(queries.status());
  WriteTokens(engine, *queries, tokens);
  EXPECT_EQ(Publish(engine, *queries).code(), absl::StatusCode::kFailedPrecondition);
  const absl::StatusOr<PrefixScopes> scopes = core_->ScopesOf(engine.session(), model, "");
  EXPECT_EQ(HashPrefix(*scopes, {{5, 100}, {}, 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  const std::vector<uint32_t> too_many(kPrefixTokensMax + 1, 5);
  EXPECT_EQ(HashPrefix(*scopes, {too_many, {}, 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(HashPrefix(*scopes, {{5}, {{3, ""}}, 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(HashPrefix(*scopes, {{5}, {{3, "x"}, {3, "y"}}, 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(core_->ScopesOf(engine.session(), model, std::string(257, 's')).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kvasir::core::testing
