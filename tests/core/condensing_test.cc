// What the daemon makes of a prefix is what an engine makes of the same rows, byte for byte: the
// table, where its queries stand, and all that follows.
#include <array>
#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "kernels/encoding/record.h"
#include "kernels/row_convert.h"
#include "tests/core/degrade_fixture.h"

namespace kvasir::core::testing {
namespace {

constexpr uint64_t kRows = 400, kRowsBehind = 150;

struct Rung {
  const char* source;
  const char* retention;
};
void PrintTo(const Rung& rung, std::ostream* out) {
  *out << rung.source << " to " << rung.retention;
}

using DecodedLayer = std::vector<std::array<std::string, 2>>;  // K and V by row

// The rows that a stream of every row sees, as f16.
std::vector<DecodedLayer> Decode(FakeEngine& engine, const FakeEngine::Stream& stream) {
  std::vector<DecodedLayer> layers(kLayers, DecodedLayer(stream.rows));
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    const LaneRecords::Layer& records = stream.records->layers[layer];
    const uint64_t k_bytes = kernels::RecordBytes(records.k);
    const auto as_f16 = [](const kernels::RecordShape& shape, const std::string& record,
                           uint64_t slot) {
      std::vector<float> rows(size_t{shape.rows} * shape.dims);
      kernels::DecodeRecord(shape, reinterpret_cast<const std::byte*>(record.data()), rows.data());
      std::string row(2 * size_t{shape.dims}, 0);
      for (uint32_t dim = 0; dim < shape.dims; ++dim) {
        kernels::StoreElement(kernels::RowType::kF16, reinterpret_cast<std::byte*>(row.data()), dim,
                              rows[slot * shape.dims + dim]);
      }
      return row;
    };
    std::string before;  // the record that the row before lies in
    uint64_t slot = 0;
    for (auto& [row, text] : engine.Seen(stream, stream.rows - 1, layer)) {
      const std::string bytes = text.substr(text.find(' ') + 1);
      const bool encoded = bytes.size() > 2 * 8 * 2;
      slot = encoded && bytes == before ? slot + 1 : 0;
      before = bytes;
      layers[layer][row] = {
          encoded ? as_f16(records.k, bytes.substr(0, k_bytes), slot) : bytes.substr(0, 16),
          encoded ? as_f16(records.v, bytes.substr(k_bytes), slot) : bytes.substr(16)};
    }
  }
  return layers;
}

class EveryRung : public DegradeCoreTest, public ::testing::WithParamInterface<Rung> {
 protected:
  // Steps two streams, and compares what each query of them sees.
  void ExpectSameFromHere(FakeEngine& engine, FakeEngine::Stream& stream, FakeEngine& other,
                          FakeEngine::Stream& reference) {
    const std::vector<uint32_t> behind = Tokens(kRowsBehind, 9);
    for (const uint32_t token : behind) {
      Step(engine, stream, token);
      Step(other, reference, token);
      if (HasFatalFailure()) return;
      for (uint32_t layer = 0; layer < kLayers; ++layer) {
        ASSERT_TRUE(engine.Seen(stream, stream.rows - 1, layer) ==
                    other.Seen(reference, reference.rows - 1, layer))
            << "row " << stream.rows - 1 << " layer " << layer;
      }
    }
  }
};

INSTANTIATE_TEST_SUITE_P(
    All, EveryRung,
    ::testing::Values(
        Rung{"full", "full+int8"}, Rung{"full", "full+int8:rows=32,recent=5,n_sink=0"},
        Rung{"full", "full+int4/int8:rows=32,recent=70"}, Rung{"full", "full+tm64"},
        Rung{"full", "full+tm32:k_bits=2,v_bits=1.5"},
        Rung{"full", "streamingllm:start_size=4,recent_size=40"},
        Rung{"full", "streamingllm:start_size=3,recent_size=40,positions=original"},
        Rung{"full", "streamingllm:start_size=3,recent_size=90,positions=original+int8:rows=32"},
        Rung{"full", "sepllm:form=static,init_cache_size=4,local_size=33"},
        Rung{"full", "sepllm:form=static,init_cache_size=4,local_size=40+int8:rows=32"},
        Rung{"full",
             "sepllm:form=sepcache,init_cache_size=4,sep_cache_size=8,local_size=16,cache_size=48"},
        Rung{"full",
             "sepllm:form=manager,init_cache_size=3,sep_cache_size=16,local_size=30,cache_size=64"},
        Rung{"full", "fixllm:init_cache_size=4,local_size=16,delta=5"},
        Rung{"full", "sinks:size=3|separators|window:size=20"},
        Rung{"full", "sinks:size=6|stride:size=4|window:size=33+tm32"},
        Rung{"full", "knorm:max_capacity=24,recent_size=3"},
        Rung{"full", "keydiff:max_capacity=40,heads=shared"},
        Rung{"full:positions=unrotated",
             "streamingllm:start_size=4,recent_size=40,positions=unrotated"}));

TEST_P(EveryRung, MakesWhatAnEngineMakesOfTheSameRows) {
  StartWith({GetParam().retention}, 9);
  uint32_t model = 0, others_model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  FakeEngine& other = ConnectOwn(2, &others_model);
  const std::vector<uint32_t> tokens = Tokens(kRows, 3);
  Store(engine, model, GetParam().source, tokens);
  ASSERT_FALSE(HasFatalFailure());
  RunJobs();
  ExpectConserved();
  EXPECT_EQ(Counters().condensings, 1U);
  EXPECT_EQ(Counters().condensing_failures, 0U);
  EXPECT_EQ(Counters().condensed_rows, kRows);
  Store(other, others_model, GetParam().retention, tokens);
  ASSERT_FALSE(HasFatalFailure());

  absl::StatusOr<FakeEngine::Stream> stream =
      AttachAtLeast(engine, model, tokens, QualityClass::kCompacted, GetParam().source);
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  absl::StatusOr<FakeEngine::Stream> reference =
      Attach(other, others_model, GetParam().retention, tokens);
  ASSERT_TRUE(reference.ok()) << MessageOf(reference.status());
  ASSERT_EQ(stream->rows, kRows);
  ASSERT_EQ(reference->rows, kRows);
  // What is prepared ahead of its row depends on when.
  EXPECT_LE(HeldOf("a"), HeldOf("b") + 2 * stream->block.bytes);
  ExpectSameFromHere(engine, *stream, other, *reference);
  ExpectConserved();
  // Who goes on publishes in the same form; to the form that an engine makes it is no kin.
  ASSERT_TRUE(Publish(engine, *stream).ok());
  EXPECT_EQ(RowsAttached(engine, model, GetParam().retention, stream->ids), 0U);
}

class LastRung : public EveryRung {};

INSTANTIATE_TEST_SUITE_P(
    All, LastRung,
    ::testing::Values(
        Rung{"full+int8:rows=32", "streamingllm:start_size=4,recent_size=40"},
        Rung{"full+int8:rows=32", "streamingllm:start_size=3,recent_size=40,positions=original"},
        Rung{"full+int4:rows=32", "sepllm:form=static,init_cache_size=4,local_size=33"},
        Rung{"full+int8:rows=32", "keydiff:max_capacity=24,heads=shared"},
        Rung{"full+tm32", "fixllm:init_cache_size=4,local_size=16,delta=8"},
        Rung{"full+int8:rows=32,recent=70", "sinks:size=3|separators|window:size=20"},
        Rung{"full+int8:rows=32", "knorm:max_capacity=24,recent_size=3"}));

// Rows that were encoded are decoded once, and what is made of them is what an engine makes that
// has them so from the beginning.
TEST_P(LastRung, MakesOfDecodedRowsWhatAnEngineMakesOfThem) {
  const std::string source = GetParam().source, retention = GetParam().retention;
  StartWith({source, retention}, 6);
  uint32_t model = 0, others_model = 0, third_model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  FakeEngine& other = ConnectOwn(2, &others_model);
  FakeEngine& third = ConnectOwn(2, &third_model);
  const std::vector<uint32_t> tokens = Text(kRows, 3);
  Store(engine, model, source, tokens);
  Store(other, others_model, source, tokens);
  ASSERT_FALSE(HasFatalFailure());
  RunJobs();
  EXPECT_EQ(Counters().condensings, 1U);
  absl::StatusOr<FakeEngine::Stream> encoded = Attach(other, others_model, source, tokens);
  ASSERT_TRUE(encoded.ok()) << MessageOf(encoded.status());
  ASSERT_EQ(encoded->rows, kRows);
  const std::vector<DecodedLayer> decoded = Decode(other, *encoded);
  third.rows_from = [&](uint64_t row, uint32_t layer, uint32_t plane) {
    return row < kRows ? decoded[layer][row][plane] : std::string();
  };
  Store(third, third_model, retention, tokens);
  ASSERT_FALSE(HasFatalFailure());

  absl::StatusOr<FakeEngine::Stream> stream =
      AttachAtLeast(engine, model, tokens, QualityClass::kCompacted);
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  absl::StatusOr<FakeEngine::Stream> reference = Attach(third, third_model, retention, tokens);
  ASSERT_TRUE(reference.ok()) << MessageOf(reference.status());
  ASSERT_EQ(stream->rows, kRows);
  ASSERT_EQ(reference->rows, kRows);
  ExpectSameFromHere(engine, *stream, third, *reference);
  ExpectConserved();
}

}  // namespace
}  // namespace kvasir::core::testing
