// Scores of keys, pooling and selection against the plain code.
#include "kernels/scores.h"

#include <array>
#include <cmath>
#include <limits>

#include "tests/kernels/cuda/machine.h"
#include "tests/kernels/cuda/random.h"

namespace kvasir::kernels::cuda {
namespace {

using machine::Array;
using machine::Execute;
using DotKeysTest = machine::Test;
using WindowMassTest = machine::Test;
using PoolScoresTest = machine::Test;
using TopKTest = machine::Test;

std::vector<float> Normals(size_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) {
    value = normal(random);
  }
  return values;
}

// Shuffled rows: the reference sees each as a run of one.
struct Keys {
  Keys(const KeyShape& shape, size_t rows, size_t offset, std::mt19937& random)
      : row_bytes(shape.kv_heads * shape.dim * ElementBytes(shape.type)),
        picked(RandomIndices(rows, 150, random)),
        pool(RandomElements(shape.type, size_t{150} * shape.kv_heads * shape.dim, random), offset),
        indices(picked),
        host(pool.Read()) {
    for (const uint32_t index : picked) {
      runs.push_back({host.data() + index * row_bytes, static_cast<uint32_t>(row_bytes), 1});
    }
  }
  RowSource rows() const {
    return {.base = pool.bytes(), .stride = row_bytes, .indices = indices.data()};
  }

