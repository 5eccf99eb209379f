// A prefix that has been in a tier is what it was, byte for byte; whatever is wrong there is a
// miss.
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/store/store_fixture.h"

#include <fmt/format.h>

namespace kvasir::core::testing {
namespace {

TEST_F(StoreTest, WhatWasWrittenDownComesBackByteForByte) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectToTiers(1, &model);
  const std::vector<uint32_t> tokens = Tokens(203, 3);
  Store(engine, model, "full", tokens);
  ASSERT_FALSE(HasFatalFailure());
  Drain();
  EXPECT_EQ(Report().prefixes, 1U);
  EXPECT_EQ(Report().counters.stores, 1U);
  ForgetMemory();
  EXPECT_EQ(core_->TenantReports()[0].prefixes, 0U);

  absl::StatusOr<FakeEngine::Stream> stream = Attach(engine, model, "full", tokens);
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  EXPECT_EQ(stream->rows, 192U);
  EXPECT_EQ(Report().counters.loads, 1U);
  EXPECT_EQ(Report().counters.load_rows, 192U);
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
  // In memory again, it is attached without the tier.
  engine.run_tiers = nullptr;
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens), 192U);
}

TEST_F(StoreTest, AShorterPromptLoadsNoMoreThanItNeeds) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectToTiers(1, &model);
  const std::vector<uint32_t> tokens = Tokens(400, 3);
  Store(engine, model, "full", tokens);
  Drain();
  ForgetMemory();
  EXPECT_EQ(RowsAttached(engine, model, "full", {tokens.begin(), tokens.begin() + 100}), 96U);
  EXPECT_EQ(Report().counters.load_rows, 96U);
  // The rest comes when it is asked for.
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens), 400U);
  EXPECT_EQ(Report().counters.load_rows, 496U);
}

TEST_F(StoreTest, GroupsThatPrefixesShareLieThereOnce) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectToTiers(1, &model);
  const std::vector<uint32_t> stem = Tokens(320, 3);
  Store(engine, model, "full", stem);
  Drain();
  const uint64_t bytes = Report().stored_bytes;
  for (uint32_t tail = 0; tail < 4; ++tail) {
    std::vector<uint32_t> tokens = stem;
    for (const uint32_t token : Tokens(32, 10 + tail)) tokens.push_back(token);
    Store(engine, model, "full", tokens);
  }
  Drain();
  EXPECT_GT(Report().prefixes, 1U);
  EXPECT_LT(Report().stored_bytes, 2 * bytes);
}

TEST_F(StoreTest, AnotherTenantOrModelFindsNothing) {
  uint32_t model = 0, other_model = 0, other_weights = 0;
  FakeEngine& engine = ConnectToTiers(1, &model);
  const std::vector<uint32_t> tokens = Tokens(203, 3);
  Store(engine, model, "full", tokens);
  Drain();
  ForgetMemory();
  FakeEngine& other = ConnectToTiers(2, &other_model);
  EXPECT_EQ(RowsAttached(other, other_model, "full", tokens), 0U);
  ModelDescription description = RotatedModel();
  description.weights_digest = std::string(32, 'x');
  FakeEngine& weights = ConnectToTiers(1, &other_weights, description);
  EXPECT_EQ(RowsAttached(weights, other_weights, "full", tokens), 0U);
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens, {}, "salt"), 0U);
  EXPECT_EQ(RowsAttached(engine, model, "full:positions=unrotated", tokens), 0U);
  EXPECT_EQ(Report().counters.loads, 0U);
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens), 192U);
}

TEST_F(StoreTest, WhatIsMissingThereIsAMissOnce) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectToTiers(1, &model);
  const std::vector<uint32_t> tokens = Tokens(203, 3);
  Store(engine, model, "full", tokens);
  Drain();
  ForgetMemory();
  std::vector<TierKey> keys;
  ASSERT_TRUE(tier_
                  ->ForEach([&](const TierKey& key, uint64_t) {
                    if (!IsManifest(key)) keys.push_back(key);
                  })
                  .ok());
  ASSERT_FALSE(keys.empty());
  ASSERT_TRUE(tier_->Erase(std::span(keys).first(1)).ok());
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens), 0U);
  EXPECT_EQ(Report().counters.load_failures, 1U);
  EXPECT_EQ(Report().prefixes, 0U);
  // Nothing of it is left there.
  RunTiers();
  EXPECT_EQ(Report().stored_bytes, 0U);
  EXPECT_EQ(*tier_->Stats().blocks, 0U);
}

