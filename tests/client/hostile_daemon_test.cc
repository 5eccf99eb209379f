// A daemon that says what does not fit the model: every wrong field of how values are coded, and of
// the tables that name them, is refused by the client before an engine reads a byte by it.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "client/session.h"
#include "tests/client/meddler.h"
#include "tests/support/daemon_fixture.h"

#include <fmt/format.h>

namespace kvasir::testing {
namespace {

using ::testing::HasSubstr;

constexpr char kCoded[] = "knorm:max_capacity=20,recent_size=8,evict_interval=16+as_written/rot3";
constexpr char kPlain[] = "knorm:max_capacity=20,recent_size=8,evict_interval=16";
constexpr uint64_t kRows = 60;
// Of TinySpec: 2 kv heads, each a norm and 16 elements of 3 bits.
constexpr uint32_t kCodedBytes = 14, kWrittenBytes = 64;
constexpr uint32_t kMax = ~uint32_t{0};

class HostileDaemonTest : public DaemonFixture {
 protected:
  void SetUp() override {
    DaemonFixture::SetUp();
    const std::string socket = folder_.path() + "/meddler.sock";
    meddler_ = std::make_unique<Meddler>(socket, folder_.path() + "/control.sock");
    ConnectOptions options = MakeConnectOptions();
    options.control_socket = socket;
    options.use_ring = false;                    // where the meddler stands
    options.deadline = std::chrono::seconds(2);  // of a wait for memory that never comes
    auto session = Session::Connect(options);
    ASSERT_TRUE(session.ok()) << MessageOf(session.status());
    session_ = *std::move(session);
    const auto model = session_->RegisterModel(spec_);
    ASSERT_TRUE(model.ok()) << MessageOf(model.status());
    model_ = *model;
    ASSERT_NO_FATAL_FAILURE(coded_ = Save(kCoded));
    ASSERT_NO_FATAL_FAILURE(plain_ = Save(kPlain));
  }
  void TearDown() override {
    meddler_->meddle = nullptr;
    for (const std::string& id : {coded_, plain_}) EXPECT_TRUE(session_->DropSnapshot(id).ok());
    session_.reset();
    meddler_.reset();
    DaemonFixture::TearDown();
  }

  // A sequence with kept rows, so that the first table of who goes on from it names them.
  std::string Save(const std::string& retention) {
    OpenOptions open{model_, retention, 0, ""};
    open.reads_records = true;
    absl::StatusOr<Sequence> sequence = session_->OpenSequence(open);
    EXPECT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    while (sequence.ok() && sequence->rows() < kRows) {
      const absl::StatusOr<StepView> step = sequence->Begin(4);
      EXPECT_TRUE(step.ok()) << MessageOf(step.status());
      if (!step.ok()) return "";
      WriteTestRows(*step, spec_);
      EXPECT_TRUE(sequence->Commit(std::vector<uint32_t>(step->count, 5)).ok());
    }
    const absl::StatusOr<Snapshot> saved = sequence->Save();
    EXPECT_TRUE(saved.ok()) << MessageOf(saved.status());
    return saved.ok() ? saved->id : "";
  }
  absl::StatusOr<Sequence> Open(const std::string& snapshot) {
    OpenOptions open{model_, "", 0, ""};
    open.reads_records = true;
    open.snapshot = snapshot;
    return session_->OpenSequence(open);
  }
  // Nothing that was refused before harms who comes later.
  void ExpectHonestOnesGoOn() {
    meddler_->meddle = nullptr;
    for (const bool coded : {true, false}) {
      absl::StatusOr<Sequence> sequence = Open(coded ? coded_ : plain_);
      ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
      EXPECT_EQ(sequence->rows(), kRows);
      const absl::StatusOr<StepView> step = sequence->Begin(1);
      ASSERT_TRUE(step.ok()) << MessageOf(step.status());
      ASSERT_FALSE(step->layers[1].kept.empty());
      for (const KeptRunView& run : step->layers[1].kept) {
        EXPECT_EQ(run.v_bits, coded ? 3U : 0U);
        EXPECT_EQ(run.v_stride, coded ? kCodedBytes : kWrittenBytes);
        for (uint32_t i = 0; i < run.rows; ++i) EXPECT_EQ(run.tokens[i], 5U);
      }
    }
  }
  struct Lie {
    std::string name;
    std::function<void(v1::OpenSequenceResponse&)> tell;
    std::string error;
    bool of_plain = false;  // told about rows that lie as written
  };
  void ExpectRefused(const std::vector<Lie>& lies) {
    const uint64_t held = HeldBytes();
    for (const Lie& lie : lies) {
      SCOPED_TRACE(lie.name);
      int told = 0;
      meddler_->meddle = [&](v1::OpenSequenceResponse& answer) {
        ++told;
        lie.tell(answer);
      };
      const absl::StatusOr<Sequence> sequence = Open(lie.of_plain ? plain_ : coded_);
      EXPECT_EQ(told, 1);
      EXPECT_EQ(sequence.status().code(), absl::StatusCode::kDataLoss);
      EXPECT_THAT(MessageOf(sequence.status()), HasSubstr(lie.error));
      EXPECT_EQ(HeldBytes(), held);  // the client has closed it
    }
    ExpectHonestOnesGoOn();
  }

