// Steps of a batch: how many calls they make, and that each sequence has an answer of its own.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/daemon_fixture.h"

namespace kvasir::testing {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kLayers = 2;
// Its first table with kept rows is that of row 48, at a border.
constexpr char kStreaming[] = "streamingllm:start_size=4,recent_size=44,positions=original";

// Sequences of one session.
struct Engine {
  std::unique_ptr<Session> session;
  std::vector<Sequence> sequences;
};

class BatchTest : public DaemonFixture {
 protected:
  Engine MakeEngine(size_t count, const ConnectOptions& options, uint64_t max_rows = 0) {
    Engine engine;
    absl::StatusOr<std::unique_ptr<Session>> session = Session::Connect(options);
    EXPECT_TRUE(session.ok()) << MessageOf(session.status());
    engine.session = *std::move(session);
    absl::StatusOr<ModelHandle> model = engine.session->RegisterModel(spec_);
    EXPECT_TRUE(model.ok()) << MessageOf(model.status());
    for (size_t i = 0; i < count; ++i) {
      OpenOptions open;
      open.model = *model;
      open.retention = i % 2 == 0 ? "full" : kStreaming;
      open.max_rows = i == 0 ? max_rows : 0;
      absl::StatusOr<Sequence> sequence = engine.session->OpenSequence(open);
      EXPECT_TRUE(sequence.ok()) << MessageOf(sequence.status());
      engine.sequences.push_back(*std::move(sequence));
    }
    return engine;
  }

  static std::vector<Sequence*> PointersTo(std::vector<Sequence>& sequences) {
    std::vector<Sequence*> pointers;
    for (Sequence& sequence : sequences) pointers.push_back(&sequence);
    return pointers;
  }

  // A step of one row each. Fails where any of them does.
  void Step(const std::vector<Sequence*>& sequences) {
    std::vector<bool> begun(sequences.size());
    Sequence::BeginMany(sequences, 1, [&](size_t i, const absl::StatusOr<StepView>& view) {
      ASSERT_TRUE(view.ok()) << i << ": " << MessageOf(view.status());
      EXPECT_EQ(view->row, sequences[i]->rows());
      EXPECT_FALSE(begun[i]);
      begun[i] = true;
      WriteTestRows(*view, spec_);
      const std::vector<uint64_t> visible = VisibleRows(view->layers[0], view->row, 0, spec_);
      EXPECT_EQ(visible.back(), view->row);
      EXPECT_EQ(visible.size(), i % 2 == 0 ? view->row + 1 : std::min<uint64_t>(view->row + 1, 48));
    });
    EXPECT_EQ(begun, std::vector<bool>(sequences.size(), true));
    std::vector<bool> committed(sequences.size());
    Sequence::CommitMany(sequences, std::vector<uint32_t>(sequences.size(), 7),
                         [&](size_t i, const absl::Status& status) {
                           ASSERT_TRUE(status.ok()) << i << ": " << MessageOf(status);
                           EXPECT_FALSE(committed[i]);
                           committed[i] = true;
                         });
    EXPECT_EQ(committed, std::vector<bool>(sequences.size(), true));
  }

