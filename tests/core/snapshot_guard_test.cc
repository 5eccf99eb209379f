// What may go wrong with snapshots: sessions that end, callers that give up, strangers, other
// models, limits and short memory. Nothing is lost, leaked or shown to anybody else.
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "tests/core/snapshot_fixture.h"

namespace kvasir::core::testing {
namespace {

using SnapshotGuardTest = SnapshotCoreTest;

// Whose snapshots hold copies of recent blocks.
constexpr const char* kWindowed = "streamingllm:start_size=4,recent_size=90";

class SavedRetention : public SnapshotCoreTest,
                       public ::testing::WithParamInterface<const char*> {};

INSTANTIATE_TEST_SUITE_P(SealedOrCopied, SavedRetention, ::testing::Values("full", kWindowed));

TEST_P(SavedRetention, TheSessionEndsWhileItIsSaved) {
  for (const bool taken : {false, true}) {
    uint32_t model = 0;
    FakeEngine& engine = Connect(1, &model);
    absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, 100, GetParam());
    ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
    engine.WriteDesk(*stream);
    bool asked = false;
    EXPECT_FALSE(engine.Save(*stream, IdOf(7), &asked).ready);
    std::unique_ptr<SequenceJob> job = taken ? core_->TakeJob() : nullptr;
    core_->EndSession(engine.session_id());
    EXPECT_EQ(core_->IsGone(engine.session_id()), !taken);
    ExpectConserved();
    if (taken) {
      core::Run(*job);
      core_->FinishJob(std::move(job));
    }
    EXPECT_TRUE(core_->IsGone(engine.session_id()));
    EXPECT_EQ(core_->TenantReports()[0].charged_bytes, 0U);
  }
}

TEST_F(SnapshotGuardTest, TheSessionEndsOrNobodyWaitsWhileOneIsOpened) {
  uint32_t model = 0;
  FakeEngine& engine = Connect(1, &model);
  absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, 100, kWindowed);
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  ASSERT_TRUE(Save(engine, *stream, 7).ok());
  for (const bool ends : {false, true}) {
    for (const bool taken : {false, true}) {
      uint32_t other_model = 0;
      FakeEngine& other = Connect(1, &other_model);
      const uint64_t before = core_->TenantReports()[0].sequences;
      absl::StatusOr<FakeEngine::Stream> opened =
          other.Resume(other_model, "", IdOf(7), stream->ids);
      ASSERT_TRUE(opened.ok()) << MessageOf(opened.status());
      std::unique_ptr<SequenceJob> job = taken ? core_->TakeJob() : nullptr;
      if (ends) core_->EndSession(other.session_id());
      core_->GiveUpOpening(opened->id);
      ExpectConserved();
      if (taken) {
        core::Run(*job);
        core_->FinishJob(std::move(job));
      }
      RunJobs();
      ExpectConserved();
      EXPECT_EQ(core_->TenantReports()[0].sequences, before);
    }
  }
}

// The engine goes on although nobody has told it how its save ended.
TEST_F(SnapshotGuardTest, BlocksThatAreBeingSavedAreNotFreed) {
  uint32_t model = 0;
  FakeEngine& engine = Connect(1, &model);
  const char* retention =
      "sepllm:form=sepcache,init_cache_size=4,sep_cache_size=8,local_size=16,cache_size=48";
  absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, 95, retention);
  absl::StatusOr<FakeEngine::Stream> undisturbed = Written(engine, model, 95, retention);
  ASSERT_TRUE(stream.ok() && undisturbed.ok());
  while (engine.board(stream->slot).published == stream->adopted) {  // up to a table for later rows
    Step(engine, *stream, 3);
    Step(engine, *undisturbed, 3);
    if (HasFatalFailure()) return;
  }
  engine.WriteDesk(*stream);
  bool asked = false;
  ASSERT_FALSE(engine.Save(*stream, IdOf(7), &asked).ready);
  const std::vector<uint32_t> ids = stream->ids;
  std::unique_ptr<SequenceJob> job = core_->TakeJob();
  ASSERT_NE(job, nullptr);
  bool waits = false;  // for a table that can be made only after the newest is adopted
  for (int i = 0; i < 10 && !waits; ++i) {
    while (engine.Writable(*stream) > 0) engine.WriteRow(*stream, 3);
    engine.WriteDesk(*stream);
    const SyncAnswer answer = engine.Sync(*stream, stream->rows + 1, stream->rows);
    ASSERT_TRUE(answer.status.ok()) << MessageOf(answer.status);
    waits = !answer.ready;
    ExpectConserved();
  }
  EXPECT_TRUE(waits);
  core::Run(*job);
  core_->FinishJob(std::move(job));
  const SaveAnswer saved = engine.Save(*stream, IdOf(7), &asked);
  ASSERT_TRUE(saved.ready) << MessageOf(saved.status);
  EXPECT_EQ(saved.rows, ids.size());
  absl::StatusOr<FakeEngine::Stream> opened = Resume(engine, model, 7, ids);
  ASSERT_TRUE(opened.ok()) << MessageOf(opened.status());
  for (int i = 0; i < 60; ++i) {
    Step(engine, *opened, 3);
    Step(engine, *undisturbed, 3);
    if (HasFatalFailure()) return;
    ASSERT_EQ(engine.Seen(*opened, opened->rows - 1, 0),
              engine.Seen(*undisturbed, opened->rows - 1, 0));
  }
}

