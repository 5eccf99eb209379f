// Attention kernels of every target against the plain code and against a double-precision softmax.
#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "targets.h"

namespace kvasir::kernels {
namespace {

// One random case: keys and values of several runs in one buffer, at any alignment.
struct Case {
  AttentionShape shape;
  uint32_t sets = 1;
  std::vector<std::byte> keys, values;
  std::vector<AttentionRun> runs;
  std::vector<float> q;
};

uint32_t Pick(std::mt19937& random, uint32_t low, uint32_t high) {
  return std::uniform_int_distribution<uint32_t>(low, high)(random);
}

Case MakeCase(const AttentionShape& shape, uint32_t sets, const std::vector<uint32_t>& run_rows,
              std::mt19937& random) {
  Case made;
  made.shape = shape;
  made.sets = sets;
  const auto element = static_cast<uint32_t>(ElementBytes(shape.type));
  // Odd strides and starts: rows need no alignment at all.
  const uint32_t k_dims = shape.kv_heads * shape.k_dim;
  const uint32_t v_dims = shape.kv_heads * shape.v_dim;
  const uint32_t k_stride = k_dims * element + Pick(random, 0, 9);
  const uint32_t v_stride = v_dims * element + Pick(random, 0, 9);
  uint32_t rows = 0;
  for (const uint32_t count : run_rows) {
    rows += count;
  }
  const size_t offset = Pick(random, 0, 3);
  std::normal_distribution<float> normal;
  // Exactly as long as the rows, so that the address sanitizer sees a read behind the last one.
  made.keys.resize(rows == 0 ? 0 : offset + (rows - 1) * k_stride + k_dims * element);
  made.values.resize(rows == 0 ? 0 : offset + (rows - 1) * v_stride + v_dims * element);
  for (uint32_t row = 0; row < rows; ++row) {
    for (uint32_t dim = 0; dim < k_dims; ++dim) {
      StoreElement(shape.type, made.keys.data() + offset + row * k_stride, dim, normal(random));
    }
    for (uint32_t dim = 0; dim < v_dims; ++dim) {
      StoreElement(shape.type, made.values.data() + offset + row * v_stride, dim, normal(random));
    }
  }
  uint32_t row = 0;
  for (const uint32_t count : run_rows) {
    made.runs.push_back({.k = made.keys.data() + (rows == 0 ? 0 : offset + row * k_stride),
                         .v = made.values.data() + (rows == 0 ? 0 : offset + row * v_stride),
                         .k_stride = k_stride,
                         .v_stride = v_stride,
                         .rows = count,
                         .query_set = Pick(random, 0, sets - 1)});
    row += count;
  }
  made.q.resize(size_t{sets} * shape.kv_heads * shape.heads * shape.k_dim);
  std::generate(made.q.begin(), made.q.end(), [&] { return normal(random); });
  return made;
}

AttentionShape RandomShape(std::mt19937& random) {
  const RowType types[] = {RowType::kF16, RowType::kBF16, RowType::kF32, RowType::kE4M3};
  const uint32_t dims[] = {1, 7, 16, 33, 64, 72, 80, 96, 127, 128};
  AttentionShape shape;
  shape.type = types[Pick(random, 0, 3)];
  shape.heads = Pick(random, 1, 9);
  shape.k_dim = dims[Pick(random, 0, 9)];
  shape.v_dim = dims[Pick(random, 0, 9)];
  shape.scale = 1.0F / std::sqrt(static_cast<float>(shape.k_dim));
  return shape;
}

std::vector<float> Finish(const AttentionState& state, uint32_t v_dim) {
  std::vector<float> out(state.acc.size(), -1.0F);
  FinishState(state, v_dim, out.data());
  return out;
}

void ExpectClose(const std::vector<float>& got, const std::vector<float>& want, float bound) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], bound * std::max(1.0F, std::abs(want[i]))) << "element " << i;
  }
}