TEST_F(StoreTest, ComputingIsChosenWhereItIsFaster) {
  uint32_t model = 0, fast_model = 0;
  FakeEngine& engine = ConnectToTiers(1, &model);
  const std::vector<uint32_t> tokens = Tokens(203, 3), others = Tokens(203, 4);
  Store(engine, model, "full", tokens);
  Store(engine, model, "full", others);
  Drain();
  ForgetMemory();
  ModelDescription fast = RotatedModel();
  fast.prefill_rows_per_s = 1e12;
  FakeEngine& computing = ConnectToTiers(1, &fast_model, fast);
  // Before anything was measured it is tried.
  EXPECT_EQ(RowsAttached(computing, fast_model, "full", tokens), 192U);
  EXPECT_EQ(RowsAttached(computing, fast_model, "full", others), 0U);
  EXPECT_EQ(Report().counters.loads_declined, 1U);
  EXPECT_EQ(RowsAttached(engine, model, "full", others), 192U);
}

TEST_F(StoreTest, WhoDoesNotWaitComputesAndTheNextOneFinds) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectToTiers(1, &model);
  const std::vector<uint32_t> tokens = Tokens(203, 3);
  Store(engine, model, "full", tokens);
  Drain();
  ForgetMemory();
  engine.waits_for_tiers = false;
  for (uint64_t times = 1; times <= 2; ++times) {  // the second joins the load of the first
    EXPECT_EQ(RowsAttached(engine, model, "full", tokens), 0U);
    EXPECT_EQ(Report().counters.loads_declined, times);
  }
  EXPECT_EQ(Report().counters.loads, 0U);
  EXPECT_EQ(RunTiers(), 1U);
  EXPECT_EQ(Report().counters.loads, 1U);
  EXPECT_EQ(RowsAttached(engine, model, "full", tokens), 192U);
  EXPECT_EQ(Report().counters.loads_declined, 2U);
}

TEST_F(StoreTest, AboveTheHighWatermarkWhatWasUsedTwiceGoesDownUntilTheLowOne) {
  high_percent_ = 50;
  low_percent_ = 20;
  Restart(1 * kMiB);
  uint32_t model = 0;
  FakeEngine& engine = ConnectToTiers(1, &model);
  std::vector<std::vector<uint32_t>> prompts;
  Tenant& tenant = **core_->TenantOf({1});
  for (uint32_t i = 0; tenant.kept_bytes() < tenant.config.limit_bytes / 100 * 50; ++i) {
    ASSERT_LT(i, 100U);
    prompts.push_back(Tokens(320, 100 + i));
    Store(engine, model, "full", prompts.back());
    ASSERT_FALSE(HasFatalFailure());
    if (i % 2 == 0) {
      EXPECT_EQ(RowsAttached(engine, model, "full", prompts.back()), 320U);
    }
    if (tenant.kept_bytes() < tenant.config.limit_bytes / 100 * 50) {
      EXPECT_EQ(RunTiers(), 0U) << "nothing goes down below the watermark";
    }
  }
  EXPECT_GT(RunTiers(), 0U);
  EXPECT_LT(tenant.kept_bytes(), tenant.config.limit_bytes / 100 * 20);
  EXPECT_EQ(Report().prefixes, (prompts.size() + 1) / 2);
  for (size_t i = 0; i < prompts.size(); i += 2) {
    EXPECT_EQ(RowsAttached(engine, model, "full", prompts[i]), 320U) << i;
  }
}

