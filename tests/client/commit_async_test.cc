// Commits ahead of a stream of the engine's: what the daemon is told when, what waits for the
// stream, and what happens where it never comes.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "device/word.h"
#include "tests/support/daemon_fixture.h"

namespace kvasir::testing {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kLayers = 2;
constexpr char kStreaming[] = "streamingllm:start_size=4,recent_size=40,positions=original";

class CommitAsyncTest : public DaemonFixture {
 protected:
  void SetUp() override { StartServer(MakeConfig()); }
  void TearDown() override {
    device::StoreWord(word_, uint64_t{1} << 62);  // behind whatever is under way
    sequence_ = Sequence();
    session_.reset();
    DaemonFixture::TearDown();
  }

  void Open(const std::string& retention,
            std::chrono::milliseconds deadline = std::chrono::seconds(10)) {
    ConnectOptions options = MakeConnectOptions();
    options.deadline = deadline;
    absl::StatusOr<std::unique_ptr<Session>> session = Session::Connect(options);
    ASSERT_TRUE(session.ok()) << MessageOf(session.status());
    session_ = *std::move(session);
    absl::StatusOr<ModelHandle> model = session_->RegisterModel(spec_);
    ASSERT_TRUE(model.ok()) << MessageOf(model.status());
    model_ = *std::move(model);
    sequence_ = OpenAnother(retention);
  }
  Sequence OpenAnother(const std::string& retention) {
    absl::StatusOr<Sequence> sequence = session_->OpenSequence({model_, retention, 0, ""});
    EXPECT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    return *std::move(sequence);
  }

  // A step of one row that the stream has written when the word is at the row's number plus one.
  void Step() {
    const absl::StatusOr<StepView> view = sequence_.Begin(1);
    ASSERT_TRUE(view.ok()) << MessageOf(view.status());
    WriteTestRows(*view, spec_);
    const absl::Status committed = sequence_.CommitAsync({{7}}, {&word_, view->row + 1});
    ASSERT_TRUE(committed.ok()) << MessageOf(committed);
  }
  void StepTo(uint64_t rows) {
    while (sequence_.rows() < rows && !HasFatalFailure()) Step();
  }

  uint64_t RowsThatTheDaemonHasSeen() {
    SharedCore& shared = server_->shared_for_test();
    MutexLock lock(shared.mutex);
    const std::vector<core::SequenceReport> reports = shared.core.SequenceReports();
    return reports.empty() ? 0 : reports.front().summary.rows_seen;
  }
  uint64_t Calls() const { return session_->calls().ring + session_->calls().grpc; }