// Softmax attention of all runs in double.
std::vector<float> Reference(const Case& it) {
  const AttentionShape& shape = it.shape;
  std::vector<float> out;
  for (uint32_t head = 0; head < shape.heads; ++head) {
    std::vector<double> scores, acc(shape.v_dim);
    for (const AttentionRun& run : it.runs) {
      const float* q = it.q.data() + (run.query_set * shape.heads + head) * shape.k_dim;
      for (uint32_t row = 0; row < run.rows; ++row) {
        double score = 0;
        for (uint32_t dim = 0; dim < shape.k_dim; ++dim) {
          score +=
              double{q[dim]} * double{LoadElement(shape.type, run.k + row * run.k_stride, dim)};
        }
        scores.push_back(score * double{shape.scale});
      }
    }
    const double max = scores.empty() ? 0 : *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    size_t index = 0;
    for (const AttentionRun& run : it.runs) {
      for (uint32_t row = 0; row < run.rows; ++row) {
        const double weight = std::exp(scores[index++] - max);
        sum += weight;
        for (uint32_t dim = 0; dim < shape.v_dim; ++dim) {
          acc[dim] += weight * double{LoadElement(shape.type, run.v + row * run.v_stride, dim)};
        }
      }
    }
    for (const double value : acc) {
      out.push_back(sum > 0 ? static_cast<float>(value / sum) : 0.0F);
    }
  }
  return out;
}

TEST(AttendRunsTest, RandomShapesAgreeWithThePlainCode) {
  ForEachTarget([] {
    std::mt19937 random(1);
    for (int round = 0; round < 80; ++round) {
      SCOPED_TRACE(round);
      AttentionShape shape = RandomShape(random);
      shape.kv_heads = Pick(random, 1, 4);
      const uint32_t heads = shape.kv_heads * shape.heads;
      std::vector<uint32_t> rows(Pick(random, 0, 5));
      std::generate(rows.begin(), rows.end(), [&] { return Pick(random, 0, 90); });
      const Case it = MakeCase(shape, Pick(random, 1, 3), rows, random);
      AttentionState got, want;
      got.Reset(heads, shape.v_dim);
      want.Reset(heads, shape.v_dim);
      AttendRuns(shape, it.q.data(), it.runs, got);
      scalar::AttendRuns(shape, it.q.data(), it.runs, want);
      ExpectClose(got.max, want.max, 1e-5F);
      ExpectClose(got.sum, want.sum, 1e-5F);
      ExpectClose(Finish(got, shape.v_dim), Finish(want, shape.v_dim), 1e-5F);
    }
  });
}

TEST(AttendRunsTest, ErrorAgainstDoubleIsThatOfFloat) {
  ForEachTarget([] {
    std::mt19937 random(2);
    for (const RowType type : {RowType::kF16, RowType::kBF16, RowType::kF32, RowType::kE4M3}) {
      const AttentionShape shape = {
          .type = type, .heads = 3, .k_dim = 64, .v_dim = 64, .scale = 0.125F};
      const Case it = MakeCase(shape, 2, std::vector<uint32_t>(16, 64), random);
      AttentionState state;
      state.Reset(shape.heads, shape.v_dim);
      AttendRuns(shape, it.q.data(), it.runs, state);
      ExpectClose(Finish(state, shape.v_dim), Reference(it), 2e-6F);
    }
  });
}

TEST(AttendRunsTest, AccumulatesOverCallsInAnyOrderAndMerges) {
  ForEachTarget([] {
    std::mt19937 random(3);
    const AttentionShape shape = {
        .type = RowType::kF16, .heads = 5, .k_dim = 64, .v_dim = 80, .scale = 0.125F};
    const Case it = MakeCase(shape, 2, {64, 3, 64, 17, 64, 0, 1}, random);
    AttentionState once, parts, left, right;
    for (AttentionState* state : {&once, &parts, &left, &right}) {
      state->Reset(shape.heads, shape.v_dim);
    }
    const std::span<const AttentionRun> runs(it.runs);
    AttendRuns(shape, it.q.data(), runs, once);
    AttendRuns(shape, it.q.data(), runs.subspan(4), parts);
    AttendRuns(shape, it.q.data(), runs.first(4), parts);
    AttendRuns(shape, it.q.data(), runs.subspan(3), left);
    AttendRuns(shape, it.q.data(), runs.first(3), right);
    MergeStates(left, right, shape.v_dim);
    const std::vector<float> want = Finish(once, shape.v_dim);
    ExpectClose(Finish(parts, shape.v_dim), want, 1e-6F);
    ExpectClose(Finish(left, shape.v_dim), want, 1e-6F);
  });
}

