// Clients that misuse what policies ask for: calls about what is not there, and reports, queries
// and keys that are no numbers. The error says which layer; the sequence is of no use from then on,
// but can be closed; what stands beside it goes on, and nothing is lost.
#include <atomic>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
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

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::Eq;
using ::testing::HasSubstr;

constexpr uint32_t kQueryHeads = 4, kKvHeads = 2, kDim = 16;
constexpr char kInfLlm[] =
    "infllm:n_init=2,n_local=8,block_size=4,topk=2,repr_topk=1,max_cached_block=2,"
    "exc_block_size=4";

class AskedClientTest : public DaemonFixture {
 protected:
  void SetUp() override { StartServer(MakeConfig()); }

  RawEngine MakeRaw() {
    return RawEngine(folder_.path() + "/control.sock", folder_.path() + "/data.sock", 2);
  }
  static grpc::Status Select(RawEngine& engine, uint32_t slot, uint32_t uid) {
    v1::SelectRowsRequest request;
    request.set_sequence(slot);
    request.set_uid(uid);
    v1::SelectRowsResponse response;
    return engine.calls().Call(&v1::KvCache::Stub::SelectRows, request, &response);
  }
  static grpc::Status Retrieve(RawEngine& engine, uint32_t slot, uint32_t uid, uint32_t layer,
                               uint64_t mass_blocks) {
    v1::RetrieveRequest request;
    request.set_sequence(slot);
    request.set_uid(uid);
    request.set_layer(layer);
    request.set_mass_blocks(mass_blocks);
    v1::RetrieveResponse response;
    return engine.calls().Call(&v1::KvCache::Stub::Retrieve, request, &response);
  }
  static void Close(RawEngine& engine, const v1::OpenSequenceResponse& sequence) {
    v1::CloseSequenceRequest request;
    request.set_sequence(sequence.sequence());
    request.set_uid(sequence.uid());
    v1::CloseSequenceResponse response;
    const grpc::Status status =
        engine.calls().Call(&v1::KvCache::Stub::CloseSequence, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  static void Expect(const grpc::Status& status, grpc::StatusCode code, const char* text) {
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(text));
  }

  // What is reported and written in a step; the honest numbers unless a test spoils them.
  struct Numbers {
    float mass = 0.25F, query = 0.5F;
    uint16_t key_bits = 0;  // 0: the test's row
  };
  static ModelSpec Spec() {
    ModelSpec spec = TinySpec(2);
    for (LayerSpec& layer : spec.layers) layer.query_heads = kQueryHeads;
    return spec;
  }
  static void Write(const StepView& step, const Numbers& numbers) {
    const ModelSpec spec = Spec();
    WriteTestRows(step, spec);
    for (const LayerView& view : step.layers) {
      for (uint64_t row = step.row; row < step.row + step.count; ++row) {
        if (numbers.key_bits != 0) {
          const RecentBlockView& block =
              view.recent[(row - view.recent_base) / view.slots_per_block];
          std::memcpy(block.k + row % view.slots_per_block * view.k_stride, &numbers.key_bits, 2);
        }
        if (float* const to = view.queries.Of(row)) {
          std::fill_n(to, view.queries.row_floats, numbers.query);
        }
        if (view.mass.recent == nullptr) continue;
        const uint32_t heads = view.mass.by_query_head ? kQueryHeads : kKvHeads;
        for (uint32_t h = 0; h < heads; ++h) {
          view.mass.recent[h * view.mass.recent_rows + row - view.recent_base] += numbers.mass;
        }
      }
    }
  }
  static absl::Status Step(Sequence& sequence, const Numbers& numbers, uint32_t want = 4) {
    const absl::StatusOr<StepView> step = sequence.Begin(want);
    if (!step.ok()) return step.status();
    Write(*step, numbers);
    return sequence.Commit(std::vector<uint32_t>(step->count, 5));
  }
  static absl::Status StepTo(Sequence& sequence, uint64_t rows, const Numbers& numbers) {
    absl::Status status;
    while (status.ok() && sequence.rows() < rows) status = Step(sequence, numbers);
    return status;
  }
  struct Engine {
    std::unique_ptr<Session> session;
    ModelHandle model;
  };
  Engine MakeEngine() {
    Engine engine;
    engine.session = Connect();
    absl::StatusOr<ModelHandle> model = engine.session->RegisterModel(Spec());
    EXPECT_TRUE(model.ok()) << MessageOf(model.status());
    if (model.ok()) engine.model = *model;
    return engine;
  }
  static Sequence Open(Engine& engine, const std::string& retention, uint64_t prompt_rows = 0) {
    absl::StatusOr<Sequence> sequence =
        engine.session->OpenSequence({engine.model, retention, prompt_rows, "attack"});
    EXPECT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    return *std::move(sequence);
  }
};

TEST_F(AskedClientTest, CallsAboutWhatIsNotThere) {
  RawEngine engine = MakeRaw();
  const v1::OpenSequenceResponse full = engine.Open("full");
  const v1::OpenSequenceResponse selects = engine.Open("gemfilter:filter_layer=1,topk=2");
  const v1::OpenSequenceResponse retrieves = engine.Open(kInfLlm);
  const auto missing = grpc::StatusCode::NOT_FOUND;
  const auto wrong = grpc::StatusCode::FAILED_PRECONDITION;
  const auto invalid = grpc::StatusCode::INVALID_ARGUMENT;
  for (const uint32_t slot : {77U, ~0U}) {
    Expect(Select(engine, slot, 1), missing, "unknown or closed sequence");
    Expect(Retrieve(engine, slot, 1, 0, 0), missing, "unknown or closed sequence");
  }
  Expect(Select(engine, selects.sequence(), selects.uid() + 9), grpc::StatusCode::ABORTED, "stale");
  Expect(Retrieve(engine, retrieves.sequence(), 0, 0, 0), grpc::StatusCode::ABORTED, "stale");
  for (const v1::OpenSequenceResponse* other : {&full, &retrieves}) {
    Expect(Select(engine, other->sequence(), other->uid()), wrong, "selects no rows: retention=");
  }
  for (const v1::OpenSequenceResponse* other : {&full, &selects}) {
    Expect(Retrieve(engine, other->sequence(), other->uid(), 0, 0), wrong,
           "retrieves no blocks: retention=");
  }
  for (const uint32_t layer : {2U, ~0U}) {
    Expect(Retrieve(engine, retrieves.sequence(), retrieves.uid(), layer, 0), invalid, "max=1");
  }
  // No block yet: nothing is found, whatever the query is.
  EXPECT_TRUE(Retrieve(engine, retrieves.sequence(), retrieves.uid(), 1, ~uint64_t{0}).ok());
  Expect(Select(engine, selects.sequence(), selects.uid()), wrong, "no rows to select from");
  engine.SetDesk(selects, 5, 1);
  for (int i = 0; i < 2; ++i) {  // the query was never written
    Expect(Select(engine, selects.sequence(), selects.uid()), invalid,
           "filter_layer=1: query is not finite: index=0");
  }
  for (const v1::OpenSequenceResponse* each : {&full, &selects, &retrieves}) Close(engine, *each);
  Expect(Select(engine, selects.sequence(), selects.uid()), missing, "closed");
  Expect(Retrieve(engine, retrieves.sequence(), retrieves.uid(), 0, 0), missing, "closed");
  EXPECT_EQ(HeldBytes(), 0U);
  engine.SetDesk(engine.Open(kInfLlm), 1, 1);
}

TEST_F(AskedClientTest, NumbersThatAreNoneCostTheirSequenceOnly) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  struct Case {
    std::string retention;
    Numbers numbers;
    absl::StatusCode code = absl::StatusCode::kInvalidArgument;
  };
  const auto mass = [](float value) { return Numbers{value, 0.5F, 0}; };
  const auto query = [](float value) { return Numbers{0.25F, value, 0}; };
  const auto keys = [](uint16_t bits) { return Numbers{0.25F, 0.5F, bits}; };
  const std::string h2o = "h2o:hh_size=8,recent_size=4,evict_interval=4";
  const std::string tova = "tova:max_capacity=12,evict_interval=4";
  const std::string snapkv = "snapkv:window_size=4,max_capacity_prompt=12";
  Engine engine = MakeEngine(), beside = MakeEngine();
  Sequence honest = Open(engine, h2o), other = Open(beside, snapkv, 40);
  for (const Case& bad :
       {Case{h2o, mass(kNan)}, Case{h2o, mass(kInf)}, Case{h2o, mass(-1.0F)},
        Case{h2o, mass(0.0F), absl::StatusCode::kFailedPrecondition}, Case{tova, mass(kNan)},
        Case{tova, mass(-kInf)}, Case{snapkv, query(kNan)}, Case{snapkv, query(kInf)},
        Case{snapkv, keys(0x7E00)}, Case{"knorm:max_capacity=12", keys(0x7E00)},
        Case{"keydiff:max_capacity=12", keys(0x7C00)}, Case{kInfLlm, mass(kNan)},
        Case{kInfLlm, mass(-1.0F)}, Case{kInfLlm, keys(0x7E00)},
        Case{kInfLlm, mass(0.0F), absl::StatusCode::kFailedPrecondition}}) {
    SCOPED_TRACE(fmt::format("{} mass={} query={} key={}", bad.retention, bad.numbers.mass,
                             bad.numbers.query, bad.numbers.key_bits));
    Sequence sequence = Open(engine, bad.retention, 40);
    const absl::Status status = StepTo(sequence, 80, bad.numbers);
    EXPECT_EQ(status.code(), bad.code) << MessageOf(status);
    EXPECT_THAT(MessageOf(status), HasSubstr("layer=0"));
    const uint64_t rows = sequence.rows();
    EXPECT_LE(rows, 60U);
    for (int i = 0; i < 2; ++i) EXPECT_EQ(Step(sequence, Numbers{}).code(), bad.code);  // for good
    EXPECT_EQ(sequence.rows(), rows);
    EXPECT_TRUE(sequence.Close().ok());
    ASSERT_TRUE(Step(honest, Numbers{}).ok());
    ASSERT_TRUE(Step(other, Numbers{}).ok());
  }
  EXPECT_TRUE(honest.Close().ok());
  EXPECT_TRUE(other.Close().ok());
  EXPECT_EQ(HeldBytes(), 0U);
}

