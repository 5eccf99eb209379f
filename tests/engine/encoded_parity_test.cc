// Encoded rows through the reference engine and a daemon, with the tiny model at F32: logits
// against the same engine on rows in this process, each of which is replaced by what its record
// says at the row at which the daemon's record comes into use.
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "base/bytes.h"
#include "base/error.h"
#include "engine/private_kv_store.h"
#include "engine/profile_store.h"
#include "tests/engine/daemon_parity_support.h"

#include <fmt/format.h>

namespace kvasir::engine::testing {
namespace {

using kernels::Codec;
using kernels::RecordPlane;
using kernels::RowType;
using ::testing::HasSubstr;

constexpr size_t kTokens = 420;
constexpr uint32_t kBatch = 24;

struct EncodedCase {
  std::string name, retention;
  Codec k, v;
  uint32_t rows;
  uint64_t n_sink, recent;
  double k_bits = 0, v_bits = 0;
  uint64_t window = 0;
};

std::vector<EncodedCase> Cases() {
  return {{"Int8", "full+int8", Codec::kInt8, Codec::kInt8, 64, 4, 32},
          {"Int4", "full+int4:rows=32,recent=20,n_sink=0", Codec::kInt4, Codec::kInt4, 32, 0, 20},
          {"KeysAlone", "full+int4/as_written:recent=5", Codec::kInt4, Codec::kAsWritten, 64, 4, 5},
          {"ValuesAlone", "full+as_written/tm32:v_bits=2", Codec::kAsWritten, Codec::kTokenMixed,
           32, 4, 16, 0, 2},
          {"Tm64", "full+tm64:k_bits=3.25,v_bits=2.75", Codec::kTokenMixed, Codec::kTokenMixed, 64,
           4, 32, 3.25, 2.75},
          {"Tm32", "full+tm32:k_bits=2,v_bits=1.5,n_sink=7,recent=0", Codec::kTokenMixed,
           Codec::kTokenMixed, 32, 7, 0, 2, 1.5},
          {"Mixed", "full+tm64/int8:k_bits=4", Codec::kTokenMixed, Codec::kInt8, 64, 4, 32, 4},
          {"Window",
           "streamingllm:start_size=0,recent_size=150,positions=original+int8:rows=32,recent=16",
           Codec::kInt8, Codec::kInt8, 32, 0, 16, 0, 0, 150}};
}

void PrintTo(const EncodedCase& one, std::ostream* out) { *out << one.retention; }

// Every layer shows a window and nothing else.
class WindowStore final : public OwningStore {
 public:
  WindowStore(std::unique_ptr<KvStore> store, uint64_t window)
      : OwningStore(std::move(store)), window_(window) {}
  absl::StatusOr<StepView> Begin(uint32_t want) override {
    absl::StatusOr<StepView> step = OwningStore::Begin(want);
    if (!step.ok()) return step;
    layers_.assign(step->layers.begin(), step->layers.end());
    for (LayerView& layer : layers_) layer.window = window_;
    step->layers = layers_;
    return step;
  }

 private:
  const uint64_t window_;
  std::vector<LayerView> layers_;
};

class EncodedRows : public DaemonParity, public ::testing::WithParamInterface<EncodedCase> {
 protected:
  void SetUp() override {
    StartDaemon(64 * kMiB);
    LoadModel(kTinyModel);
  }

  std::unique_ptr<KvStore> Plain() const {
    return ValueOrDie(
        PrivateKvStore::Create(GeometryOf(model_->parameters(), RowType::kF32, 64), kTokens));
  }