  const ModelSpec spec_ = TinySpec(kLayers);
  device::DeviceWord word_{0};
  std::unique_ptr<Session> session_;
  ModelHandle model_;
  Sequence sequence_;
};

TEST_F(CommitAsyncTest, TheDaemonIsToldOfARowOnceTheStreamHasWrittenIt) {
  Open("full");
  const uint64_t slots = sequence_.slots_per_block();
  StepTo(slots + 2);  // past a border, and the block behind it was granted when it was opened
  EXPECT_EQ(sequence_.rows(), slots + 2);
  const uint64_t before = Calls();
  device::RaiseWord(word_, slots - 1);
  Step();  // the desk says so; no border is crossed by what has come
  EXPECT_EQ(Calls(), before);
  EXPECT_EQ(RowsThatTheDaemonHasSeen(), 0U);
  device::RaiseWord(word_, slots + 1);
  Step();
  EXPECT_EQ(Calls(), before + 1) << "what has come has crossed a border";
  EXPECT_EQ(RowsThatTheDaemonHasSeen(), slots + 1);
  // Nor does asking for room tell of more than has come.
  StepTo(4 * slots);
  EXPECT_LE(RowsThatTheDaemonHasSeen(), slots + 1);
  EXPECT_GT(Calls(), before + 1);
  device::RaiseWord(word_, 4 * slots);
  ASSERT_TRUE(sequence_.MeasureFootprint().ok());
  EXPECT_EQ(RowsThatTheDaemonHasSeen(), 4 * slots);
}

TEST_F(CommitAsyncTest, WordsThatWrapAreComparedAsSignedNumbers) {
  Open("full");
  word_ = ~uint64_t{0};  // behind 3 by 4
  const absl::StatusOr<StepView> view = sequence_.Begin(1);
  ASSERT_TRUE(view.ok());
  WriteTestRows(*view, spec_);
  ASSERT_TRUE(sequence_.CommitAsync({{7}}, {&word_, 3}).ok());
  std::thread stream([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    device::StoreWord(word_, 3);
  });
  EXPECT_TRUE(sequence_.MeasureFootprint().ok());
  EXPECT_EQ(word_.load(), 3U);
  stream.join();
  EXPECT_EQ(RowsThatTheDaemonHasSeen(), 1U);
}

// The stream writes a row late, and only then raises the word: what is kept has the rows' bytes.
TEST_F(CommitAsyncTest, WhatIsKeptIsWhatTheStreamHasWritten) {
  // Every second row is kept, three rows behind the last: the stream may not have come there.
  Open("sepllm:form=static,init_cache_size=2,local_size=3");
  struct Late {
    StepView step;
    std::vector<LayerView> layers;
    std::vector<std::vector<RecentBlockView>> recent;  // views end with the next step
  };
  std::vector<Late> late;
  uint64_t largest = 0;
  const auto write = [&](size_t left) {
    for (; late.size() > left; late.erase(late.begin())) {
      Late& one = late.front();
      for (size_t i = 0; i < one.layers.size(); ++i) one.layers[i].recent = one.recent[i];
      one.step.layers = one.layers;
      WriteTestRows(one.step, spec_);
      device::RaiseWord(word_, one.step.row + 1);
    }
  };
  for (uint64_t row = 0; row < 300; ++row) {
    // A step that needs the next table waits for the stream: somebody has to be there to write.
    std::atomic<bool> begun = false;
    std::thread stream([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      while (!begun) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        if (!begun) write(0);
      }
    });
    const absl::StatusOr<StepView> view = sequence_.Begin(1);
    begun = true;
    stream.join();
    ASSERT_TRUE(view.ok()) << MessageOf(view.status());
    Late one{*view, {view->layers.begin(), view->layers.end()}, {}};
    for (LayerView& layer : one.layers) {
      one.recent.emplace_back(layer.recent.begin(), layer.recent.end());
      layer.kept = {};
    }
    late.push_back(std::move(one));
    largest = std::max<uint64_t>(largest, late.size());
    ASSERT_TRUE(sequence_.CommitAsync({{row % 2 == 0 ? 1U : 7U}}, {&word_, row + 1}).ok());
    write(row % 7);  // so far behind it falls
  }
  EXPECT_GE(largest, 2U) << "the stream was never behind";
  write(0);
  const absl::StatusOr<StepView> view = sequence_.Begin(1);
  ASSERT_TRUE(view.ok()) << MessageOf(view.status());
  WriteTestRows(*view, spec_);
  for (uint32_t layer = 0; layer < kLayers; ++layer) {  // checks every row's bytes
    EXPECT_EQ(VisibleRows(view->layers[layer], view->row, layer, spec_).size(), 153U);
  }
  EXPECT_FALSE(view->layers[0].kept.empty());
}

TEST_F(CommitAsyncTest, SavingWaitsForTheStream) {
  Open("full");
  StepTo(40);
  std::thread stream([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    device::RaiseWord(word_, 40);
  });
  const absl::StatusOr<Snapshot> saved = sequence_.Save();
  const uint64_t word = word_;
  stream.join();
  ASSERT_TRUE(saved.ok()) << MessageOf(saved.status());
  EXPECT_EQ(saved->rows, 40U);
  EXPECT_EQ(word, 40U);
  EXPECT_TRUE(session_->DropSnapshot(saved->id).ok());
}