TEST_F(SnapshotGuardTest, WhatCannotBeSavedSaysWhy) {
  uint32_t model = 0;
  FakeEngine& engine = Connect(1, &model);
  const std::vector<std::pair<const char*, const char*>> refused = {
      {"h2o:hh_size=6,recent_size=4,evict_interval=3", "reports"},
      {"tova:max_capacity=9,evict_interval=1", "reports"},
      {"snapkv:window_size=4,max_capacity_prompt=30", "reports"},
      {"gemfilter:filter_layer=1,topk=5", "before its rows are selected"},
      {"infllm:n_init=3,n_local=8,block_size=4,topk=2,repr_topk=2,max_cached_block=3,exc_block_"
       "size=1",
       "retrieves"}};
  for (const auto& [retention, reason] : refused) {
    absl::StatusOr<FakeEngine::Stream> stream = engine.Open(model, retention, 60);
    ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
    const absl::Status status = Save(engine, *stream, 7);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << retention;
    EXPECT_NE(MessageOf(status).find(reason), std::string::npos) << MessageOf(status);
  }
}

TEST_F(SnapshotGuardTest, IdsOfOthersAreAsUnknownAsThoseThatNobodyHas) {
  uint32_t model = 0, others_model = 0;
  FakeEngine& engine = Connect(1, &model);
  FakeEngine& stranger = Connect(2, &others_model);
  absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, 50);
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  ASSERT_TRUE(Save(engine, *stream, 7).ok());
  const absl::Status foreign = stranger.Resume(others_model, "", IdOf(7), stream->ids).status();
  const absl::Status unknown = stranger.Resume(others_model, "", IdOf(8), stream->ids).status();
  EXPECT_EQ(foreign.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(foreign, unknown);
  EXPECT_EQ(core_->DropSnapshot(stranger.session(), IdOf(7)), unknown);
  EXPECT_TRUE(core_->DropSnapshot(engine.session(), IdOf(7)).ok());
  EXPECT_EQ(core_->DropSnapshot(engine.session(), IdOf(7)), unknown);
}