  std::unique_ptr<KvStore> Reference(const EncodedCase& one) const {
    std::unique_ptr<KvStore> store = Plain();
    const HyperParameters& p = model_->parameters();
    for (uint32_t layer = 0; layer < p.layers; ++layer) {
      for (const RecordPlane plane : {RecordPlane::kKey, RecordPlane::kValue}) {
        const bool key = plane == RecordPlane::kKey;
        OneLayerEncodedStore::Config config;
        config.layer = layer;
        config.kv_heads = p.kv_heads;
        config.n_sink = one.n_sink;
        config.recent = one.recent;
        config.shape = {.codec = key ? one.k : one.v,
                        .plane = plane,
                        .type = RowType::kF32,
                        .rows = one.rows,
                        .dims = p.head_dim};
        if (config.shape.codec == Codec::kTokenMixed) {
          config.shape.code_planes =
              static_cast<uint32_t>((key ? one.k_bits : one.v_bits) * p.head_dim);
        }
        store = std::make_unique<OneLayerEncodedStore>(std::move(store), config);
      }
    }
    if (one.window > 0) store = std::make_unique<WindowStore>(std::move(store), one.window);
    return store;
  }
};

TEST_P(EncodedRows, LogitsAreThoseOfTheDecodedRows) {
  const EncodedCase& one = GetParam();
  const std::vector<uint32_t> tokens = Prose(kTokens);
  const auto ours = MakeStore(one.retention);
  const auto reference = Reference(one);
  const Difference difference = Compare(*ours, *reference, tokens, kBatch);
  const auto again = MakeStore(one.retention);
  const auto plain = Plain();
  const Difference encoding = Compare(*again, *plain, tokens, kBatch);
  fmt::print("  {}: logits differ by {:.6f}, without the encoding by {:.3f}\n", one.name,
             difference.logit, encoding.logit);
  EXPECT_LE(difference.logit, 2e-3);
  EXPECT_EQ(difference.argmax_changes, 0U);
  EXPECT_GT(encoding.logit, 3e-3);  // something was encoded
  EXPECT_GT(ours->Compactions(), 3U);
}

std::string NameOf(const ::testing::TestParamInfo<EncodedCase>& one) { return one.param.name; }
INSTANTIATE_TEST_SUITE_P(All, EncodedRows, ::testing::ValuesIn(Cases()), NameOf);

class EncodedSequences : public EncodedRows {};

// Held bytes are those of groups of records, on both sides of the table.
TEST_F(EncodedSequences, FewerBytesAreHeld) {
  const std::vector<uint32_t> tokens = Prose(kTokens);
  const auto full = MakeStore("full");
  const auto ours = MakeStore("full+int4:recent=16");
  (void)ComputeAll(*engine_, *full, tokens, kBatch);
  (void)ComputeAll(*engine_, *ours, tokens, kBatch);
  const KvUsage before = ValueOrDie(full->Usage());
  const KvUsage after = ValueOrDie(ours->Usage());
  EXPECT_EQ(after.tokens_kept, tokens.size());
  EXPECT_EQ(after.tokens_seen, before.tokens_seen);
  EXPECT_LT(after.held_bytes * 10, before.held_bytes * 6);
}

TEST_F(EncodedSequences, AnEngineThatDoesNotReadRecordsIsRefused) {
  const auto session = ValueOrDie(Session::Connect(MakeConnectOptions()));
  ModelSpec spec = ValueOrDie(ModelSpecOf(*model_, *tokenizer_, {}));
  const ModelHandle model = ValueOrDie(session->RegisterModel(spec));
  OpenOptions options;
  options.model = model;
  options.retention = "full+int4";
  const auto refused = session->OpenSequence(options);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(MessageOf(refused.status()), HasSubstr("does not read encoded rows"));
  options.reads_records = true;
  EXPECT_TRUE(session->OpenSequence(options).ok());
}

// Which rows lie in records is a matter of the tokens: batches change the order in which numbers
// are added up, and no more. Nor do the lanes of layers wait for each other, whose tables end at
// other rows and are known other times ahead.
TEST_F(EncodedSequences, RowsInRecordsDoNotDependOnTheBatches) {
  const std::vector<uint32_t> tokens = Prose(kTokens);
  const uint32_t others = layers() - 1;
  const std::pair<std::string, const char*> cases[] = {
      {"sinks:size=4|stride:size=2|window:size=48", "+int4:rows=32"},
      {"fixllm:init_cache_size=4,local_size=100,delta=2", "+int4:rows=32"},
      {fmt::format("fixllm:init_cache_size=4,local_size=20x1/200x{},delta=2", others),
       "+int4:rows=32"},
      {fmt::format("streamingllm:start_size=0,recent_size=400x1/415x{},positions=original", others),
       "+int4:recent=345"}};
  for (const auto& [policy, encoding] : cases) {
    const std::string spec = policy + encoding;
    const std::vector<float> one_by_one = ComputeAll(*engine_, *MakeStore(spec), tokens, 1);
    for (const uint32_t batch : {7U, 48U, 200U}) {
      Difference difference;
      difference.Add(ComputeAll(*engine_, *MakeStore(spec), tokens, batch), one_by_one,
                     model_->parameters().vocabulary);
      EXPECT_LE(difference.logit, 1e-3) << spec << " batch " << batch;
    }
    Difference encoded;
    encoded.Add(ComputeAll(*engine_, *MakeStore(policy), tokens, 1), one_by_one,
                model_->parameters().vocabulary);
    fmt::print("  {}: without the encoding logits differ by {:.3f}\n", spec, encoded.logit);
    EXPECT_GT(encoded.logit, 2e-3);
  }
}

class EncodedDefault : public DaemonParity {
 protected:
  void SetUp() override {
    StartDaemon(64 * kMiB, "full+int4");
    LoadModel(kTinyModel);
  }
};

TEST_F(EncodedDefault, IsLeftOutForAnEngineThatDoesNotReadRecords) {
  const auto session = ValueOrDie(Session::Connect(MakeConnectOptions()));
  ModelSpec spec = ValueOrDie(ModelSpecOf(*model_, *tokenizer_, {}));
  OpenOptions options;
  options.model = ValueOrDie(session->RegisterModel(spec));
  EXPECT_EQ(ValueOrDie(session->OpenSequence(options)).retention(), "full");
  options.reads_records = true;
  EXPECT_THAT(ValueOrDie(session->OpenSequence(options)).retention(), HasSubstr("full+int4"));
}

TEST_F(EncodedSequences, RowsAreTakenBackDownToTheLastRecord) {
  const std::vector<uint32_t> tokens = Prose(kTokens);
  const auto ours = MakeStore("full+int8:rows=32,recent=16");
  const auto reference = Reference({"", "", Codec::kInt8, Codec::kInt8, 32, 4, 16});
  const size_t vocabulary = model_->parameters().vocabulary;
  (void)ComputeAll(*engine_, *ours, std::span(tokens).first(200), kBatch);
  // The last record in use begins to be at row 4 + 5 * 32 + 16 = 180.
  const absl::Status refused = ours->Truncate(100);
  ASSERT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(FloorNamedIn(refused), 180U);
  ASSERT_TRUE(ours->Truncate(185).ok());
  (void)ComputeAll(*engine_, *reference, std::span(tokens).first(185), kBatch);
  const auto rest = std::span(tokens).subspan(185);
  Difference difference;
  difference.Add(ComputeAll(*engine_, *ours, rest, kBatch),
                 ComputeAll(*engine_, *reference, rest, kBatch), vocabulary);
  EXPECT_LE(difference.logit, 2e-3);
}

}  // namespace
}  // namespace kvasir::engine::testing