TEST_F(StoreTest, ATierOfATenantHasABoundAndTheOldGoesFirst) {
  stored_bytes_ = 128 * kKiB;
  Restart(6 * kMiB);
  uint32_t model = 0;
  FakeEngine& engine = ConnectToTiers(1, &model);
  for (uint32_t i = 0; i < 20; ++i) {
    Store(engine, model, "full", Tokens(200, 100 + i));
    Drain();
    EXPECT_LE(Report().stored_bytes, stored_bytes_);
  }
  EXPECT_GT(Report().prefixes, 0U);
  uint64_t blocks = 0;
  ASSERT_TRUE(tier_
                  ->ForEach([&](const TierKey& key, uint64_t) {
                    ++blocks;
                    EXPECT_TRUE(core_->NamesStored(0, key));
                  })
                  .ok());
  EXPECT_GT(blocks, 0U);
}

TEST_F(StoreTest, AnOperatorForgetsWhatIsStoredAsWell) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectToTiers(1, &model);
  Store(engine, model, "full", Tokens(203, 3));
  Drain();
  EXPECT_EQ(*core_->DropPrefixes("a"), 2U);  // in memory and there
  RunTiers();
  EXPECT_EQ(*tier_->Stats().blocks, 0U);
  EXPECT_EQ(RowsAttached(engine, model, "full", Tokens(203, 3)), 0U);
}

TEST_F(StoreTest, EveryFormGoesDown) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectToTiers(1, &model);
  Store(engine, model, "full", Tokens(203, 3));
  Store(engine, model, "window:size=24", Tokens(160, 4));
  Store(engine, model, "full+int8:rows=32,recent=5", Tokens(160, 5));
  Drain();
  EXPECT_EQ(core_->DrainStateOf("").stored, 3U);
  EXPECT_EQ(core_->DrainStateOf("").memory_only, 0U);
  EXPECT_EQ(core_->StartDrain("nobody").code(), absl::StatusCode::kNotFound);
}

// Random prompts in memory for a few of them, beside a tier for all.
TEST_F(StoreTest, GoesOnAsIfEverythingHadBeenComputed) {
  const uint64_t seed = TestSeed(1);
  std::mt19937_64 random(seed);
  SCOPED_TRACE(fmt::format("KVASIR_SEED={}", seed));
  high_percent_ = 40;
  low_percent_ = 10;
  stored_bytes_ = 1 * kMiB;
  Restart(1500 * kKiB);
  uint32_t model = 0;
  FakeEngine& engine = ConnectToTiers(1, &model);
  const std::vector<uint32_t> stem = Tokens(400, 1);
  for (int round = 0; round < 60; ++round) {
    const uint64_t common = random() % 400;
    std::vector<uint32_t> tokens(stem.begin(), stem.begin() + static_cast<ptrdiff_t>(common));
    const auto tail = static_cast<uint32_t>(random() % 5);
    for (const uint32_t token : Tokens(20 + random() % 40, 100 + tail)) tokens.push_back(token);
    if (random() % 3 == 0) ForgetMemory();
    absl::StatusOr<FakeEngine::Stream> stream = Attach(engine, model, "full", tokens);
    ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
    absl::StatusOr<FakeEngine::Stream> reference = engine.Open(model, "full");
    ASSERT_TRUE(reference.ok()) << MessageOf(reference.status());
    const uint64_t from = stream->rows;
    WriteTokens(engine, *reference,
                {tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(from)});
    for (uint64_t row = from; row < tokens.size(); ++row) {
      Step(engine, *reference, tokens[row]);
      Step(engine, *stream, tokens[row]);
      if (HasFatalFailure()) return;
    }
    if (from < tokens.size()) {
      const uint64_t last = tokens.size() - 1;
      ASSERT_TRUE(engine.Seen(*stream, last, 1) == engine.Seen(*reference, last, 1)) << round;
    }
    const absl::Status published = Publish(engine, *stream);
    ASSERT_TRUE(published.ok()) << MessageOf(published);
    Close(engine, *stream);
    Close(engine, *reference);
    if (random() % 2 == 0) RunTiers();
    if (random() % 8 == 0) Drain();
    ExpectConserved();
  }
  EXPECT_GT(Report().counters.loads, 5U);
  EXPECT_GT(Report().counters.stores, 5U);
}

}  // namespace
}  // namespace kvasir::core::testing