TEST(AttendRunsTest, KvHeadsInOnePassAreThoseOneByOne) {
  ForEachTarget([] {
    std::mt19937 random(8);
    const AttentionShape all = {
        .heads = 3, .k_dim = 64, .v_dim = 80, .scale = 0.125F, .kv_heads = 3};
    AttentionShape one = all;
    one.kv_heads = 1;
    const Case it = MakeCase(all, 1, {64, 30}, random);
    AttentionState state;
    state.Reset(all.kv_heads * all.heads, all.v_dim);
    AttendRuns(all, it.q.data(), it.runs, state);
    const std::vector<float> got = Finish(state, all.v_dim);
    for (uint32_t kv_head = 0; kv_head < all.kv_heads; ++kv_head) {
      std::vector<AttentionRun> runs = it.runs;
      for (AttentionRun& run : runs) {
        run.k += kv_head * all.k_dim * 2;
        run.v += kv_head * all.v_dim * 2;
      }
      state.Reset(one.heads, one.v_dim);
      AttendRuns(one, it.q.data() + kv_head * one.heads * one.k_dim, runs, state);
      const std::vector<float> want = Finish(state, one.v_dim);
      const auto from = got.begin() + kv_head * static_cast<ptrdiff_t>(want.size());
      ExpectClose({from, from + static_cast<ptrdiff_t>(want.size())}, want, 1e-6F);
    }
  });
}

TEST(AttendRunsTest, HugeScoresStayFinite) {
  ForEachTarget([] {
    std::mt19937 random(4);
    const AttentionShape shape = {
        .type = RowType::kF32, .heads = 3, .k_dim = 64, .v_dim = 64, .scale = 1.0F};
    for (const float size : {1e4F, -1e4F, 1e20F, -1e20F, 1e30F}) {
      SCOPED_TRACE(size);
      Case it = MakeCase(shape, 1, {64, 30}, random);
      // All products have one sign: the scores reach -infinity or +infinity.
      for (AttentionRun& run : it.runs) {
        for (uint32_t row = 0; row < run.rows; ++row) {
          auto* key = it.keys.data() + (run.k - it.keys.data()) + row * run.k_stride;
          for (uint32_t dim = 0; dim < shape.k_dim; ++dim) {
            StoreElement(shape.type, key, dim, size * (1.0F + static_cast<float>(row % 7)));
          }
        }
      }
      std::fill(it.q.begin(), it.q.end(), 1e10F);
      AttentionState state;
      state.Reset(shape.heads, shape.v_dim);
      AttendRuns(shape, it.q.data(), it.runs, state);
      for (const float value : Finish(state, shape.v_dim)) {
        ASSERT_TRUE(std::isfinite(value));
        ASSERT_LE(std::abs(value), 6.0F);
      }
    }
  });
}

