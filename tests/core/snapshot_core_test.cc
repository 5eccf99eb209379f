// Whoever goes on from a snapshot sees what the sequence itself sees, byte for byte.
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/core/every_retention.h"
#include "tests/core/snapshot_fixture.h"

#include <fmt/format.h>

namespace kvasir::core::testing {
namespace {

class EveryRetention : public SnapshotCoreTest,
                       public ::testing::WithParamInterface<const char*> {};

INSTANTIATE_TEST_SUITE_P(All, EveryRetention, ::testing::ValuesIn(kEveryRetention));

// Three streams of the same rows: one that nobody disturbs, one that is saved at random rows, and
// what was opened from its newest snapshot, in another session.
TEST_P(EveryRetention, GoesOnAsIfNothingHadHappened) {
  const uint64_t seed = TestSeed(1);
  for (uint64_t round = 0; round < 6; ++round) {
    SCOPED_TRACE(fmt::format("KVASIR_SEED={} round {}", seed, round));
    std::mt19937_64 random(seed + round);
    uint32_t model = 0, other_model = 0;
    FakeEngine& engine = Connect(1, &model);
    FakeEngine& other = Connect(1, &other_model);
    absl::StatusOr<FakeEngine::Stream> undisturbed = engine.Open(model, GetParam());
    absl::StatusOr<FakeEngine::Stream> saved = engine.Open(model, GetParam());
    ASSERT_TRUE(undisturbed.ok() && saved.ok()) << MessageOf(saved.status());
    std::optional<FakeEngine::Stream> opened;
    uint64_t save_at = random() % 150;
    for (uint64_t row = 0; row < 300; ++row) {
      if (row == save_at) {
        ASSERT_TRUE(Save(engine, *saved, 7).ok());
        if (opened) {
          ASSERT_TRUE(*core_->CloseSequence(other.session(), opened->slot, opened->uid));
        }
        absl::StatusOr<FakeEngine::Stream> resumed =
            Resume(other, other_model, 7, saved->ids, random() % 2 == 0 ? "" : GetParam());
        ASSERT_TRUE(resumed.ok()) << MessageOf(resumed.status());
        ASSERT_EQ(resumed->rows, row);
        opened = *std::move(resumed);
        ASSERT_TRUE(core_->DropSnapshot(engine.session(), IdOf(7)).ok());
        save_at += 1 + random() % 100;
      }
      const auto id = static_cast<uint32_t>(random() % 8);
      Step(engine, *undisturbed, id);
      // Of kept rows it is known only when their copy is made whether they fill a record.
      const bool late = std::string_view(GetParam()).find("local_size=9+") == std::string::npos;
      Step(engine, *saved, id, !late || random() % 3 != 0);
      if (opened) Step(other, *opened, id, !late || random() % 3 != 0);
      ExpectConserved();
      if (HasFatalFailure()) return;
      for (uint32_t layer = 0; layer < kLayers; ++layer) {
        const auto seen = engine.Seen(*undisturbed, row, layer);
        ASSERT_EQ(engine.Seen(*saved, row, layer), seen) << "row " << row;
        if (!opened) continue;
        ASSERT_EQ(other.Seen(*opened, row, layer), seen) << "row " << row;
      }
    }
    core_->EndSession(engine.session_id());
    core_->EndSession(other.session_id());
  }
}

// Rows can be taken back below the row at which the snapshot was made, as far as in the sequence
// itself.
TEST_P(EveryRetention, IsTruncatedAsTheSequenceItself) {
  uint32_t model = 0;
  FakeEngine& engine = Connect(1, &model);
  absl::StatusOr<FakeEngine::Stream> saved = Written(engine, model, 117, GetParam());
  ASSERT_TRUE(saved.ok()) << MessageOf(saved.status());
  ASSERT_TRUE(Save(engine, *saved, 7).ok());
  absl::StatusOr<FakeEngine::Stream> opened = Resume(engine, model, 7, saved->ids);
  ASSERT_TRUE(opened.ok()) << MessageOf(opened.status());
  uint64_t floor[2] = {0, 0};
  for (FakeEngine::Stream* stream : {&*saved, &*opened}) {
    engine.WriteDesk(*stream);
    TruncateAnswer answer = core_->Truncate(engine.session(), stream->slot, stream->uid, 0);
    ASSERT_TRUE(answer.ready);
    floor[stream == &*opened ? 1 : 0] = answer.rollback_floor;
    if (!answer.status.ok()) {
      answer = core_->Truncate(engine.session(), stream->slot, stream->uid, answer.rollback_floor);
    }
    ASSERT_TRUE(answer.status.ok()) << MessageOf(answer.status);
    stream->rows = stream == &*opened ? floor[1] : floor[0];
    stream->uid = answer.uid;
    stream->ids.resize(stream->rows);
    (void)engine.Writable(*stream);
    engine.WriteDesk(*stream);
  }
  ASSERT_EQ(floor[0], floor[1]);
  for (uint64_t row = floor[0]; row < 150; ++row) {
    Step(engine, *saved, static_cast<uint32_t>(row % 5));
    Step(engine, *opened, static_cast<uint32_t>(row % 5));
    if (HasFatalFailure()) return;
    ASSERT_EQ(engine.Seen(*opened, row, 1), engine.Seen(*saved, row, 1)) << "row " << row;
  }
}

// Where every row stays as written, snapshots and all that go on from them hold one copy together.
TEST_F(SnapshotCoreTest, RowsThatAllStayAreSharedAtAnyRow) {
  uint32_t model = 0;
  FakeEngine& engine = Connect(1, &model);
  absl::StatusOr<FakeEngine::Stream> stream = Written(engine, model, 100);
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  const auto seen = engine.Seen(*stream, 99, 1);
  ASSERT_TRUE(Save(engine, *stream, 7).ok());
  Step(engine, *stream, 3);  // adopts the table of sealed rows
  ASSERT_TRUE(Save(engine, *stream, 8).ok());
  Step(engine, *stream, 3);
  engine.WriteDesk(*stream);
  (void)engine.Sync(*stream, 0, std::nullopt);
  const uint64_t kept = core_->SnapshotReports()[1].held_bytes;
  const uint64_t held = core_->TenantReports()[0].held_bytes;
  std::vector<FakeEngine::Stream> opened;
  for (const uint64_t id : {7U, 8U}) {
    absl::StatusOr<FakeEngine::Stream> each = engine.Resume(model, "", IdOf(id), stream->ids);
    ASSERT_TRUE(each.ok()) << MessageOf(each.status());
    EXPECT_FALSE(engine.Opening(*each));
    EXPECT_EQ(each->rows, id == 7 ? 100U : 101U);
    if (id == 7) {
      EXPECT_TRUE(engine.Seen(*each, 99, 1) == seen);
    } else {
      EXPECT_TRUE(engine.Seen(*each, 100, 1) == engine.Seen(*stream, 100, 1));
    }
    opened.push_back(*std::move(each));
  }
  // Beside their recent blocks, of which each has a block in use and one more, they take nothing.
  EXPECT_LE(core_->TenantReports()[0].held_bytes - held, 2 * 2 * stream->block.bytes);
  EXPECT_GE(core_->TenantReports()[0].snapshot_bytes, kept);
  EXPECT_LT(core_->TenantReports()[0].snapshot_bytes, kept + kept / 4);
  ExpectConserved();
}

TEST_F(SnapshotCoreTest, OutlivesItsSessionAndIsOpenedByTheNext) {
  uint32_t model = 0;
  FakeEngine& first = Connect(1, &model);
  const char* retention = "sepllm:form=static,init_cache_size=4,local_size=33";
  absl::StatusOr<FakeEngine::Stream> saved = Written(first, model, 201, retention);
  ASSERT_TRUE(saved.ok()) << MessageOf(saved.status());
  const auto seen = first.Seen(*saved, 200, 1);
  ASSERT_TRUE(Save(first, *saved, 7).ok());
  core_->EndSession(first.session_id());
  (void)core_->Settle();
  ExpectConserved();
  const std::vector<SnapshotReport> reports = core_->SnapshotReports();
  ASSERT_EQ(reports.size(), 1U);
  EXPECT_EQ(reports[0].rows, 201U);
  EXPECT_EQ(reports[0].held_bytes, core_->TenantReports()[0].snapshot_bytes);
  EXPECT_EQ(reports[0].held_bytes, core_->TenantReports()[0].held_bytes);
  FakeEngine& next = Connect(1, &model);
  for (int i = 0; i < 2; ++i) {  // as often as one likes
    absl::StatusOr<FakeEngine::Stream> opened = Resume(next, model, 7, saved->ids);
    ASSERT_TRUE(opened.ok()) << MessageOf(opened.status());
    EXPECT_EQ(next.Seen(*opened, 200, 1), seen);
    Write(next, *opened, 50);
  }
  ASSERT_TRUE(core_->DropSnapshot(next.session(), IdOf(7)).ok());
  ExpectConserved();  // what the opened ones share stays theirs
}

TEST_F(SnapshotCoreTest, ASelectionIsSavedOnceItIsMade) {
  uint32_t model = 0;
  FakeEngine& engine = Connect(1, &model);
  absl::StatusOr<FakeEngine::Stream> stream =
      Written(engine, model, 40, "gemfilter:filter_layer=1,topk=5");
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  engine.WriteDesk(*stream);
  bool asked = false;
  (void)core_->SelectRows(engine.session(), stream->slot, stream->uid, &asked);
  RunJobs();
  const SelectAnswer chosen =
      core_->SelectRows(engine.session(), stream->slot, stream->uid, &asked);
  ASSERT_TRUE(chosen.ready) << MessageOf(chosen.status);
  stream->rows = 0;
  stream->ids.clear();
  stream->uid = chosen.uid;
  Write(engine, *stream, 21);
  ASSERT_TRUE(Save(engine, *stream, 7).ok());
  absl::StatusOr<FakeEngine::Stream> opened = Resume(engine, model, 7, stream->ids);
  ASSERT_TRUE(opened.ok()) << MessageOf(opened.status());
  EXPECT_EQ(engine.Seen(*opened, 20, 0), engine.Seen(*stream, 20, 0));
  engine.WriteDesk(*opened);
  asked = false;
  const SelectAnswer again = core_->SelectRows(engine.session(), opened->slot, opened->uid, &asked);
  EXPECT_EQ(again.status.code(), absl::StatusCode::kFailedPrecondition) << MessageOf(again.status);
}

}  // namespace
}  // namespace kvasir::core::testing
