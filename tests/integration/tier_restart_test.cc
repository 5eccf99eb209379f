// Prefixes on disk over lives of the daemon: who finds them again, and who does not.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/tier_daemon.h"

namespace kvasir::testing {
namespace {

constexpr uint32_t kOtherUid = 12001;
const std::vector<std::string> kCompacting = {
    "streamingllm:start_size=4,recent_size=64,positions=original", "window:size=100",
    "sinks:size=4|stride:size=7|window:size=50"};

class TierRestartTest : public TierDaemonTest {
 protected:
  // The rows that a new session finds, all of them right.
  uint64_t Found(const ModelSpec& spec, const std::string& retention = "full") {
    absl::StatusOr<TierEngine> engine = TierEngine::Connect(daemon_.config(), spec);
    EXPECT_TRUE(engine.ok()) << MessageOf(engine.status());
    if (!engine.ok()) return 0;
    engine->set_retention(retention);
    const absl::StatusOr<uint64_t> rows = engine->AttachedRows(prompt_);
    EXPECT_TRUE(rows.ok()) << MessageOf(rows.status());
    return rows.value_or(0);
  }
  uint64_t Found() { return Found(spec_); }

  void Publish(const std::string& retention = "full") {
    absl::StatusOr<TierEngine> engine = TierEngine::Connect(daemon_.config(), spec_);
    ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
    engine->set_retention(retention);
    const absl::Status published = engine->Publish(prompt_);
    ASSERT_TRUE(published.ok()) << MessageOf(published);
  }

  // A daemon that has published, and has stopped.
  void PublishAndStop() {
    ASSERT_TRUE(daemon_.Start());
    ASSERT_NO_FATAL_FAILURE(Publish());
    daemon_.Stop();
  }