  size_t row_bytes;
  std::vector<uint32_t> picked;
  Array<std::byte> pool;
  Array<uint32_t> indices;
  std::vector<std::byte> host;
  std::vector<KeyRun> runs;
};

TEST_F(DotKeysTest, EqualsThePlainCodeUpToRounding) {
  std::mt19937 random(11);
  for (const auto& [heads, dim] :
       {std::array{8U, 128U}, {3U, 64U}, {1U, 5U}, {2U, 256U}, {7U, 12U}}) {
    for (const RowType type : {RowType::kF16, RowType::kBF16, RowType::kF32, RowType::kE4M3}) {
      for (const size_t rows : {0U, 1U, 9U, 100U}) {
        const KeyShape shape = {type, heads, dim};
        const Keys keys(shape, rows, rows == 9 ? 4 : 0, random);
        const std::vector<float> query = Normals(size_t{heads} * dim, random);
        const Array q(query);
        const Array out(std::vector<float>(rows + 1, -7.0F));
        KeyDots dots = {
            .shape = shape, .q = q.data(), .keys = keys.rows(), .rows = rows, .out = out.data()};
        ASSERT_TRUE(Execute(dots).ok());
        std::vector<float> want(rows);
        scalar::DotRows(shape, query.data(), keys.runs, want.data());
        const auto got = out.Read();
        for (size_t row = 0; row < rows; ++row) {
          ASSERT_NEAR(got[row], want[row], 1e-5F * static_cast<float>(heads * dim)) << row;
        }
        ASSERT_EQ(got[rows], -7.0F);
      }
    }
  }
}

// The largest numbers, the smallest, and none at all.
TEST_F(DotKeysTest, EdgesOfFp8ComeThrough) {
  const KeyShape shape = {RowType::kE4M3, 3, 64};
  const size_t elements = 3 * 64;
  std::vector<std::byte> rows;
  for (const uint32_t code : {0x7EU, 0xFEU, 0x01U, 0x00U, 0x08U}) {
    rows.resize(rows.size() + elements, static_cast<std::byte>(code));
  }
  rows.back() = std::byte{0xFF};  // not a number, at the end of the last row
  const Array pool(rows, 3);
  const Array q(std::vector<float>(elements, 0.5F));
  const Array out(std::vector<float>(5));
  KeyDots dots = {.shape = shape, .q = q.data()};
  dots.keys = {.base = pool.bytes(), .stride = elements};
  dots.rows = 5;
  dots.out = out.data();
  ASSERT_TRUE(Execute(dots).ok());
  const auto got = out.Read();
  EXPECT_EQ(got[0], 448.0F * 96);
  EXPECT_EQ(got[1], -448.0F * 96);
  EXPECT_EQ(got[2], 0x1p-9F * 96);
  EXPECT_EQ(got[3], 0.0F);
  EXPECT_TRUE(std::isnan(got[4]));
}

TEST_F(WindowMassTest, EqualsThePlainCodeUpToRounding) {
  std::mt19937 random(12);
  for (const auto& [heads, window, dim, rows] : {std::array{4U, 32U, 128U, 300U},
                                                 {3U, 16U, 64U, 257U},
                                                 {1U, 1U, 64U, 1U},
                                                 {2U, 5U, 20U, 3U},
                                                 {5U, 7U, 256U, 64U},
                                                 {1U, 1U, 8U, 0U}}) {
    for (const RowType type : {RowType::kF16, RowType::kBF16, RowType::kF32, RowType::kE4M3}) {
      const KeyShape shape = {type, 1, dim};
      const Keys keys(shape, rows, 0, random);
      const std::vector<float> queries = Normals(size_t{heads} * window * dim, random);
      const Array q(queries);
      const Array out(std::vector<float>(size_t{heads} * rows));
      KeyMass mass = {.shape = shape, .heads = heads, .window = window};
      mass.scale = 1.0F / std::sqrt(static_cast<float>(dim));
      mass.q = q.data();
      mass.keys = keys.rows();
      mass.rows = rows;
      mass.out = out.data();
      ASSERT_TRUE(Execute(mass).ok());
      std::vector<float> want(size_t{heads} * rows);
      scalar::WindowMass(shape, heads, window, mass.scale, queries.data(), keys.runs, want.data());
      const auto got = out.Read();
      for (size_t i = 0; i < want.size(); ++i) {
        ASSERT_NEAR(got[i], want[i], 1e-5F + 1e-4F * want[i]) << i;
      }
    }
  }
}

TEST_F(PoolScoresTest, EqualsThePlainCodeBitForBit) {
  std::mt19937 random(13);
  for (const Pooling pooling : {Pooling::kAverage, Pooling::kMaximum}) {
    for (const uint32_t kernel : {1U, 5U, 7U, 63U, 1001U}) {
      for (const size_t size : {0U, 1U, 6U, 300U, 1000U}) {
        const size_t lists = 3;
        const std::vector<float> scores = Normals(lists * size, random);
        const Array in(scores);
        const Array out(std::vector<float>(lists * size));
        ASSERT_TRUE(
            Execute(ScorePooling{in.data(), out.data(), lists, size, kernel, pooling}).ok());
        const auto got = out.Read();
        for (size_t list = 0; list < lists; ++list) {
          std::vector<float> want(size);
          scalar::PoolScores({scores.data() + list * size, size}, kernel, pooling, want);
          for (size_t i = 0; i < size; ++i) {
            ASSERT_EQ(std::bit_cast<uint32_t>(got[list * size + i]),
                      std::bit_cast<uint32_t>(want[i]));
          }
        }
      }
    }
  }
}

TEST_F(TopKTest, TiesGoToTheLowerIndexAndIndicesAscend) {
  std::mt19937 random(14);
  for (const size_t size : {1U, 2U, 255U, 256U, 257U, 5000U}) {
    for (const uint32_t distinct : {1U, 3U, 1000000U}) {
      std::vector<float> scores(size);
      for (float& score : scores) {
        score = (static_cast<float>(random() % distinct) - static_cast<float>(distinct / 2)) * 0.5F;
        score = score == 0 && random() % 2 == 0 ? -0.0F : score;
      }
      if (size > 2) {
        scores[1] = std::numeric_limits<float>::infinity();
        scores[2] = -std::numeric_limits<float>::infinity();
      }
      const Array in(scores);
      for (const size_t k : {size_t{0}, size_t{1}, size / 3, size}) {
        const Array out{std::vector<uint32_t>(k)};
        ScoreSelection selection = {.scores = in.data(), .size = size, .k = k, .out = out.data()};
        const absl::Status status = Execute(selection);
        ASSERT_TRUE(status.ok()) << status.message();
        EXPECT_EQ(out.Read(), scalar::TopK(scores, k));
        EXPECT_EQ(out.Read(), kernels::TopK(scores, k));
      }
    }
  }
}

TEST_F(TopKTest, ArgumentsOutOfBoundsAreNamed) {
  EXPECT_EQ(CheckScoreSelection({.size = 3, .k = 4}).message(), "k out of bounds: k=4 max=3");
  EXPECT_EQ(CheckScoreSelection({.size = 3, .k = 1}).message(), "a pointer is null: scores");
  EXPECT_EQ(CheckScorePooling({.kernel = 4}).message(),
            "pooling kernel out of bounds: kernel=4 min=1 max=65536 odd");
  EXPECT_EQ(CheckKeyDots({.shape = {RowType::kF16, 1, 257}}).message(),
            "dim out of bounds: dim=257 min=1 max=256");
  EXPECT_EQ(CheckKeyMass({.heads = 70000}).message(),
            "queries out of bounds: heads=70000 window=1 min=1 product_max=65536");
}

}  // namespace
}  // namespace kvasir::kernels::cuda
