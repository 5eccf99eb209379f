// Attention mass on every target against the plain code, and against what softmax must add up to.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "keys.h"

namespace kvasir::kernels {
namespace {

AttentionShape RandomAttentionShape(std::mt19937& random, uint32_t kv_heads_max) {
  const KeyShape keys = RandomKeyShape(random, kv_heads_max);
  return {.type = keys.type,
          .heads = Pick(random, 1, 9),
          .k_dim = keys.dim,
          .v_dim = keys.dim,
          .scale = 1.0F / std::sqrt(static_cast<float>(keys.dim)),
          .kv_heads = keys.kv_heads};
}

KeyShape KeyShapeOf(const AttentionShape& shape) {
  return {.type = shape.type, .kv_heads = shape.kv_heads, .dim = shape.k_dim};
}

// Attention over the keys, which are the values too.
std::vector<AttentionRun> AttentionRuns(const Keys& keys, uint32_t sets, std::mt19937& random) {
  std::vector<AttentionRun> runs;
  for (const KeyRun& run : keys.runs) {
    runs.push_back({.k = run.k,
                    .v = run.k,
                    .k_stride = run.stride,
                    .v_stride = run.stride,
                    .rows = run.rows,
                    .query_set = Pick(random, 0, sets - 1)});
  }
  return runs;
}

// Each run's masses lie at the place of its rows; a kv head takes keys.rows + 5 floats.
std::vector<MassRun> MassRuns(const std::vector<AttentionRun>& runs, uint32_t rows,
                              std::vector<float>& mass) {
  std::vector<MassRun> made;
  float* at = mass.data();
  for (const AttentionRun& run : runs) {
    made.push_back({.run = run, .mass = at, .head_stride = rows + 5});
    at += run.rows;
  }
  return made;
}

double Sum(const float* from, size_t count) { return std::accumulate(from, from + count, 0.0); }

TEST(AddMassRunsTest, RandomShapesAgreeWithThePlainCode) {
  ForEachTarget([] {
    std::mt19937 random(1);
    for (int round = 0; round < 100; ++round) {
      SCOPED_TRACE(round);
      const AttentionShape shape = RandomAttentionShape(random, 4);
      const uint32_t heads = shape.kv_heads * shape.heads;
      const Keys keys = MakeKeys(KeyShapeOf(shape), Pick(random, 0, 5), random);
      const uint32_t sets = Pick(random, 1, 3);
      const auto runs = AttentionRuns(keys, sets, random);
      const auto q = RandomFloats(random, size_t{sets} * heads * shape.k_dim);
      AttentionState state;
      state.Reset(heads, shape.v_dim);
      AttendRuns(shape, q.data(), runs, state);
      const std::vector<float> before(shape.kv_heads * (keys.rows + 5), 0.25F);
      std::vector<float> got = before, want = before;
      AddMassRuns(shape, q.data(), MassRuns(runs, keys.rows, got), state, 0.75F);
      scalar::AddMassRuns(shape, q.data(), MassRuns(runs, keys.rows, want), state, 0.75F);
      ExpectClose(got, want, 1e-5F);
      for (size_t head = 0; keys.rows > 0 && head < shape.kv_heads; ++head) {
        // The masses of a kv head add up to its query heads; nothing else was touched.
        const float* mass = got.data() + head * (keys.rows + 5);
        EXPECT_NEAR(Sum(mass, keys.rows) - 0.25 * keys.rows, 0.75 * shape.heads, 1e-4);
        EXPECT_EQ(Sum(mass + keys.rows, 5), 1.25);
      }
    }
  });
}

TEST(AddMassRunsTest, NothingSeenAddsNothing) {
  ForEachTarget([] {
    std::mt19937 random(2);
    const AttentionShape shape = {.type = RowType::kF32, .heads = 2, .k_dim = 16, .v_dim = 16};
    const Keys keys = MakeKeys(KeyShapeOf(shape), 4, random);
    ASSERT_GT(keys.rows, 0U);
    AttentionState state;
    state.Reset(2, 16);
    std::vector<float> mass(keys.rows + 5);
    const std::vector<float> q(32, 1.0F);
    AddMassRuns(shape, q.data(), MassRuns(AttentionRuns(keys, 1, random), keys.rows, mass), state,
                1.0F);
    EXPECT_EQ(mass, std::vector<float>(keys.rows + 5));
  });
}

TEST(AddMassRunsTest, NotANumberIsNotHidden) {
  ForEachTarget([] {
    std::mt19937 random(3);
    const AttentionShape shape = {.type = RowType::kBF16, .heads = 3, .k_dim = 64, .v_dim = 64};
    Keys keys = MakeKeys(KeyShapeOf(shape), 4, random);
    ASSERT_GT(keys.rows, 20U);
    const auto runs = AttentionRuns(keys, 1, random);
    const auto q = RandomFloats(random, 3 * 64);
    AttentionState state;
    state.Reset(3, 64);
    AttendRuns(shape, q.data(), runs, state);
    StoreElement(shape.type, keys.Row(9), 33, std::nanf(""));
    std::vector<float> mass(keys.rows + 5);
    AddMassRuns(shape, q.data(), MassRuns(runs, keys.rows, mass), state, 1.0F);
    for (uint32_t row = 0; row < keys.rows; ++row) {
      EXPECT_EQ(std::isnan(mass[row]), row == 9) << row;
    }
  });
}

TEST(AddMassTileTest, RandomRangesAgreeWithThePlainCode) {
  ForEachTarget([] {
    std::mt19937 random(4);
    for (int round = 0; round < 80; ++round) {
      SCOPED_TRACE(round);
      const AttentionShape shape = RandomAttentionShape(random, 1);
      const Keys keys = MakeKeys(KeyShapeOf(shape), 1, random);
      const AttentionRun run = AttentionRuns(keys, 1, random)[0];
      const uint32_t queries = Pick(random, 1, 20);
      const auto q = RandomFloats(random, size_t{queries} * shape.heads * shape.k_dim);
      std::vector<uint32_t> first(queries), last(queries);
      std::vector<float> weights = RandomFloats(random, queries);
      double total = 0;
      for (uint32_t t = 0; t < queries; ++t) {
        first[t] = round % 2 == 0 ? 0 : Pick(random, 0, keys.rows);
        last[t] = round % 2 == 0 ? keys.rows / 2 + t : Pick(random, 0, keys.rows + 9);
        weights[t] = Pick(random, 0, 2) == 0 ? 0.0F : weights[t];
        total += first[t] < std::min(last[t], keys.rows) ? double{weights[t]} * shape.heads : 0.0;
      }
      AttentionState state;
      state.Reset(queries * shape.heads, shape.v_dim);
      AttendTile(shape, q.data(), queries, run, first, last, state);
      std::vector<float> got(keys.rows + 5, 0.25F), want(keys.rows + 5, 0.25F);
      AddMassTile(shape, q.data(), queries, MassRuns({run}, keys.rows, got)[0], first, last, state,
                  weights);
      scalar::AddMassTile(shape, q.data(), queries, MassRuns({run}, keys.rows, want)[0], first,
                          last, state, weights);
      ExpectClose(got, want, 2e-5F);
      EXPECT_NEAR(Sum(got.data(), keys.rows) - 0.25 * keys.rows, total, 1e-3);
      EXPECT_EQ(Sum(got.data() + keys.rows, 5), 1.25);
    }
  });
}

TEST(AddMassTileTest, OneQueryIsAddMassRuns) {
  ForEachTarget([] {
    std::mt19937 random(5);
    const AttentionShape shape = {
        .type = RowType::kF16, .heads = 3, .k_dim = 64, .v_dim = 64, .scale = 0.125F};
    const Keys keys = MakeKeys(KeyShapeOf(shape), 1, random);
    ASSERT_GT(keys.rows, 0U);
    const auto runs = AttentionRuns(keys, 1, random);
    const auto q = RandomFloats(random, 3 * 64);
    AttentionState state;
    state.Reset(3, 64);
    AttendRuns(shape, q.data(), runs, state);
    std::vector<float> tile(keys.rows + 5), decode(keys.rows + 5);
    const uint32_t first = 0;
    const float weight = 2.0F;
    AddMassTile(shape, q.data(), 1, MassRuns(runs, keys.rows, tile)[0], {&first, 1},
                {&keys.rows, 1}, state, {&weight, 1});
    AddMassRuns(shape, q.data(), MassRuns(runs, keys.rows, decode), state, weight);
    ExpectClose(tile, decode, 2e-6F);
  });
}

TEST(WindowMassTest, RandomShapesAgreeWithThePlainCode) {
  ForEachTarget([] {
    std::mt19937 random(6);
    for (int round = 0; round < 100; ++round) {
      SCOPED_TRACE(round);
      const KeyShape shape = RandomKeyShape(random, 1);
      const Keys keys = MakeKeys(shape, Pick(random, 0, 4), random);
      const uint32_t heads = Pick(random, 1, 5);
      // Often longer than there are keys: then the first queries see nothing.
      const uint32_t window = Pick(random, 1, round % 3 == 0 ? 2 * keys.rows + 2 : 40);
      const float scale = 1.0F / std::sqrt(static_cast<float>(shape.dim));
      const auto q = RandomFloats(random, size_t{heads} * window * shape.dim);
      std::vector<float> got(size_t{heads} * keys.rows, -1.0F), want(got.size());
      WindowMass(shape, heads, window, scale, q.data(), keys.runs, got.data());
      scalar::WindowMass(shape, heads, window, scale, q.data(), keys.runs, want.data());
      ExpectClose(got, want, 2e-5F);
      for (size_t head = 0; head < heads; ++head) {
        const double seeing = std::min(window, keys.rows);
        EXPECT_NEAR(Sum(got.data() + head * keys.rows, keys.rows), seeing, 1e-4 * seeing);
      }
    }
  });
}

TEST(WindowMassTest, IsTheMassOfATileOfCausalQueries) {
  ForEachTarget([] {
    std::mt19937 random(7);
    const AttentionShape shape = {.type = RowType::kF32, .k_dim = 32, .v_dim = 32, .scale = 0.2F};
    const Keys keys = MakeKeys(KeyShapeOf(shape), 1, random);
    constexpr uint32_t kWindow = 7;
    ASSERT_GE(keys.rows, kWindow);
    const auto q = RandomFloats(random, kWindow * 32);
    std::vector<float> got(keys.rows), want(keys.rows + 5);
    WindowMass(KeyShapeOf(shape), 1, kWindow, shape.scale, q.data(), keys.runs, got.data());
    const auto runs = AttentionRuns(keys, 1, random);
    const std::vector<uint32_t> first(kWindow);
    std::vector<uint32_t> last(kWindow);
    std::iota(last.begin(), last.end(), keys.rows - kWindow + 1);
    AttentionState state;
    state.Reset(kWindow, 32);
    AttendTile(shape, q.data(), kWindow, runs[0], first, last, state);
    AddMassTile(shape, q.data(), kWindow, MassRuns(runs, keys.rows, want)[0], first, last, state,
                std::vector<float>(kWindow, 1.0F));
    want.resize(keys.rows);
    ExpectClose(got, want, 2e-6F);
  });
}

TEST(WindowMassTest, NotANumberIsNotHidden) {
  ForEachTarget([] {
    std::mt19937 random(8);
    const KeyShape shape = {.type = RowType::kF16, .dim = 64};
    Keys keys = MakeKeys(shape, 4, random);
    ASSERT_GT(keys.rows, 20U);
    StoreElement(shape.type, keys.Row(3), 5, std::nanf(""));
    const auto q = RandomFloats(random, 4 * 64);
    std::vector<float> got(keys.rows);
    WindowMass(shape, 1, 4, 0.125F, q.data(), keys.runs, got.data());
    EXPECT_TRUE(std::isnan(got[3]));
    EXPECT_TRUE(std::isnan(got[0]));  // shares the sum
  });
}

// Products beyond the largest float count as that, as in attention: no NaN comes of them.
TEST(WindowMassTest, ScoresBeyondTheLargestFloatShareTheMass) {
  ForEachTarget([] {
    std::vector<float> keys(20 * 16, 1.0F);
    std::fill(keys.begin() + 5 * 16, keys.begin() + 7 * 16, 3e38F);
    const std::vector<float> q(16, 3.0F);
    const KeyRun run = {
        .k = reinterpret_cast<const std::byte*>(keys.data()), .stride = 64, .rows = 20};
    std::vector<float> got(20), want(20);
    want[5] = want[6] = 0.5F;
    WindowMass({.type = RowType::kF32, .dim = 16}, 1, 1, 1.0F, q.data(), {&run, 1}, got.data());
    EXPECT_EQ(got, want);
  });
}

}  // namespace
}  // namespace kvasir::kernels
