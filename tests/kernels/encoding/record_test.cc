// Records of every codec: shapes that are refused, bytes of every target against the plain code,
// sources of any kind and address, and reads that stay inside.
#include "kernels/encoding/record.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>

#include "base/error.h"
#include "tests/kernels/encoding/guarded.h"
#include "tests/kernels/encoding/record_cases.h"
#include "tests/kernels/targets.h"

namespace kvasir::kernels {
namespace {

using test::Pick;

// A record of a random codec and the rows that it decodes to, by the plain code.
struct Decoded {
  Decoded(RecordPlane plane, std::mt19937& random) {
    shape = test::RandomShape(random);
    shape.plane = plane;
    const test::RecordCase it(shape, random);
    record = std::make_unique<test::Guarded>(RecordBytes(shape));
    EncodeRecord(shape, it.sources, it.turn, it.weights, record->data());
    rows.resize(size_t{shape.rows} * shape.dims);
    std::vector<float> vectors(rows.size());
    scalar::DecodeRecord(shape, record->data(), rows.data());
    DecodeRecord(shape, record->data(), vectors.data());
    float largest = 1;
    for (size_t i = 0; i < rows.size(); ++i) {
      largest = std::max(largest, std::abs(rows[i]));
      EXPECT_NEAR(vectors[i], rows[i], 1e-5F * largest) << i;
    }
    bound = 1e-4 * std::sqrt(static_cast<double>(shape.dims)) * double{largest};
  }
  RecordShape shape;
  std::unique_ptr<test::Guarded> record;
  std::vector<float> rows;
  double bound = 0;  // of a score or a sum
};

TEST(RecordShapeTest, WhatIsOutOfBoundsIsNamed) {
  const RecordShape good = {.codec = Codec::kTokenMixed, .code_planes = 144};
  EXPECT_TRUE(CheckRecordShape(good).ok());
  const std::pair<const char*, std::function<void(RecordShape&)>> cases[] = {
      {"codec=4 max=3", [](RecordShape& it) { it.codec = static_cast<Codec>(4); }},
      {"plane=2 max=1", [](RecordShape& it) { it.plane = static_cast<RecordPlane>(2); }},
      {"type=4 max=3", [](RecordShape& it) { it.type = static_cast<RowType>(4); }},
      {"type=-1 max=3", [](RecordShape& it) { it.type = static_cast<RowType>(-1); }},
      {"rows=48", [](RecordShape& it) { it.rows = 48; }},
      {"rows=128", [](RecordShape& it) { it.rows = 128; }},
      {"dims=0 min=8 max=256", [](RecordShape& it) { it.dims = 0; }},
      {"dims=60 min=8 max=256", [](RecordShape& it) { it.dims = 60; }},
      {"dims=264 min=8 max=256", [](RecordShape& it) { it.dims = 264; }},
      {"code_planes=31 min=32 max=384", [](RecordShape& it) { it.code_planes = 31; }},
      {"code_planes=385 min=32 max=384", [](RecordShape& it) { it.code_planes = 385; }},
  };
  for (const auto& [text, spoil] : cases) {
    RecordShape bad = good;
    spoil(bad);
    const absl::Status status = CheckRecordShape(bad);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_NE(MessageOf(status).find(text), std::string::npos) << MessageOf(status);
  }
  RecordShape plain = good;
  plain.codec = Codec::kInt4;
  plain.code_planes = 0;
  EXPECT_TRUE(CheckRecordShape(plain).ok());
}

// Rows in memory that ends with the last one, and records in memory that ends with them.
TEST(RecordTest, BytesAreThoseOfThePlainCode) {
  ForEachTarget([] {
    std::mt19937 random(1);
    for (int round = 0; round < 300; ++round) {
      SCOPED_TRACE(round);
      const test::RecordCase it(test::RandomShape(random), random);
      test::Guarded want(RecordBytes(it.shape));
      test::Guarded got(RecordBytes(it.shape));
      scalar::EncodeRecord(it.shape, it.sources, it.turn, it.weights, want.data());
      EncodeRecord(it.shape, it.sources, it.turn, it.weights, got.data());
      ASSERT_EQ(got.Text(), want.Text());
      EXPECT_TRUE(CheckRecord(it.shape, got.data()).ok());
    }
  });
}

// Elements that are no numbers, infinite, or too large for f16.
TEST(RecordTest, DamagedRowsLeaveTheOthersFinite) {
  ForEachTarget([] {
    std::mt19937 random(2);
    const float bad[] = {std::numeric_limits<float>::quiet_NaN(),
                         std::numeric_limits<float>::infinity(),
                         -std::numeric_limits<float>::infinity(),
                         3e38F,
                         -1e-40F,
                         -0.0F};
    for (int round = 0; round < 100; ++round) {
      SCOPED_TRACE(round);
      RecordShape shape = test::RandomShape(random);
      if (shape.codec == Codec::kAsWritten) {
        shape.codec = Codec::kInt4;
      }
      test::RecordCase it(shape, random);
      for (int i = 0; i < 20; ++i) {
        it.Store(Pick(random, 0, it.Count() - 1), Pick(random, 0, shape.dims - 1),
                 bad[Pick(random, 0, 5)]);
      }
      test::Guarded want(RecordBytes(shape));
      test::Guarded got(RecordBytes(shape));
      scalar::EncodeRecord(shape, it.sources, it.turn, it.weights, want.data());
      EncodeRecord(shape, it.sources, it.turn, it.weights, got.data());
      ASSERT_EQ(got.Text(), want.Text());
      ASSERT_TRUE(CheckRecord(shape, got.data()).ok());
      std::vector<float> rows(size_t{shape.rows} * shape.dims);
      DecodeRecord(shape, got.data(), rows.data());
      EXPECT_TRUE(std::all_of(rows.begin(), rows.end(), [](float x) { return std::isfinite(x); }));
    }
  });
}

// Scores and sums are those of the rows that a record decodes to, whatever the codec.
TEST(RecordTest, ScoresAreThoseOfTheDecodedKeys) {
  ForEachTarget([] {
    std::mt19937 random(3);
    for (int round = 0; round < 120; ++round) {
      SCOPED_TRACE(round);
      const Decoded it(RecordPlane::kKey, random);
      const RecordShape& shape = it.shape;
      const uint32_t queries = Pick(random, 1, 9);
      const auto q = test::Randoms(size_t{queries} * shape.dims, random);
      std::vector<float> scores(size_t{queries} * shape.rows, -1.0F);
      std::vector<float> plain = scores;
      RecordScores(shape, it.record->data(), q.data(), queries, scores.data());
      scalar::RecordScores(shape, it.record->data(), q.data(), queries, plain.data());
      for (size_t i = 0; i < scores.size(); ++i) {
        double want = 0;
        for (size_t dim = 0; dim < shape.dims; ++dim) {
          want += double{q[i / shape.rows * shape.dims + dim]} *
                  double{it.rows[i % shape.rows * shape.dims + dim]};
        }
        ASSERT_NEAR(scores[i], want, it.bound) << i;
        ASSERT_NEAR(plain[i], want, it.bound) << i;
      }
    }
  });
}

TEST(RecordTest, SumsAreThoseOfTheDecodedValues) {
  ForEachTarget([] {
    std::mt19937 random(7);
    for (int round = 0; round < 120; ++round) {
      SCOPED_TRACE(round);
      const Decoded it(RecordPlane::kValue, random);
      const RecordShape& shape = it.shape;
      const uint32_t queries = Pick(random, 1, 9);
      const auto weights = test::Randoms(size_t{queries} * shape.rows, random);
      std::vector<float> sums(size_t{queries} * shape.dims, 0.5F);
      std::vector<float> plain = sums;
      AddRecordValues(shape, it.record->data(), weights.data(), queries, sums.data());
      scalar::AddRecordValues(shape, it.record->data(), weights.data(), queries, plain.data());
      for (size_t i = 0; i < sums.size(); ++i) {
        double want = 0.5;
        for (size_t row = 0; row < shape.rows; ++row) {
          want += double{weights[i / shape.dims * shape.rows + row]} *
                  double{it.rows[row * shape.dims + i % shape.dims]};
        }
        ASSERT_NEAR(sums[i], want, it.bound) << i;
        ASSERT_NEAR(plain[i], want, it.bound) << i;
      }
    }
  });
}

// What a record holds decides nothing about where it is read.
TEST(RecordTest, RandomBytesAreReadInside) {
  ForEachTarget([] {
    std::mt19937 random(6);
    for (int round = 0; round < 100; ++round) {
      SCOPED_TRACE(round);
      const RecordShape shape = test::RandomShape(random);
      test::Guarded record(RecordBytes(shape));
      std::generate_n(record.data(), record.size(),
                      [&] { return static_cast<std::byte>(random()); });
      const uint32_t queries = Pick(random, 1, 5);
      const auto q = test::Randoms(size_t{queries} * shape.dims, random);
      const auto weights = test::Randoms(size_t{queries} * shape.rows, random);
      std::vector<float> scores(size_t{queries} * shape.rows);
      std::vector<float> sums(size_t{queries} * shape.dims);
      std::vector<float> rows(size_t{shape.rows} * shape.dims);
      CheckRecord(shape, record.data()).IgnoreError();
      if (shape.plane == RecordPlane::kKey) {
        RecordScores(shape, record.data(), q.data(), queries, scores.data());
      } else {
        AddRecordValues(shape, record.data(), weights.data(), queries, sums.data());
      }
      DecodeRecord(shape, record.data(), rows.data());
    }
  });
}

TEST(RecordTest, RowsAsWrittenKeepTheirBits) {
  std::mt19937 random(4);
  for (int round = 0; round < 40; ++round) {
    RecordShape shape = test::RandomShape(random);
    shape.codec = Codec::kAsWritten;
    test::RecordCase it(shape, random);
    it.Store(0, 0, std::numeric_limits<float>::quiet_NaN());
    it.turn.deltas = {};
    test::Guarded record(RecordBytes(shape));
    EncodeRecord(shape, it.sources, it.turn, {}, record.data());
    const size_t row_bytes = shape.dims * ElementBytes(shape.type);
    ASSERT_EQ(record.size(), shape.rows * row_bytes);
    for (size_t row = 0; row < shape.rows; ++row) {
      const std::string got = record.Text().substr(row * row_bytes, row_bytes);
      ASSERT_EQ(got, row < it.sources.size()
                         ? std::string(reinterpret_cast<const char*>(it.sources[row]), row_bytes)
                         : std::string(row_bytes, '\0'));
    }
  }
}

// What a turned key is must not depend on how it is stored.
TEST(RecordTest, TurnedKeysAreThoseOfTheGather) {
  std::mt19937 random(5);
  for (int round = 0; round < 60; ++round) {
    SCOPED_TRACE(round);
    RecordShape shape = test::RandomShape(random);
    shape.codec = round % 2 == 0 ? Codec::kAsWritten : Codec::kInt8;
    shape.plane = RecordPlane::kKey;
    shape.type = RowType::kF32;
    const test::RecordCase it(shape, random);
    std::vector<std::byte> gathered(it.sources.size() * shape.dims * sizeof(float));
    RopeShape rope = it.turn.rope;
    rope.type = shape.type;
    rope.head_dim = shape.dims;
    std::vector<int64_t> deltas(it.turn.deltas.begin(), it.turn.deltas.end());
    deltas.resize(it.sources.size());
    scalar::GatherRotateRows(rope, it.sources, deltas, gathered.data());
    std::vector<std::byte> record(RecordBytes(shape));
    EncodeRecord(shape, it.sources, it.turn, {}, record.data());
    std::vector<float> rows(size_t{shape.rows} * shape.dims);
    DecodeRecord(shape, record.data(), rows.data());
    for (size_t i = 0; i < it.sources.size() * shape.dims; ++i) {
      const float want = LoadElement(RowType::kF32, gathered.data(), i);
      ASSERT_NEAR(rows[i], want, shape.codec == Codec::kInt8 ? 0.03 : 1e-5) << i;
    }
  }
}

}  // namespace
}  // namespace kvasir::kernels
