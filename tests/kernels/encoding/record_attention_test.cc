// Attention over records against a softmax in double over the decoded rows.
#include "kernels/encoding/record_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "tests/kernels/encoding/record_cases.h"
#include "tests/kernels/targets.h"

namespace kvasir::kernels {
namespace {

using test::Pick;

// Blocks of one cache: records of all kv heads one behind the other, and the rows they decode to.
struct Blocks {
  Blocks(const RecordAttention& wanted, uint32_t count, uint32_t set_count, std::mt19937& random)
      : shape(wanted), sets(set_count) {
    for (uint32_t block = 0; block < count; ++block) {
      k.push_back(Encode(shape.k, k_rows, random));
      v.push_back(Encode(shape.v, v_rows, random));
      const uint32_t first = Pick(random, 0, 2) == 0 ? Pick(random, 0, shape.k.rows) : 0;
      const uint32_t last = Pick(random, 0, 2) == 0 ? Pick(random, 0, shape.k.rows) : shape.k.rows;
      runs.push_back({k.back()->data(), v.back()->data(), first, last, Pick(random, 0, sets - 1)});
    }
    q = test::Randoms(size_t{sets} * shape.kv_heads * shape.heads * shape.k.dims, random);
  }

  std::unique_ptr<test::Guarded> Encode(const RecordShape& record, std::vector<float>& rows,
                                        std::mt19937& random) const {
    const uint64_t bytes = RecordBytes(record);
    auto made = std::make_unique<test::Guarded>(bytes * shape.kv_heads);
    for (uint32_t head = 0; head < shape.kv_heads; ++head) {
      const test::RecordCase it(record, random);
      EncodeRecord(record, it.sources, it.turn, {}, made->data() + head * bytes);
      const size_t at = rows.size();
      rows.resize(at + size_t{record.rows} * record.dims);
      scalar::DecodeRecord(record, made->data() + head * bytes, rows.data() + at);
    }
    return made;
  }

  // Row of a block's kv head.
  const float* Row(const std::vector<float>& rows, const RecordShape& record, size_t block,
                   size_t head, size_t row) const {
    return rows.data() + ((block * shape.kv_heads + head) * record.rows + row) * record.dims;
  }