  const ModelSpec spec_ = TinySpec(2);
  std::unique_ptr<Meddler> meddler_;
  std::unique_ptr<Session> session_;
  ModelHandle model_;
  std::string coded_, plain_;  // snapshots
};

v1::LaneValueCodes& CodesOf(v1::OpenSequenceResponse& answer) {
  return *answer.mutable_lanes(0)->mutable_value_codes();
}

TEST_F(HostileDaemonTest, HowValuesAreCodedHasToFitTheModel) {
  std::vector<Lie> lies;
  for (const uint32_t bits : {0U, 1U, 2U, 4U, 8U, kMax}) {
    lies.push_back({fmt::format("bits {}", bits), [=](auto& a) { CodesOf(a).set_bits(bits); },
                    fmt::format("bits={}", bits)});
  }
  for (const int layer : {0, 1}) {
    for (const uint32_t bytes :
         {0U, 1U, kCodedBytes - 1, kCodedBytes + 1, kWrittenBytes - 1, kWrittenBytes, kMax}) {
      lies.push_back({fmt::format("row_bytes {} of layer {}", bytes, layer),
                      [=](auto& a) { CodesOf(a).set_row_bytes(layer, bytes); },
                      fmt::format("layer={} row_bytes={} expected=14", layer, bytes)});
    }
  }
  lies.push_back({"no layers", [](auto& a) { CodesOf(a).clear_row_bytes(); }, "layers=0"});
  lies.push_back({"a layer less", [](auto& a) { CodesOf(a).mutable_row_bytes()->RemoveLast(); },
                  "layers=1 expected=2"});
  lies.push_back({"a layer more", [](auto& a) { CodesOf(a).add_row_bytes(kCodedBytes); },
                  "layers=3 expected=2"});
  // Said by the table, not by the answer, and the other way round.
  lies.push_back({"no codes", [](auto& a) { a.mutable_lanes(0)->clear_value_codes(); },
                  "run has another encoding than its lane"});
  lies.push_back({"codes of rows as written",
                  [](auto& a) {
                    CodesOf(a).set_bits(3);
                    for (int layer = 0; layer < 2; ++layer) CodesOf(a).add_row_bytes(kCodedBytes);
                  },
                  "run has another encoding than its lane", true});
  ExpectRefused(lies);
}

TEST_F(HostileDaemonTest, TablesThatNameThemHaveToLieInTheirSegment) {
  const auto lie = [](const char* name, void (*tell)(DaemonTable), const char* error) {
    return Lie{name, [tell](auto& answer) { tell(DaemonTable::Of(answer.sequence())); }, error};
  };
  const char* const malformed = "block table is malformed";
  const char* const outside = "run lies outside its group";
  const char* const encoding = "run has another encoding";
  ExpectRefused({
      lie(
          "lanes", [](DaemonTable t) { t.desc.lanes = 2; }, malformed),
      lie(
          "lanes_off at the end", [](DaemonTable t) { t.desc.lanes_off = ~uint64_t{63}; },
          malformed),
      lie(
          "lanes_off askew", [](DaemonTable t) { t.desc.lanes_off += 4; }, malformed),
      lie(
          "runs", [](DaemonTable t) { t.spans->runs = kMax; }, malformed),
      lie(
          "runs_off wraps", [](DaemonTable t) { t.spans->runs_off = uint64_t{0} - 64; }, malformed),
      lie(
          "runs_off askew", [](DaemonTable t) { t.spans->runs_off += 1; }, malformed),
      lie(
          "sticky", [](DaemonTable t) { t.spans->sticky = kMax; }, malformed),
      lie(
          "sticky_off wraps",
          [](DaemonTable t) {
            t.spans->sticky = 2;
            t.spans->sticky_off = uint64_t{0} - 8;
          },
          malformed),
      lie(
          "kept_rows", [](DaemonTable t) { t.spans->kept_rows += 1; }, malformed),
      lie(
          "recent_first", [](DaemonTable t) { t.spans->recent_first = kRows + 1; }, malformed),
      lie(
          "encoding as written", [](DaemonTable t) { t.runs->encoding = 0; }, encoding),
      lie(
          "encoding of none", [](DaemonTable t) { t.runs->encoding = 3; }, encoding),
      lie(
          "encoding as records", [](DaemonTable t) { t.runs->encoding = 1; }, outside),
      lie(
          "slots", [](DaemonTable t) { t.runs->group_slots += 1; }, outside),
      lie(
          "rows", [](DaemonTable t) { t.runs->rows = kMax; }, outside),
      lie(
          "first_slot", [](DaemonTable t) { t.runs->first_slot = kMax; }, outside),
      lie(
          "group_off askew", [](DaemonTable t) { t.runs->group_off += 2; }, outside),
      lie(
          "group_off beyond", [](DaemonTable t) { t.runs->group_off = uint64_t{1} << 40; },
          "block lies outside its extent"),
      lie(
          "group_off wraps", [](DaemonTable t) { t.runs->group_off = uint64_t{0} - 4096; },
          "block lies outside its extent"),
  });
}

// A lie without a contradiction: the rows are wrong, but they are the sequence's own.
TEST_F(HostileDaemonTest, OtherCodesThatFitStayInsideTheirGroups) {
  meddler_->meddle = [](v1::OpenSequenceResponse& answer) {
    CodesOf(answer).set_bits(2);
    for (const int layer : {0, 1}) CodesOf(answer).set_row_bytes(layer, 10);
  };
  absl::StatusOr<Sequence> sequence = Open(coded_);
  ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
  const absl::StatusOr<StepView> step = sequence->Begin(1);
  ASSERT_TRUE(step.ok()) << MessageOf(step.status());
  unsigned read = 0;
  for (const LayerView& view : step->layers) {
    for (const KeptRunView& run : view.kept) {
      for (uint32_t byte = 0; byte < run.rows * run.v_stride; ++byte) {
        read += std::to_integer<unsigned>(run.v[byte]);
      }
    }
  }
  EXPECT_GT(read, 0U);
}

TEST_F(HostileDaemonTest, ADirectoryOfRecentBlocksHasToLieInItsSegment) {
  for (const auto& [offset, blocks] : {std::pair{uint64_t{0} - 16, 8U},
                                       {uint64_t{1} << 40, 8U},
                                       {uint64_t{3}, 8U},
                                       {uint64_t{4096}, 0U},
                                       {uint64_t{4096}, kMax}}) {
    SCOPED_TRACE(fmt::format("dir_off={} dir_cap={}", offset, blocks));
    meddler_->meddle = [&, offset = offset, blocks = blocks](v1::OpenSequenceResponse& answer) {
      shm::SeqBoard& board = DaemonTable::Of(answer.sequence()).board;
      board.dir_off = offset;
      board.dir_cap = blocks;
    };
    absl::StatusOr<Sequence> sequence = Open(coded_);
    ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    const absl::StatusOr<StepView> step = sequence->Begin(1);
    EXPECT_EQ(step.status().code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(MessageOf(step.status()), HasSubstr("directory of recent blocks is malformed"));
  }
  ExpectHonestOnesGoOn();
}

TEST_F(HostileDaemonTest, ATableThatWasRefusedIsNotUsedLater) {
  uint32_t slot = 0;
  meddler_->meddle = [&](v1::OpenSequenceResponse& answer) { slot = answer.sequence(); };
  absl::StatusOr<Sequence> sequence = Open(coded_);
  ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
  // The tables that the daemon makes when more rows are there.
  meddler_->after_sync = [&] { DaemonTable::Of(slot).spans->kept_rows = kMax; };
  absl::Status status;
  for (int i = 0; i < 100 && status.ok(); ++i) {
    const absl::StatusOr<StepView> step = sequence->Begin(1);
    status = step.status();
    if (!status.ok()) break;
    WriteTestRows(*step, spec_);
    status = sequence->Commit(std::vector<uint32_t>{5});
  }
  meddler_->after_sync = nullptr;
  EXPECT_THAT(MessageOf(status), HasSubstr("block table is malformed"));
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(MessageOf(sequence->Begin(1).status()), HasSubstr("block table is malformed"));
  }
  ExpectHonestOnesGoOn();
}

}  // namespace
}  // namespace kvasir::testing