TEST_F(AskedClientTest, SelectionIsMadeOnceAndOfNumbers) {
  Engine engine = MakeEngine();
  Sequence sequence = Open(engine, "gemfilter:filter_layer=1,topk=3,n_tail=1");
  std::vector<float> query(kKvHeads * kDim, std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(sequence.SelectRows(query).status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(StepTo(sequence, 50, Numbers{}).ok());
  EXPECT_THAT(MessageOf(sequence.SelectRows(query).status()),
              AllOf(HasSubstr("filter_layer=1"), HasSubstr("query is not finite")));
  ASSERT_TRUE(Step(sequence, Numbers{}).ok());  // it may go on and ask again
  query.assign(query.size(), 1.0F);
  const absl::StatusOr<std::vector<uint32_t>> rows = sequence.SelectRows(query);
  ASSERT_TRUE(rows.ok()) << MessageOf(rows.status());
  EXPECT_EQ(rows->size(), 3U);
  EXPECT_EQ(rows->back(), 55U);
  ASSERT_TRUE(StepTo(sequence, 3, Numbers{}).ok());
  EXPECT_THAT(MessageOf(sequence.SelectRows(query).status()), HasSubstr("rows were selected"));
  Sequence spoilt = Open(engine, "gemfilter:filter_layer=0,topk=3");
  ASSERT_TRUE(StepTo(spoilt, 20, Numbers{0.0F, 0.0F, 0x7E00}).ok());
  EXPECT_THAT(MessageOf(spoilt.SelectRows(query).status()),
              AllOf(HasSubstr("filter_layer=0"), HasSubstr("not finite")));
}

TEST_F(AskedClientTest, LookupsOfWhatIsNoNumberLeaveTheSlotsAsTheyAre) {
  Engine engine = MakeEngine();
  Sequence sequence = Open(engine, kInfLlm);
  ASSERT_TRUE(StepTo(sequence, 40, Numbers{}).ok());
  const absl::StatusOr<StepView> step = sequence.Begin(1);
  ASSERT_TRUE(step.ok()) << MessageOf(step.status());
  std::vector<float> query(kQueryHeads * kDim, 1.0F);
  ASSERT_TRUE(sequence.Retrieve(1, query, {}).ok());
  for (const float wrong : {std::numeric_limits<float>::quiet_NaN(), -1.0F}) {
    const std::vector<float> mass = {0.5F, wrong};
    EXPECT_THAT(MessageOf(sequence.Retrieve(1, query, mass).status()),
                AllOf(HasSubstr("layer=1"), HasSubstr("mass must be finite and not negative")));
  }
  query[3] = std::numeric_limits<float>::infinity();
  EXPECT_THAT(MessageOf(sequence.Retrieve(0, query, {}).status()),
              AllOf(HasSubstr("layer=0"), HasSubstr("query is not finite: index=3")));
  query[3] = 1.0F;
  const auto found = sequence.Retrieve(1, query, std::vector<float>{0.5F, 0.5F});
  ASSERT_TRUE(found.ok()) << MessageOf(found.status());
  EXPECT_EQ(found->size(), 2U);
}

// A thread of the engine writes over its rows while the daemon's workers read them.
TEST_F(AskedClientTest, RowsThatChangeUnderTheDaemonHarmNobodyElse) {
  Engine engine = MakeEngine(), beside = MakeEngine();
  Sequence other = Open(beside, "h2o:hh_size=8,recent_size=4,evict_interval=4");
  std::mt19937 random(3);
  for (const std::string& retention : {std::string("keydiff:max_capacity=40"),
                                       std::string("snapkv:window_size=4,"
                                                   "max_capacity_prompt=30"),
                                       std::string(kInfLlm)}) {
    SCOPED_TRACE(retention);
    for (int round = 0; round < 20; ++round) {
      Sequence sequence = Open(engine, retention, 300);
      std::atomic<std::byte*> target{nullptr};
      std::atomic<bool> stop{false};
      std::thread vandal([&, seed = random()] {
        std::mt19937 own(seed);
        while (!stop) {
          std::byte* const at = target;
          if (at != nullptr) at[own() % 512] = static_cast<std::byte>(own());
        }
      });
      absl::Status status;
      for (int i = 0; i < 100 && status.ok(); ++i) {
        const absl::StatusOr<StepView> step = sequence.Begin(4);
        status = step.status();
        if (!status.ok()) break;
        Write(*step, Numbers{});
        target = step->layers[0].recent[0].k;  // goes on while the step is committed and judged
        status = sequence.Commit(std::vector<uint32_t>(step->count, 5));
      }
      stop = true;
      vandal.join();
      EXPECT_THAT(status.code(),
                  AnyOf(Eq(absl::StatusCode::kOk), Eq(absl::StatusCode::kInvalidArgument)))
          << MessageOf(status);
      EXPECT_TRUE(sequence.Close().ok());
      ASSERT_TRUE(Step(other, Numbers{}).ok());
    }
  }
}

}  // namespace
}  // namespace kvasir::testing