  const ModelSpec spec_ = TinySpec(3);
  const std::vector<uint32_t> prompt_ = PromptOf(1, 700);
  const uint64_t whole_rows_ = 688;  // in chunks of 16
  TierDaemon daemon_{folder_.path(), DiskConfig()};
};

TEST_F(TierRestartTest, AStoppedDaemonsPrefixesAreFoundByTheNext) {
  ASSERT_NO_FATAL_FAILURE(PublishAndStop());
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(daemon_.PrefixesIn("disk"), 1U);
  EXPECT_EQ(daemon_.PrefixesIn("memory"), 0U);
  v1::TierInfo tier = daemon_.Tier();
  EXPECT_EQ(tier.tier(), "disk");
  EXPECT_FALSE(tier.left_out());
  EXPECT_EQ(tier.capacity_bytes(), 64 * kMiB);
  ASSERT_EQ(tier.tenants_size(), 1);
  EXPECT_EQ(tier.tenants(0).tenant(), "test");
  EXPECT_EQ(tier.tenants(0).prefixes(), 1U);
  // A row of this model takes 384 bytes.
  EXPECT_GE(tier.tenants(0).stored_bytes(), whole_rows_ * 384);
  EXPECT_GE(tier.held_bytes(), tier.tenants(0).stored_bytes());
  EXPECT_EQ(tier.tenants(0).loads(), 0U);

  EXPECT_EQ(Found(), whole_rows_);
  EXPECT_EQ(daemon_.PrefixesIn("disk"), 1U);
  EXPECT_EQ(daemon_.PrefixesIn("memory"), 1U);
  tier = daemon_.Tier();
  EXPECT_EQ(tier.tenants(0).loads(), 1U);
  EXPECT_EQ(tier.tenants(0).load_rows(), whole_rows_);
  EXPECT_EQ(tier.tenants(0).load_failures(), 0U);
  EXPECT_GT(tier.reads().at("hit"), 0U);

  EXPECT_EQ(Found(), whole_rows_);  // from memory
  EXPECT_EQ(daemon_.Tier().tenants(0).loads(), 1U);
}

TEST_F(TierRestartTest, AnotherPromptTakesTheRowsThatAreTheSame) {
  ASSERT_NO_FATAL_FAILURE(PublishAndStop());
  ASSERT_TRUE(daemon_.Start());
  absl::StatusOr<TierEngine> engine = TierEngine::Connect(daemon_.config(), spec_);
  ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
  std::vector<uint32_t> fork = prompt_;
  fork[300] = 1;
  const absl::StatusOr<uint64_t> rows = engine->AttachedRows(fork);
  ASSERT_TRUE(rows.ok()) << MessageOf(rows.status());
  EXPECT_EQ(*rows, 288U);
  EXPECT_EQ(engine->AttachedRows(PromptOf(2, 100)).value_or(1), 0U);
  // What is published on top of rows from disk is found from disk as a whole.
  ASSERT_TRUE(engine->Publish(fork).ok());
  daemon_.Stop();
  ASSERT_TRUE(daemon_.Start());
  engine = TierEngine::Connect(daemon_.config(), spec_);
  ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
  EXPECT_EQ(engine->AttachedRows(fork).value_or(0), whole_rows_);
  EXPECT_EQ(Found(), whole_rows_);
}

TEST_F(TierRestartTest, WhatWasDrainedOutlivesAKill) {
  ASSERT_TRUE(daemon_.Start());
  ASSERT_NO_FATAL_FAILURE(Publish());
  EXPECT_EQ(daemon_.PrefixesIn("disk"), 0U);
  const absl::Status drained = daemon_.Drain();
  ASSERT_TRUE(drained.ok()) << MessageOf(drained);
  EXPECT_EQ(daemon_.PrefixesIn("disk"), 1U);
  EXPECT_EQ(daemon_.PrefixesIn("memory"), 1U);
  daemon_.Kill();
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(daemon_.PrefixesIn("disk"), 1U);
  EXPECT_EQ(daemon_.PrefixesIn("memory"), 0U);
  EXPECT_EQ(Found(), whole_rows_);
}

TEST_F(TierRestartTest, WhatWasNotDrainedIsAMissAfterAKill) {
  ASSERT_TRUE(daemon_.Start());
  ASSERT_NO_FATAL_FAILURE(Publish());
  daemon_.Kill();
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(daemon_.PrefixesIn("disk"), 0U);
  EXPECT_EQ(Found(), 0U);
  ASSERT_NO_FATAL_FAILURE(Publish());
  EXPECT_EQ(Found(), whole_rows_);
}

TEST_F(TierRestartTest, WhatWasDroppedIsGoneFromDiskToo) {
  ASSERT_NO_FATAL_FAILURE(PublishAndStop());
  ASSERT_TRUE(daemon_.Start());
  daemon_.Drop();
  EXPECT_EQ(daemon_.PrefixesIn("disk"), 0U);
  EXPECT_EQ(Found(), 0U);
  daemon_.Stop();
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(Found(), 0U);
  EXPECT_EQ(daemon_.Tier().held_bytes(), 0U);
}

TEST_F(TierRestartTest, AnotherTenantFindsNothing) {
  daemon_.config().tenants[0].disk_bytes = 32 * kMiB;
  Config::Tenant other = daemon_.config().tenants[0];
  other.name = "other";
  other.uids = {kOtherUid};
  daemon_.config().tenants.push_back(other);
  ASSERT_NO_FATAL_FAILURE(PublishAndStop());
  std::swap(daemon_.config().tenants[0].uids, daemon_.config().tenants[1].uids);
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(daemon_.PrefixesIn("disk"), 1U);  // an administrator sees it
  EXPECT_EQ(Found(), 0U);
  daemon_.Stop();
  std::swap(daemon_.config().tenants[0].uids, daemon_.config().tenants[1].uids);
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(Found(), whole_rows_);
}

TEST_F(TierRestartTest, AnotherModelFindsNothing) {
  ASSERT_NO_FATAL_FAILURE(PublishAndStop());
  ASSERT_TRUE(daemon_.Start());
  ModelSpec tuned = spec_;
  tuned.weights_digest[7] = 'x';
  EXPECT_EQ(Found(tuned), 0U);
  EXPECT_EQ(Found(TinySpec(2)), 0U);
  EXPECT_EQ(Found(), whole_rows_);
}

TEST_F(TierRestartTest, AnotherKeyFindsNothing) {
  ASSERT_NO_FATAL_FAILURE(PublishAndStop());
  daemon_.config().tier.key_file = folder_.path() + "/another.key";
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(daemon_.PrefixesIn("disk"), 0U);
  EXPECT_EQ(Found(), 0U);
  ASSERT_NO_FATAL_FAILURE(Publish());
  daemon_.Stop();
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(Found(), whole_rows_);
}

// What is found is as long as it was, to the row, and less to read.
TEST_F(TierRestartTest, CompactedPrefixesAreFoundToo) {
  ASSERT_TRUE(daemon_.Start());
  for (const std::string& retention : kCompacting) ASSERT_NO_FATAL_FAILURE(Publish(retention));
  daemon_.Stop();
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(daemon_.PrefixesIn("disk"), kCompacting.size());
  for (const std::string& retention : kCompacting) {
    EXPECT_EQ(Found(spec_, retention), prompt_.size()) << retention;
  }
  const v1::TierInfo tier = daemon_.Tier();
  EXPECT_EQ(tier.tenants(0).loads(), kCompacting.size());
  EXPECT_LT(tier.tenants(0).stored_bytes(), kCompacting.size() * prompt_.size() * 384 / 2);
  EXPECT_EQ(Found(TinySpec(2), kCompacting[0]), 0U);  // another model
}

TEST_F(TierRestartTest, SavedSequencesAreGoneOnFrom) {
  ASSERT_TRUE(daemon_.Start());
  std::vector<std::string> retentions = kCompacting, ids;
  retentions.push_back("full");
  for (const std::string& retention : retentions) {
    absl::StatusOr<TierEngine> engine = TierEngine::Connect(daemon_.config(), spec_);
    ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
    engine->set_retention(retention);
    const absl::StatusOr<std::string> id = engine->Save(prompt_);
    ASSERT_TRUE(id.ok()) << MessageOf(id.status());
    ids.push_back(*id);
  }
  daemon_.Stop();
  for (int life = 0; life < 2; ++life) {
    ASSERT_TRUE(daemon_.Start());
    for (size_t i = 0; i < ids.size(); ++i) {
      absl::StatusOr<TierEngine> engine = TierEngine::Connect(daemon_.config(), spec_);
      ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
      engine->set_retention(retentions[i]);
      const absl::StatusOr<uint64_t> rows = engine->ResumedRows(ids[i], prompt_);
      ASSERT_TRUE(rows.ok()) << retentions[i] << ": " << MessageOf(rows.status());
      EXPECT_EQ(*rows, prompt_.size());
    }
    if (life == 0) daemon_.Kill();
  }
}

}  // namespace
}  // namespace kvasir::testing
