// Snapshots over the sockets: a sequence is saved, its session ends, and another goes on from it
// through libkvasir; what people see of it; and ids that are none.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

namespace kvasir::testing {
namespace {

using ::testing::HasSubstr;

struct Case {
  std::string retention;
  // Rows that the query of `row` sees in `layer`.
  std::function<bool(uint64_t seen, uint64_t row, uint32_t layer)> sees;
};

constexpr uint32_t kLayers = 3;

bool IsSeparator(uint64_t row) { return row % 9 == 4; }

class SnapshotTest : public DaemonFixture {
 protected:
  static std::vector<uint32_t> IdsOf(uint64_t first, uint64_t count) {
    std::vector<uint32_t> ids;
    for (uint64_t row = first; row < first + count; ++row) {
      ids.push_back(IsSeparator(row) ? 1 : 5 + static_cast<uint32_t>(row % 90));
    }
    return ids;
  }

  // Rows up to `end`, in steps of at most `batch`; what they see is what the case says.
  static void Go(Sequence& sequence, const Case& of, uint64_t end, uint32_t batch) {
    const ModelSpec spec = TinySpec(kLayers);
    while (sequence.rows() < end) {
      const auto want = static_cast<uint32_t>(std::min<uint64_t>(batch, end - sequence.rows()));
      absl::StatusOr<StepView> step = sequence.Begin(want);
      ASSERT_TRUE(step.ok()) << MessageOf(step.status());
      WriteTestRows(*step, spec);
      for (uint32_t t = 0; t < step->count; ++t) {
        const uint64_t row = step->row + t;
        for (uint32_t layer = 0; layer < kLayers; ++layer) {
          std::vector<uint64_t> expected;
          for (uint64_t j = 0; j <= row; ++j) {
            if (of.sees(j, row, layer)) expected.push_back(j);
          }
          ASSERT_EQ(VisibleRows(step->layers[layer], row, layer, spec), expected) << "row " << row;
        }
      }
      const absl::Status committed = sequence.Commit(IdsOf(step->row, step->count));
      ASSERT_TRUE(committed.ok()) << MessageOf(committed);
    }
  }

  struct Engine {
    std::unique_ptr<Session> session;
    ModelHandle model;
  };
  Engine MakeEngine() {
    Engine engine{Connect(), {}};
    absl::StatusOr<ModelHandle> model = engine.session->RegisterModel(TinySpec(kLayers));
    EXPECT_TRUE(model.ok()) << MessageOf(model.status());
    if (model.ok()) engine.model = *model;
    return engine;
  }

  static absl::StatusOr<Sequence> Open(const Engine& engine, const std::string& retention) {
    OpenOptions options;
    options.model = engine.model;
    options.retention = retention;
    options.label = "chat";
    return engine.session->OpenSequence(options);
  }
  static OpenOptions From(const Engine& engine, const std::string& snapshot) {
    OpenOptions options;
    options.model = engine.model;
    options.snapshot = snapshot;
    return options;
  }
};

TEST_F(SnapshotTest, AnotherSessionGoesOnWhereOneWasSaved) {
  const std::vector<Case> cases = {
      {"full", [](uint64_t, uint64_t, uint32_t) { return true; }},
      {"streamingllm:start_size=4,recent_size=37/20/150,positions=original",
       [](uint64_t j, uint64_t row, uint32_t layer) {
         constexpr uint64_t kWindows[] = {37, 20, 150};
         return j < 4 || row - j < kWindows[layer];
       }},
      {"sepllm:form=static,init_cache_size=4,local_size=33",
       [](uint64_t j, uint64_t row, uint32_t) { return j < 4 || row - j < 33 || IsSeparator(j); }}};
  for (const Case& of : cases) {
    for (const uint64_t rows : {uint64_t{1}, uint64_t{150}, uint64_t{256}, uint64_t{403}}) {
      SCOPED_TRACE(of.retention + " rows " + std::to_string(rows));
      Snapshot snapshot;
      {
        const Engine engine = MakeEngine();
        absl::StatusOr<Sequence> sequence = Open(engine, of.retention);
        ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
        Go(*sequence, of, rows, 29);
        absl::StatusOr<Snapshot> saved = sequence->Save();
        ASSERT_TRUE(saved.ok()) << MessageOf(saved.status());
        snapshot = *saved;
        EXPECT_EQ(snapshot.rows, rows);
        EXPECT_EQ(snapshot.id.size(), 16U);
        Go(*sequence, of, rows + 100, 7);  // the sequence itself is not touched by it
        if (HasFatalFailure()) return;
      }
      const Engine engine = MakeEngine();
      absl::StatusOr<Sequence> sequence = engine.session->OpenSequence(From(engine, snapshot.id));
      ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
      EXPECT_EQ(sequence->rows(), rows);
      Go(*sequence, of, rows + 200, 13);
      if (HasFatalFailure()) return;
      ASSERT_TRUE(engine.session->DropSnapshot(snapshot.id).ok());
      EXPECT_EQ(engine.session->DropSnapshot(snapshot.id).code(), absl::StatusCode::kNotFound);
      EXPECT_EQ(engine.session->OpenSequence(From(engine, snapshot.id)).status().code(),
                absl::StatusCode::kNotFound);
      absl::StatusOr<Sequence::Footprint> footprint = sequence->MeasureFootprint();
      ASSERT_TRUE(footprint.ok()) << MessageOf(footprint.status());
      EXPECT_EQ(footprint->held_bytes, HeldBytes());  // nothing is left of the snapshot alone
    }
  }
}

TEST_F(SnapshotTest, SequencesThatShareASnapshotGoTheirOwnWays) {
  const Case full{"full", [](uint64_t, uint64_t, uint32_t) { return true; }};
  const Engine engine = MakeEngine();
  absl::StatusOr<Sequence> first = Open(engine, "full");
  ASSERT_TRUE(first.ok()) << MessageOf(first.status());
  Go(*first, full, 100, 50);
  absl::StatusOr<Snapshot> saved = first->Save();
  ASSERT_TRUE(saved.ok()) << MessageOf(saved.status());
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      OpenOptions from = From(engine, saved->id);
      from.snapshot_rows = 61;
      absl::StatusOr<Sequence> own = engine.session->OpenSequence(from);
      ASSERT_TRUE(own.ok()) << MessageOf(own.status());
      ASSERT_EQ(own->rows(), 61U);
      Go(*own, full, 260, 3);
    });
  }
  for (std::thread& thread : threads) thread.join();
  Go(*first, full, 150, 50);
  ASSERT_TRUE(engine.session->DropSnapshot(saved->id).ok());
}

