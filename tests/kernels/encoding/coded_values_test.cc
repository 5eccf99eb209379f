// Attention over rows with coded values against a softmax in double over the decoded rows.
#include "kernels/encoding/coded_values.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "tests/kernels/encoding/record_cases.h"
#include "tests/kernels/targets.h"

namespace kvasir::kernels {
namespace {

using test::Pick;
using test::Randoms;

CodedAttention RandomCoded(std::mt19937& random) {
  CodedAttention shape;
  shape.value = {.dims = 16U << Pick(random, 0, 4), .bits = Pick(random, 2, 3)};
  shape.rows.type = static_cast<RowType>(Pick(random, 0, 3));
  // More heads than are held at once, now and then.
  shape.rows.heads = Pick(random, 0, 9) == 0 ? Pick(random, 17, 35) : Pick(random, 1, 9);
  shape.rows.k_dim = 8 * Pick(random, 1, 20);
  shape.rows.v_dim = shape.value.dims;
  shape.rows.scale = 1.0F / std::sqrt(static_cast<float>(shape.rows.k_dim));
  shape.rows.kv_heads = Pick(random, 1, 4);
  return shape;
}

// Rows of one run at odd addresses of memory that ends with the last one.
struct Rows {
  Rows(const CodedAttention& wanted, uint32_t count, uint32_t set, std::mt19937& random)
      : shape(wanted) {
    const uint32_t heads = shape.rows.kv_heads;
    const auto k_bytes = static_cast<uint32_t>(heads * shape.rows.k_dim * ElementBytes(type()));
    const auto v_bytes = static_cast<uint32_t>(heads * RotatedRowBytes(shape.value));
    k = std::make_unique<test::Guarded>(size_t{count} * k_bytes);
    v = std::make_unique<test::Guarded>(size_t{count} * v_bytes);
    keys = Randoms(size_t{count} * heads * shape.rows.k_dim, random);
    for (size_t i = 0; i < keys.size(); ++i) {
      StoreElement(type(), k->data(), i, keys[i]);
      keys[i] = LoadElement(type(), k->data(), i);
    }
    values.resize(size_t{count} * heads * shape.rows.v_dim);
    for (size_t i = 0; i < size_t{count} * heads; ++i) {
      std::byte* code = v->data() + i * RotatedRowBytes(shape.value);
      EncodeRotatedRow(shape.value, Randoms(shape.rows.v_dim, random).data(), code);
      const float one = 1;
      const std::byte* row = code;
      scalar::AddRotatedRows(shape.value, {&row, 1}, &one, 1, &values[i * shape.rows.v_dim]);
    }
    run = {.k = k->data(),
           .v = v->data(),
           .k_stride = k_bytes,
           .v_stride = v_bytes,
           .rows = count,
           .query_set = set};
  }
  RowType type() const { return shape.rows.type; }