  const ModelSpec spec_ = TinySpec(kLayers);
};

uint64_t CallsOf(const Session& session) { return session.calls().ring + session.calls().grpc; }

TEST_F(BatchTest, AStepMakesNoCallBetweenBordersAndTwoAtABorderHoweverManySequences) {
  StartServer(MakeConfig());
  for (const size_t count : {2U, 48U}) {
    Engine engine = MakeEngine(count, MakeConnectOptions());
    if (HasFatalFailure()) return;
    const std::vector<Sequence*> sequences = PointersTo(engine.sequences);
    const uint64_t slots = sequences[0]->slots_per_block();
    Step(sequences);
    uint64_t at_borders = 0;
    for (uint64_t row = 1; row < 6 * slots; ++row) {
      const uint64_t before = CallsOf(*engine.session);
      Step(sequences);
      if (HasFatalFailure()) return;
      const uint64_t made = CallsOf(*engine.session) - before;
      // Row by row: its block is full (CommitMany) or its row is the first of one (BeginMany).
      const bool at_border = row % slots == 0 || (row + 1) % slots == 0;
      EXPECT_LE(made, at_border ? 1U : 0U) << "row " << row << " of " << count << " sequences";
      at_borders += made;
    }
    EXPECT_GE(at_borders, 5U);
    EXPECT_EQ(engine.session->calls().grpc, 1 + 1 + count);  // hello aside: the model, sequences
  }
}

TEST_F(BatchTest, SequencesThatReachTheirBordersAtDifferentStepsAskTogetherWhenTheyMeet) {
  StartServer(MakeConfig());
  Engine engine = MakeEngine(8, MakeConnectOptions());
  const std::vector<Sequence*> sequences = PointersTo(engine.sequences);
  const uint64_t slots = sequences[0]->slots_per_block();
  // The first two go ahead by a block.
  for (uint64_t row = 0; row < slots; ++row) Step({sequences[0], sequences[1]});
  for (uint64_t row = 0; row < slots - 1; ++row) Step(sequences);
  const uint64_t before = CallsOf(*engine.session);
  Step(sequences);
  EXPECT_EQ(CallsOf(*engine.session) - before, 1U);  // all commit at a border
}

TEST_F(BatchTest, SequencesOfSeveralSessionsAskInOneCallEach) {
  StartServer(MakeConfig());
  ConnectOptions by_grpc = MakeConnectOptions();
  by_grpc.use_ring = false;
  Engine first = MakeEngine(4, MakeConnectOptions());
  Engine second = MakeEngine(4, by_grpc);
  std::vector<Sequence*> mixed;  // one of each session in turn, still `full` at even places
  for (size_t i = 0; i < 4; i += 2) {
    for (Engine* engine : {&first, &second}) {
      mixed.push_back(&engine->sequences[i]);
      mixed.push_back(&engine->sequences[i + 1]);
    }
  }
  for (uint64_t row = 0; row + 1 < mixed[0]->slots_per_block(); ++row) Step(mixed);
  const uint64_t ring = first.session->calls().ring, grpc = second.session->calls().grpc;
  Step(mixed);  // all commit at a border
  EXPECT_EQ(first.session->calls().ring - ring, 1U);
  EXPECT_EQ(second.session->calls().grpc - grpc, 1U);
}

TEST_F(BatchTest, OneThatIsRefusedSaysWhyAndTheOthersGoOn) {
  StartServer(MakeConfig());
  Engine engine = MakeEngine(6, MakeConnectOptions(), /*max_rows=*/32);
  const std::vector<Sequence*> sequences = PointersTo(engine.sequences);
  for (int row = 0; row < 32; ++row) Step(sequences);
  if (HasFatalFailure()) return;
  for (int row = 32; row < 80; ++row) {
    size_t well = 0;
    Sequence::BeginMany(sequences, 1, [&](size_t i, const absl::StatusOr<StepView>& view) {
      if (i != 0) {
        ASSERT_TRUE(view.ok()) << MessageOf(view.status());
        WriteTestRows(*view, spec_);
        ++well;
        return;
      }
      EXPECT_EQ(view.status().code(), absl::StatusCode::kOutOfRange) << MessageOf(view.status());
      EXPECT_THAT(MessageOf(view.status()), HasSubstr("max_rows=32"));
    });
    EXPECT_EQ(well, 5U);
    Sequence::CommitMany(sequences, std::vector<uint32_t>(6, 3),
                         [&](size_t i, const absl::Status& status) {
                           EXPECT_EQ(status.ok(), i != 0) << MessageOf(status);
                         });
  }
  EXPECT_EQ(sequences[0]->rows(), 32U);
  EXPECT_EQ(sequences[5]->rows(), 80U);
}

TEST_F(BatchTest, ADeadDaemonIsOneErrorForEachAtOnce) {
  StartServer(MakeConfig());
  Engine engine = MakeEngine(32, MakeConnectOptions());
  const std::vector<Sequence*> sequences = PointersTo(engine.sequences);
  for (uint64_t row = 0; row < 15; ++row) Step(sequences);
  if (HasFatalFailure()) return;
  server_.reset();
  size_t failed = 0;
  Sequence::BeginMany(sequences, 64, [&](size_t, const absl::StatusOr<StepView>& view) {
    EXPECT_EQ(view.status().code(), absl::StatusCode::kUnavailable) << MessageOf(view.status());
    ++failed;
  });
  EXPECT_EQ(failed, 32U);
}

TEST_F(BatchTest, AClosedSequenceAndNoRowsAreErrorsOfTheirOwn) {
  StartServer(MakeConfig());
  Engine engine = MakeEngine(3, MakeConnectOptions());
  const std::vector<Sequence*> sequences = PointersTo(engine.sequences);
  ASSERT_TRUE(sequences[1]->Close().ok());
  std::vector<absl::StatusCode> codes(3);
  Sequence::BeginMany(sequences, 1, [&](size_t i, const absl::StatusOr<StepView>& view) {
    codes[i] = view.status().code();
  });
  EXPECT_EQ(codes, (std::vector<absl::StatusCode>{absl::StatusCode::kOk,
                                                  absl::StatusCode::kFailedPrecondition,
                                                  absl::StatusCode::kOk}));
  Sequence::BeginMany(sequences, 0, [&](size_t i, const absl::StatusOr<StepView>& view) {
    codes[i] = view.status().code();
  });
  EXPECT_EQ(codes[0], absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kvasir::testing