TEST_F(SnapshotTest, PeopleSeeHowManyAndHowLargeButNoId) {
  const Case full{"full", [](uint64_t, uint64_t, uint32_t) { return true; }};
  Engine engine = MakeEngine();
  Snapshot snapshot;
  {
    absl::StatusOr<Sequence> sequence = Open(engine, "full");
    ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    Go(*sequence, full, 100, 50);
    absl::StatusOr<Snapshot> saved = sequence->Save();
    ASSERT_TRUE(saved.ok()) << MessageOf(saved.status());
    snapshot = *saved;
  }
  const StatsSnapshot stats = server_->Snapshot();
  EXPECT_EQ(stats.tenants[0].snapshots, 1U);
  EXPECT_EQ(stats.tenants[0].snapshot_bytes, snapshot.held_bytes);
  EXPECT_EQ(stats.tenants[0].held_bytes, snapshot.held_bytes);
  RawCalls calls(folder_.path() + "/control.sock", std::string(32, '0'));
  v1::ListSnapshotsRequest request;
  request.set_tenant("test");
  v1::ListSnapshotsResponse response;
  ASSERT_TRUE(calls.CallAdmin(&v1::Admin::Stub::ListSnapshots, request, &response).ok());
  ASSERT_EQ(response.snapshots_size(), 1);
  EXPECT_EQ(response.snapshots(0).rows(), 100U);
  EXPECT_EQ(response.snapshots(0).label(), "chat");
  EXPECT_EQ(response.snapshots(0).retention(), "full");
  EXPECT_EQ(response.snapshots(0).held_bytes(), snapshot.held_bytes);
  EXPECT_EQ(response.SerializeAsString().find(snapshot.id), std::string::npos);
  request.set_tenant("another");
  ASSERT_TRUE(calls.CallAdmin(&v1::Admin::Stub::ListSnapshots, request, &response).ok());
  EXPECT_EQ(response.snapshots_size(), 0);
  ASSERT_TRUE(engine.session->DropSnapshot(snapshot.id).ok());
}

TEST_F(SnapshotTest, WhatIsNoIdIsRefused) {
  const Engine engine = MakeEngine();
  for (const size_t bytes : {1U, 15U, 17U, 4096U}) {
    const std::string id(bytes, 'x');
    const absl::Status opened = engine.session->OpenSequence(From(engine, id)).status();
    EXPECT_EQ(opened.code(), absl::StatusCode::kInvalidArgument) << bytes;
    EXPECT_THAT(MessageOf(opened), HasSubstr("snapshot_id has the wrong size"));
    EXPECT_EQ(engine.session->DropSnapshot(id).code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(engine.session->DropSnapshot("").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(engine.session->OpenSequence(From(engine, std::string(16, 'x'))).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(SnapshotTest, NoneIsMadeWhereTheLimitIsZero) {
  Config config = MakeConfig();
  config.tenants[0].snapshots_max = 0;
  StartServer(config);
  const Engine engine = MakeEngine();
  absl::StatusOr<Sequence> sequence = Open(engine, "full");
  ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
  const absl::Status saved = sequence->Save().status();
  EXPECT_EQ(saved.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(saved), HasSubstr("tenant.snapshots_max=0"));
}

}  // namespace
}  // namespace kvasir::testing