  CodedAttention shape;
  std::unique_ptr<test::Guarded> k, v;
  std::vector<float> keys, values;  // [row][kv_head][dim], as attention reads them
  AttentionRun run;
};

// A softmax in double over all that one query head sees.
struct Softmax {
  void Add(const Rows& rows, const float* q, size_t kv_head, size_t row) {
    const AttentionShape& shape = rows.shape.rows;
    const size_t at = row * shape.kv_heads + kv_head;
    double score = 0;
    for (size_t dim = 0; dim < shape.k_dim; ++dim) {
      score += double{q[dim]} * double{rows.keys[at * shape.k_dim + dim]};
    }
    const double weight = std::exp(score * double{shape.scale});
    sum += weight;
    acc.resize(shape.v_dim);
    for (size_t dim = 0; dim < shape.v_dim; ++dim) {
      acc[dim] += weight * double{rows.values[at * shape.v_dim + dim]};
    }
  }
  double sum = 0;
  std::vector<double> acc;
};

void ExpectOutputs(const AttentionState& state, const std::vector<Softmax>& want, uint32_t v_dim) {
  std::vector<float> out(state.acc.size(), -1.0F);
  FinishState(state, v_dim, out.data());
  for (size_t head = 0; head < want.size(); ++head) {
    for (size_t dim = 0; dim < v_dim; ++dim) {
      const double value = want[head].sum > 0 ? want[head].acc[dim] / want[head].sum : 0;
      ASSERT_NEAR(out[head * v_dim + dim], value, 1e-4) << "head " << head << " dim " << dim;
    }
  }
}

// Two runs, with rows as written between them: one softmax over all of them.
TEST(AttendCodedRunsTest, RandomShapesAgreeWithDoubles) {
  ForEachTarget([] {
    std::mt19937 random(1);
    for (int round = 0; round < 60; ++round) {
      SCOPED_TRACE(round);
      const CodedAttention shape = RandomCoded(random);
      const AttentionShape& rows = shape.rows;
      const uint32_t sets = Pick(random, 1, 2);
      const Rows first(shape, Pick(random, 1, 150), Pick(random, 0, sets - 1), random);
      const Rows second(shape, Pick(random, 1, 70), Pick(random, 0, sets - 1), random);
      const uint32_t heads = rows.kv_heads * rows.heads;
      const auto q = Randoms(size_t{sets} * heads * rows.k_dim, random);
      AttentionShape plain = rows;
      plain.type = RowType::kF32;
      const AttentionRun written = {.k = reinterpret_cast<const std::byte*>(first.keys.data()),
                                    .v = reinterpret_cast<const std::byte*>(first.values.data()),
                                    .k_stride = rows.kv_heads * rows.k_dim * 4,
                                    .v_stride = rows.kv_heads * rows.v_dim * 4,
                                    .rows = first.run.rows,
                                    .query_set = first.run.query_set};
      AttentionState state;
      state.Reset(heads, rows.v_dim);
      AttendCodedRuns(shape, q.data(), {&first.run, 1}, state);
      AttendRuns(plain, q.data(), {&written, 1}, state);
      AttendCodedRuns(shape, q.data(), {&second.run, 1}, state);
      std::vector<Softmax> want(heads);
      for (uint32_t head = 0; head < heads; ++head) {
        for (const Rows* one : {&first, &first, &second}) {
          const float* query = q.data() + (one->run.query_set * heads + head) * rows.k_dim;
          for (uint32_t row = 0; row < one->run.rows; ++row) {
            want[head].Add(*one, query, head / rows.heads, row);
          }
        }
      }
      ExpectOutputs(state, want, rows.v_dim);
    }
  });
}

TEST(AttendCodedTileTest, RandomRangesAgreeWithDoubles) {
  ForEachTarget([] {
    std::mt19937 random(2);
    for (int round = 0; round < 60; ++round) {
      SCOPED_TRACE(round);
      CodedAttention shape = RandomCoded(random);
      shape.rows.kv_heads = 1;
      const AttentionShape& rows = shape.rows;
      const Rows it(shape, Pick(random, 1, 200), 0, random);
      const uint32_t queries = Pick(random, 1, 20);
      const auto q = Randoms(size_t{queries} * rows.heads * rows.k_dim, random);
      std::vector<uint32_t> first(queries), last(queries);
      std::vector<Softmax> want(queries * rows.heads);
      for (uint32_t t = 0; t < queries; ++t) {
        first[t] = Pick(random, 0, it.run.rows);
        last[t] = Pick(random, 0, 1) == 0 ? it.run.rows : Pick(random, 0, it.run.rows);
        for (uint32_t head = t * rows.heads; head < (t + 1) * rows.heads; ++head) {
          for (uint32_t row = first[t]; row < last[t]; ++row) {
            want[head].Add(it, q.data() + size_t{head} * rows.k_dim, 0, row);
          }
        }
      }
      AttentionState state;
      state.Reset(queries * rows.heads, rows.v_dim);
      AttendCodedTile(shape, q.data(), queries, it.run, first, last, state);
      ExpectOutputs(state, want, rows.v_dim);
    }
  });
}

// Every byte string is a row: the largest norms and scores beyond a float give numbers still.
TEST(AttendCodedRunsTest, AnyBytesAndAnyScores) {
  ForEachTarget([] {
    std::mt19937 random(3);
    CodedAttention shape;
    shape.value = {.dims = 64, .bits = 3};
    shape.rows.scale = 1e30F;
    const Rows it(shape, 100, 0, random);
    for (size_t i = 0; i < it.v->size(); ++i) it.v->data()[i] = std::byte{0xFF};
    const std::vector<float> q(64, 1e20F);
    AttentionState state;
    state.Reset(1, 64);
    AttendCodedRuns(shape, q.data(), {&it.run, 1}, state);
    std::vector<float> out(64);
    FinishState(state, 64, out.data());
    EXPECT_TRUE(std::all_of(out.begin(), out.end(), [](float x) { return std::isfinite(x); }));
  });
}

}  // namespace
}  // namespace kvasir::kernels