TEST(AttendRunsTest, RowsOfMinusInfinityWeighNothing) {
  ForEachTarget([] {
    std::mt19937 random(5);
    const AttentionShape shape = {
        .type = RowType::kF16, .heads = 2, .k_dim = 64, .v_dim = 64, .scale = 0.125F};
    Case it = MakeCase(shape, 1, {40, 1}, random);
    std::fill(it.q.begin(), it.q.end(), 1.0F);
    // The last row's score is -infinity: the result is that of the others.
    auto* key = it.keys.data() + (it.runs[1].k - it.keys.data());
    StoreElement(shape.type, key, 5, -std::numeric_limits<float>::infinity());
    AttentionState all, masked, others;
    for (AttentionState* state : {&all, &masked, &others}) {
      state->Reset(shape.heads, shape.v_dim);
    }
    const std::span<const AttentionRun> runs(it.runs);
    AttendRuns(shape, it.q.data(), runs, all);
    AttendRuns(shape, it.q.data(), runs.subspan(1), masked);
    AttendRuns(shape, it.q.data(), runs.first(1), others);
    ExpectClose(Finish(all, shape.v_dim), Finish(others, shape.v_dim), 1e-6F);
    EXPECT_EQ(Finish(masked, shape.v_dim), std::vector<float>(2 * 64, 0.0F));
  });
}

TEST(AttendRunsTest, NothingSeenIsZero) {
  ForEachTarget([] {
    const AttentionShape shape = {.heads = 3};
    AttentionState state;
    state.Reset(shape.heads, shape.v_dim);
    const std::vector<float> q(3 * 64, 1.0F);
    AttendRuns(shape, q.data(), {}, state);
    const AttentionRun empty;
    AttendRuns(shape, q.data(), {&empty, 1}, state);
    AttentionState other = state;
    MergeStates(state, other, shape.v_dim);
    EXPECT_EQ(Finish(state, shape.v_dim), std::vector<float>(3 * 64, 0.0F));
  });
}

TEST(AttendTileTest, RandomRangesAgreeWithThePlainCode) {
  ForEachTarget([] {
    std::mt19937 random(6);
    for (int round = 0; round < 50; ++round) {
      SCOPED_TRACE(round);
      const AttentionShape shape = RandomShape(random);
      const uint32_t rows = Pick(random, 0, 150);
      const Case it = MakeCase(shape, 1, {rows}, random);
      const uint32_t queries = Pick(random, 1, 20);
      std::normal_distribution<float> normal;
      std::vector<float> q(size_t{queries} * shape.heads * shape.k_dim);
      std::generate(q.begin(), q.end(), [&] { return normal(random); });
      std::vector<uint32_t> first(queries), last(queries);
      const bool causal = round % 2 == 0;
      for (uint32_t t = 0; t < queries; ++t) {
        first[t] = causal ? 0 : Pick(random, 0, rows);
        last[t] = causal ? std::min(rows, rows / 2 + t) : Pick(random, 0, rows);
      }
      AttentionState got, want;
      got.Reset(queries * shape.heads, shape.v_dim);
      want.Reset(queries * shape.heads, shape.v_dim);
      for (int twice = 0; twice < 2; ++twice) {
        AttendTile(shape, q.data(), queries, it.runs[0], first, last, got);
        scalar::AttendTile(shape, q.data(), queries, it.runs[0], first, last, want);
      }
      ExpectClose(got.max, want.max, 1e-5F);
      ExpectClose(got.sum, want.sum, 1e-5F);
      ExpectClose(Finish(got, shape.v_dim), Finish(want, shape.v_dim), 1e-5F);
    }
  });
}

TEST(AttendTileTest, OneQueryIsAttendRuns) {
  ForEachTarget([] {
    std::mt19937 random(7);
    const AttentionShape shape = {
        .type = RowType::kF16, .heads = 3, .k_dim = 64, .v_dim = 64, .scale = 0.125F};
    const Case it = MakeCase(shape, 1, {200}, random);
    AttentionState tile, runs;
    tile.Reset(shape.heads, shape.v_dim);
    runs.Reset(shape.heads, shape.v_dim);
    const uint32_t first = 0;
    const uint32_t last = 200;
    AttendTile(shape, it.q.data(), 1, it.runs[0], {&first, 1}, {&last, 1}, tile);
    AttendRuns(shape, it.q.data(), it.runs, runs);
    ExpectClose(Finish(tile, shape.v_dim), Finish(runs, shape.v_dim), 2e-6F);
  });
}

}  // namespace
}  // namespace kvasir::kernels