  RecordAttention shape;
  uint32_t sets;
  std::vector<std::unique_ptr<test::Guarded>> k, v;
  std::vector<RecordRun> runs;
  std::vector<float> k_rows, v_rows, q;
};

RecordAttention RandomAttention(std::mt19937& random) {
  RecordAttention shape;
  shape.k = test::RandomShape(random);
  shape.k.plane = RecordPlane::kKey;
  shape.v = test::RandomShape(random);
  shape.v.plane = RecordPlane::kValue;
  shape.v.rows = shape.k.rows;
  // More than are held at once, now and then.
  shape.heads = Pick(random, 0, 9) == 0 ? Pick(random, 17, 35) : Pick(random, 1, 9);
  shape.kv_heads = Pick(random, 1, 5);
  shape.scale = 1.0F / std::sqrt(static_cast<float>(shape.k.dims));
  return shape;
}

// A softmax in double, one row after the other.
struct Softmax {
  explicit Softmax(size_t dims) : acc(dims) {}
  void Add(double score, const float* value) {
    const double top = std::max(max, score);
    const double keep = std::exp(max - top);
    const double weight = std::exp(score - top);
    max = top;
    sum = sum * keep + weight;
    for (size_t dim = 0; dim < acc.size(); ++dim) {
      acc[dim] = acc[dim] * keep + weight * double{value[dim]};
    }
  }
  double max = std::numeric_limits<double>::lowest();
  double sum = 0;
  std::vector<double> acc;
};

double Dot(const float* a, const float* b, size_t dims) {
  double sum = 0;
  for (size_t dim = 0; dim < dims; ++dim) {
    sum += double{a[dim]} * double{b[dim]};
  }
  return sum;
}

void ExpectOutputs(const AttentionState& state, const std::vector<Softmax>& want) {
  const auto dims = static_cast<uint32_t>(want[0].acc.size());
  std::vector<float> out(state.acc.size(), -1.0F);
  FinishState(state, dims, out.data());
  for (size_t head = 0; head < want.size(); ++head) {
    for (size_t dim = 0; dim < dims; ++dim) {
      const double value = want[head].sum > 0 ? want[head].acc[dim] / want[head].sum : 0;
      ASSERT_NEAR(out[head * dims + dim], value, 1e-4) << "head " << head << " dim " << dim;
    }
  }
}

// Adds blocks to one softmax for each query head.
void AddBlocks(const Blocks& it, std::vector<Softmax>& want) {
  const RecordAttention& shape = it.shape;
  for (size_t head = 0; head < want.size(); ++head) {
    for (size_t block = 0; block < it.runs.size(); ++block) {
      const RecordRun& run = it.runs[block];
      const float* q = it.q.data() + (run.query_set * want.size() + head) * shape.k.dims;
      for (size_t row = run.first; row < run.last; ++row) {
        const size_t kv_head = head / shape.heads;
        const float* key = it.Row(it.k_rows, shape.k, block, kv_head, row);
        const float* value = it.Row(it.v_rows, shape.v, block, kv_head, row);
        want[head].Add(Dot(q, key, shape.k.dims) * double{shape.scale}, value);
      }
    }
  }
}

TEST(AttendRecordsTest, RandomShapesAgreeWithDoubles) {
  ForEachTarget([] {
    std::mt19937 random(1);
    for (int round = 0; round < 60; ++round) {
      SCOPED_TRACE(round);
      const RecordAttention shape = RandomAttention(random);
      const Blocks it(shape, Pick(random, 0, 4), Pick(random, 1, 3), random);
      const uint32_t heads = shape.kv_heads * shape.heads;
      AttentionState state;
      state.Reset(heads, shape.v.dims);
      AttendRecords(shape, it.q.data(), it.runs, state);
      std::vector<Softmax> want(heads, Softmax(shape.v.dims));
      AddBlocks(it, want);
      ExpectOutputs(state, want);
    }
  });
}

// Records, plain rows and records again: one softmax over all of them.
TEST(AttendRecordsTest, MixesWithRows) {
  ForEachTarget([] {
    std::mt19937 random(2);
    for (int round = 0; round < 30; ++round) {
      SCOPED_TRACE(round);
      const RecordAttention shape = RandomAttention(random);
      const Blocks it(shape, Pick(random, 2, 4), 1, random);
      const uint32_t heads = shape.kv_heads * shape.heads;
      const uint32_t rows = Pick(random, 1, 70);
      const auto keys = test::Randoms(size_t{rows} * shape.kv_heads * shape.k.dims, random);
      const auto values = test::Randoms(size_t{rows} * shape.kv_heads * shape.v.dims, random);
      const AttentionRun run = {.k = reinterpret_cast<const std::byte*>(keys.data()),
                                .v = reinterpret_cast<const std::byte*>(values.data()),
                                .k_stride = shape.kv_heads * shape.k.dims * 4,
                                .v_stride = shape.kv_heads * shape.v.dims * 4,
                                .rows = rows};
      const AttentionShape plain = {.type = RowType::kF32,
                                    .heads = shape.heads,
                                    .k_dim = shape.k.dims,
                                    .v_dim = shape.v.dims,
                                    .scale = shape.scale,
                                    .kv_heads = shape.kv_heads};
      AttentionState state;
      state.Reset(heads, shape.v.dims);
      const std::span<const RecordRun> runs(it.runs);
      AttendRecords(shape, it.q.data(), runs.first(1), state);
      AttendRuns(plain, it.q.data(), {&run, 1}, state);
      AttendRecords(shape, it.q.data(), runs.subspan(1), state);
      std::vector<Softmax> want(heads, Softmax(shape.v.dims));
      AddBlocks(it, want);
      for (size_t head = 0; head < heads; ++head) {
        for (size_t row = 0; row < rows; ++row) {
          const size_t at = row * shape.kv_heads + head / shape.heads;
          const double score =
              Dot(it.q.data() + head * shape.k.dims, keys.data() + at * shape.k.dims, shape.k.dims);
          want[head].Add(score * double{shape.scale}, values.data() + at * shape.v.dims);
        }
      }
      ExpectOutputs(state, want);
    }
  });
}

// Rows that nobody sees may hold anything where rows lie as they were written.
TEST(AttendRecordsTest, HiddenRowsAsWrittenDoNotCount) {
  ForEachTarget([] {
    std::mt19937 random(3);
    RecordAttention shape;
    shape.k = {.codec = Codec::kAsWritten, .plane = RecordPlane::kKey, .type = RowType::kF32};
    shape.v = shape.k;
    shape.v.plane = RecordPlane::kValue;
    Blocks it(shape, 1, 1, random);
    it.runs[0].first = 3;
    it.runs[0].last = 50;
    const float unknown = std::numeric_limits<float>::quiet_NaN();
    for (size_t row = 0; row < 64; ++row) {
      for (size_t dim = 0; dim < 64 && (row < 3 || row >= 50); ++dim) {
        StoreElement(RowType::kF32, it.k[0]->data(), row * 64 + dim, unknown);
        StoreElement(RowType::kF32, it.v[0]->data(), row * 64 + dim, unknown);
      }
    }
    AttentionState state;
    state.Reset(1, 64);
    AttendRecords(shape, it.q.data(), it.runs, state);
    std::vector<Softmax> want(1, Softmax(64));
    AddBlocks(it, want);
    ExpectOutputs(state, want);
  });
}

// Scores beyond what a float holds.
TEST(AttendRecordsTest, InfiniteScores) {
  ForEachTarget([] {
    std::mt19937 random(4);
    RecordAttention shape;
    shape.k = {.codec = Codec::kInt4, .plane = RecordPlane::kKey};
    shape.v = {.codec = Codec::kInt4, .plane = RecordPlane::kValue};
    shape.scale = 1e30F;
    Blocks it(shape, 2, 1, random);
    std::fill(it.q.begin(), it.q.end(), 1e20F);
    AttentionState state;
    state.Reset(1, 64);
    AttendRecords(shape, it.q.data(), it.runs, state);
    std::vector<float> out(64);
    FinishState(state, 64, out.data());
    for (const float x : out) {
      EXPECT_TRUE(std::isfinite(x));
    }
  });
}

TEST(AttendRecordTileTest, RandomRangesAgreeWithDoubles) {
  ForEachTarget([] {
    std::mt19937 random(5);
    for (int round = 0; round < 60; ++round) {
      SCOPED_TRACE(round);
      RecordAttention shape = RandomAttention(random);
      shape.kv_heads = 1;
      const Blocks it(shape, 2, 1, random);
      const uint32_t queries = Pick(random, 1, 20);
      const auto q = test::Randoms(size_t{queries} * shape.heads * shape.k.dims, random);
      AttentionState state;
      state.Reset(queries * shape.heads, shape.v.dims);
      std::vector<Softmax> want(queries * shape.heads, Softmax(shape.v.dims));
      for (size_t block = 0; block < it.runs.size(); ++block) {
        std::vector<uint32_t> first(queries), last(queries);
        for (uint32_t i = 0; i < queries; ++i) {
          first[i] = Pick(random, 0, shape.k.rows);
          last[i] = Pick(random, 0, shape.k.rows);
        }
        AttendRecordTile(shape, q.data(), queries, it.runs[block], first, last, state);
        for (size_t index = 0; index < want.size(); ++index) {
          for (size_t row = first[index / shape.heads]; row < last[index / shape.heads]; ++row) {
            const double score = Dot(q.data() + index * shape.k.dims,
                                     it.Row(it.k_rows, shape.k, block, 0, row), shape.k.dims);
            want[index].Add(score * double{shape.scale}, it.Row(it.v_rows, shape.v, block, 0, row));
          }
        }
      }
      ExpectOutputs(state, want);
    }
  });
}

}  // namespace
}  // namespace kvasir::kernels