TEST_F(CommitAsyncTest, ACommitOfRowsThatAreThereFollowsThoseUnderWay) {
  Open("full");
  const uint64_t slots = sequence_.slots_per_block();
  StepTo(slots + 3);
  const uint64_t before = Calls();
  std::thread stream([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    device::RaiseWord(word_, slots + 3);
  });
  for (int i = 0; i < 4; ++i) {
    const absl::StatusOr<StepView> view = sequence_.Begin(1);
    EXPECT_TRUE(view.ok()) << MessageOf(view.status());
    if (!view.ok()) break;
    WriteTestRows(*view, spec_);
    EXPECT_TRUE(sequence_.Commit({{7}}).ok());
  }
  stream.join();
  EXPECT_EQ(sequence_.rows(), slots + 7);
  EXPECT_EQ(Calls(), before + 1) << "the first of them has crossed the border";
  EXPECT_EQ(RowsThatTheDaemonHasSeen(), slots + 4);
}

TEST_F(CommitAsyncTest, AStreamThatNeverComesIsADeadlineOfWhatWaitsForIt) {
  Open("full", std::chrono::milliseconds(700));
  StepTo(5);
  device::RaiseWord(word_, 3);
  for (const absl::Status& status :
       {sequence_.Save().status(), sequence_.PublishPrefix().status(), sequence_.Truncate(2),
        sequence_.MeasureFootprint().status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << MessageOf(status);
    EXPECT_THAT(MessageOf(status), HasSubstr("rows=3 of=5 word=3 value=4"));
  }
  ASSERT_TRUE(sequence_.Begin(1).ok()) << "a step needs nothing of it";
  EXPECT_EQ(sequence_.Commit({{7}}).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(sequence_.rows(), 5U);
  ASSERT_TRUE(sequence_.CommitAsync({{7}}, {&word_, 6}).ok()) << "the step was still begun";
  EXPECT_TRUE(sequence_.Close().ok());
  EXPECT_EQ(HeldBytes(), 0U);
}

TEST_F(CommitAsyncTest, ATableThatIsNeededIsMadeOfWhatHasCome) {
  Open("streamingllm:start_size=4,recent_size=20,positions=original");
  std::atomic<bool> stop = false;
  std::thread stream([&] {
    for (uint64_t row = 1; !stop; ++row) {
      std::this_thread::sleep_for(std::chrono::microseconds(300));
      device::RaiseWord(word_, row);
    }
  });
  for (int i = 0; i < 400 && !HasFatalFailure(); ++i) {
    Step();
    if (HasFatalFailure()) break;
    EXPECT_LE(RowsThatTheDaemonHasSeen(), word_.load());
  }
  while (word_ < sequence_.rows()) std::this_thread::yield();
  stop = true;
  stream.join();
  const absl::StatusOr<StepView> view = sequence_.Begin(1);
  ASSERT_TRUE(view.ok()) << MessageOf(view.status());
  WriteTestRows(*view, spec_);
  EXPECT_EQ(VisibleRows(view->layers[0], view->row, 0, spec_).size(), 24U);
}

TEST_F(CommitAsyncTest, WhatIsNoPointIsRefusedAndTheStepGoesOn) {
  Open("full");
  const absl::StatusOr<StepView> view = sequence_.Begin(2);
  ASSERT_TRUE(view.ok());
  WriteTestRows(*view, spec_);
  const auto* const askew =
      reinterpret_cast<const device::DeviceWord*>(reinterpret_cast<const std::byte*>(&word_) + 4);
  for (const device::DeviceWord* const word :
       {static_cast<const device::DeviceWord*>(nullptr), askew}) {
    const absl::Status status = sequence_.CommitAsync({{7}}, {word, 1});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(MessageOf(status), HasSubstr("done.word"));
  }
  EXPECT_EQ(sequence_.CommitAsync({{7, 7, 7}}, {&word_, 1}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(sequence_.CommitAsync({{spec_.vocabulary_size}}, {&word_, 1}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(sequence_.CommitAsync({{7, 7}}, {&word_, 0}).ok());
  EXPECT_EQ(sequence_.CommitAsync({{7}}, {&word_, 1}).code(), absl::StatusCode::kInvalidArgument)
      << "nothing is begun";
  ASSERT_TRUE(sequence_.MeasureFootprint().ok());
  EXPECT_EQ(RowsThatTheDaemonHasSeen(), 2U);
}

TEST_F(CommitAsyncTest, APolicyThatIsToldOfAttentionHasToKnowItAtTheCommit) {
  Open("h2o:hh_size=12,recent_size=8");
  const absl::StatusOr<StepView> view = sequence_.Begin(1);
  ASSERT_TRUE(view.ok());
  WriteTestRows(*view, spec_);
  const absl::Status status = sequence_.CommitAsync({{7}}, {&word_, 0});
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(MessageOf(status), HasSubstr("retention=h2o"));
  EXPECT_TRUE(sequence_.Commit({{7}}).ok());
}

// A table leaves a block that the steps before it read: it is the sequence's until they have come,
// however many steps were begun since.
TEST_F(CommitAsyncTest, WhatATableLeavesIsKeptUntilTheStreamHasLeftIt) {
  uint64_t left = 0;  // the first row whose table has left the first block
  for (const bool holds : {false, true}) {
    Open(kStreaming);
    word_ = 0;
    uint64_t held = 0;
    const uint64_t calls = Calls();
    for (uint64_t row = 0; row < 200; ++row) {
      // The stream is two steps behind. Then it stops two steps before the newer table's first one,
      // and goes on by one of them.
      const uint64_t two_behind = row < 60 ? row : row - 1;  // row 44 needs a table with kept rows
      word_ = !holds ? two_behind : row <= left ? std::min(two_behind, left - 2) : left - 1;
      held = HeldBytes();
      const uint64_t before = Calls();
      const absl::StatusOr<StepView> view = sequence_.Begin(1);
      ASSERT_TRUE(view.ok()) << MessageOf(view.status());
      WriteTestRows(*view, spec_);
      const bool has_left = view->layers[0].recent_base > 0;
      ASSERT_TRUE(sequence_.CommitAsync({{7}}, {&word_, row + 1}).ok());
      if (!holds && has_left) {
        left = row;
        break;
      }
      if (holds && row > left && Calls() > before) break;  // the daemon has looked at the desk
    }
    ASSERT_GT(Calls(), calls);
    ASSERT_GT(left, 40U);
    if (holds) {
      EXPECT_EQ(RowsThatTheDaemonHasSeen(), left - 1);
      EXPECT_GT(HeldBytes(), held) << "a block was granted, and none has come back";
    }
    word_ = uint64_t{1} << 62;
    const absl::StatusOr<Sequence::Footprint> footprint = sequence_.MeasureFootprint();
    ASSERT_TRUE(footprint.ok()) << MessageOf(footprint.status());
    EXPECT_EQ(footprint->held_bytes, HeldBytes()) << "both sides have left it";
    sequence_ = Sequence();
    session_.reset();
  }
}

// One stream writes the rows of a batch: no call between borders, one at a border.
TEST_F(CommitAsyncTest, ABatchAsksTogether) {
  Open("full");
  std::vector<Sequence> sequences;
  for (int i = 0; i < 24; ++i) sequences.push_back(OpenAnother("full"));
  std::vector<Sequence*> all;
  for (Sequence& sequence : sequences) all.push_back(&sequence);
  const uint64_t slots = all[0]->slots_per_block();
  for (uint64_t row = 0; row < 6 * slots; ++row) {
    const uint64_t before = Calls();
    device::RaiseWord(word_, row);  // the steps before
    Sequence::BeginMany(all, 1, [&](size_t, const absl::StatusOr<StepView>& view) {
      ASSERT_TRUE(view.ok()) << MessageOf(view.status());
      EXPECT_EQ(view->row, row);
      WriteTestRows(*view, spec_);
    });
    Sequence::CommitManyAsync(
        all, std::vector<uint32_t>(all.size(), 7), {&word_, row + 1},
        [&](size_t, const absl::Status& status) { ASSERT_TRUE(status.ok()) << MessageOf(status); });
    if (HasFatalFailure()) return;
    // A block's first row is begun, or the last one of the block before has come.
    if (row > 0) {
      EXPECT_LE(Calls() - before, row % slots == 0 ? 2U : 0U) << "row " << row;
    }
  }
  device::RaiseWord(word_, 6 * slots);
  for (Sequence* const sequence : all) {
    EXPECT_EQ(sequence->rows(), 6 * slots);
    EXPECT_TRUE(sequence->Close().ok());
  }
}

}  // namespace
}  // namespace kvasir::testing