TEST_F(SnapshotGuardTest, ModelAndRetentionHaveToAgree) {
  uint32_t model = 0;
  FakeEngine& engine = Connect(1, &model);
  absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, 50, "full+int8:rows=32");
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  ASSERT_TRUE(Save(engine, *stream, 7).ok());
  using Change = void (*)(ModelDescription&);
  const std::vector<std::pair<const char*, Change>> changes = {
      {"weights_digest", [](ModelDescription& m) { m.weights_digest[0] ^= 1; }},
      {"adapter_digests", [](ModelDescription& m) { m.adapter_digests = {m.weights_digest}; }},
      {"dtype", [](ModelDescription& m) { m.dtype = kernels::RowType::kBF16; }},
      {"slots_per_block", [](ModelDescription& m) { m.slots_per_block = 32; }},
      {"layers[1].sliding_window", [](ModelDescription& m) { m.layers[1].sliding_window = 9; }},
      {"rope.theta", [](ModelDescription& m) { m.rope.theta = 5000; }},
      {"separator_token_ids", [](ModelDescription& m) { m.separators = {1}; }},
      {"vocabulary_size", [](ModelDescription& m) { m.vocabulary_size = 101; }}};
  for (const auto& [field, change] : changes) {
    ModelDescription description = RotatedModel();
    change(description);
    engines_.emplace_back(1, std::make_unique<FakeEngine>(*core_, limits_, 1));
    FakeEngine& other = *engines_.back().second;
    absl::StatusOr<uint32_t> registered = other.RegisterModel(description);
    ASSERT_TRUE(registered.ok()) << MessageOf(registered.status());
    const absl::Status status = other.Resume(*registered, "", IdOf(7), stream->ids).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << field;
    EXPECT_NE(MessageOf(status).find(std::string(": ") + field + " differs"), std::string::npos)
        << MessageOf(status);
    core_->EndSession(other.session_id());
  }
  EXPECT_EQ(engine.Resume(model, "full", IdOf(7), stream->ids).status().code(),
            absl::StatusCode::kFailedPrecondition);
  OpenRequest blind{model, "", 0, "", 0, false, IdOf(7)};
  EXPECT_EQ(core_->OpenSequence(engine.session(), blind).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(SnapshotGuardTest, ThereAreNoMoreThanTheLimitSays) {
  uint32_t model = 0;
  FakeEngine& engine = Connect(1, &model);
  absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, 20);
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  for (const uint64_t id : {1U, 2U, 3U}) ASSERT_TRUE(Save(engine, *stream, id).ok());
  const absl::Status status = Save(engine, *stream, 4);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(MessageOf(status).find("tenant.snapshots_max=3"), std::string::npos);
}

// A live sequence takes the memory of the snapshot that was used longest ago.
TEST_F(SnapshotGuardTest, TheLeastRecentlyUsedOneMakesRoom) {
  Start(240 * kKiB);
  uint32_t model = 0;
  FakeEngine& first = Connect(1, &model);
  absl::StatusOr<FakeEngine::Stream> stream = Written(first, model, 96, kWindowed);
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  ASSERT_TRUE(Save(first, *stream, 1).ok());
  ASSERT_TRUE(Save(first, *stream, 2).ok());
  core_->EndSession(first.session_id());
  ASSERT_EQ(core_->TenantReports()[0].snapshots, 2U);
  FakeEngine& next = Connect(1, &model);
  absl::StatusOr<FakeEngine::Stream> used = Resume(next, model, 1, stream->ids);
  ASSERT_TRUE(used.ok()) << MessageOf(used.status());
  ASSERT_TRUE(*core_->CloseSequence(next.session(), used->slot, used->uid));
  absl::StatusOr<FakeEngine::Stream> opened = next.Open(model, "full");
  ASSERT_TRUE(opened.ok()) << MessageOf(opened.status());
  absl::Status status;
  uint64_t dropped = 0;
  while (status.ok() && opened->rows < 4000) {
    while (next.Writable(*opened) > 0) next.WriteRow(*opened, 3);
    next.WriteDesk(*opened);
    status = next.Sync(*opened, opened->rows + 1, opened->rows).status;
    ExpectConserved();
    if (core_->TenantReports()[0].counters.snapshots_dropped == dropped) continue;
    if (++dropped == 1) {  // the older one is left, since it was used meanwhile
      EXPECT_TRUE(core_->DropSnapshot(next.session(), IdOf(2)).code() ==
                  absl::StatusCode::kNotFound);
      EXPECT_EQ(core_->TenantReports()[0].snapshots, 1U);
    }
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << MessageOf(status);
  EXPECT_EQ(dropped, 2U);  // all that could be given up was
}

TEST_F(SnapshotGuardTest, ASaveWithoutMemoryLeavesNothing) {
  Start(40 * kKiB);
  uint32_t model = 0;
  FakeEngine& engine = Connect(1, &model);
  absl::StatusOr<FakeEngine::Stream> stream = engine.Open(model, "full");
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  while (engine.Writable(*stream) > 0) {
    engine.WriteRow(*stream, 3);
    engine.WriteDesk(*stream);
    (void)engine.Sync(*stream, stream->rows + 1, stream->rows);
  }
  const uint64_t held = core_->TenantReports()[0].held_bytes;
  EXPECT_EQ(Save(engine, *stream, 7).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(core_->TenantReports()[0].held_bytes, held);
  ExpectConserved();
}

}  // namespace
}  // namespace kvasir::core::testing
