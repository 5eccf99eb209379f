// Records that others made: decoded and scored alike, and encoded to the same bytes.
#include <cmath>
#include <cstddef>
#include <fstream>
#include <string>
#include <vector>

#include "kernels/encoding/tm_record.h"
#include "tests/kernels/targets.h"

#include <nlohmann/json.hpp>

namespace kvasir::kernels {
namespace {

nlohmann::json Read(const std::string& name) {
  std::ifstream file(std::string(KVASIR_ENCODING_DATA) + "/" + name);
  EXPECT_TRUE(file.is_open()) << name;
  return nlohmann::json::parse(file);
}

std::vector<std::byte> Bytes(const std::string& hex) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoul(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

RecordPlane PlaneOf(const nlohmann::json& kind) {
  return kind == "K" ? RecordPlane::kKey : RecordPlane::kValue;
}

// Numbers are given with 5 digits behind the point, scores with 4, sums with 3.
TEST(TmGoldenTest, RecordsDecodeAndScoreAsTheyShould) {
  const nlohmann::json cases = Read("golden_decode.json");
  ASSERT_EQ(cases.size(), 4U);
  ForEachTarget([&] {
    for (const nlohmann::json& it : cases) {
      const RecordShape shape = {.codec = Codec::kTokenMixed,
                                 .plane = PlaneOf(it.at("kind")),
                                 .rows = it.at("B"),
                                 .dims = it.at("D"),
                                 .code_planes = it.at("planes")};
      const std::vector<std::byte> record = Bytes(it.at("record"));
      ASSERT_EQ(record.size(), tm::Bytes(shape));
      EXPECT_TRUE(tm::Check(shape, record.data()).ok());
      std::vector<float> rows(size_t{shape.rows} * shape.dims);
      tm::Decode(shape, record.data(), rows.data());
      const std::vector<double> first = it.at("row0"), last = it.at("row_last");
      double sum = 0;
      for (size_t i = 0; i < rows.size(); ++i) {
        sum += double{rows[i]};
      }
      for (size_t c = 0; c < shape.dims; ++c) {
        ASSERT_NEAR(rows[c], first[c], 1e-4) << c;
        ASSERT_NEAR(rows[rows.size() - shape.dims + c], last[c], 1e-4) << c;
      }
      EXPECT_NEAR(sum, it.at("sum"), 0.01);
      if (shape.plane == RecordPlane::kKey) {
        const std::vector<float> q = it.at("q");
        const std::vector<double> wanted = it.at("scores0_7");
        std::vector<float> scores(shape.rows);
        tm::Scores(shape, record.data(), q.data(), 1, scores.data());
        for (size_t row = 0; row < wanted.size(); ++row) {
          EXPECT_NEAR(scores[row], wanted[row], 1e-3);
        }
      }
    }
  });
}

// rows() of make_golden.py.
std::vector<float> GoldenRows(uint32_t filled, uint32_t dims, uint32_t seed) {
  std::vector<float> rows;
  uint32_t state = seed;
  for (uint32_t row = 0; row < filled; ++row) {
    for (uint32_t c = 0; c < dims; ++c) {
      int total = -510;
      for (int i = 0; i < 4; ++i) {
        state = state * 1664525U + 1013904223U;
        total += static_cast<int>(state >> 24U);
      }
      const float spread = std::exp2(-static_cast<float>(c * 5 % 7)) * (row == 5 ? 8.0F : 1.0F);
      rows.push_back(static_cast<float>(total) / 32 * spread +
                     (static_cast<float>(c * 37 % 29) - 14) / 4);
    }
  }
  return rows;
}

TEST(TmGoldenTest, AnIndependentEncoderMakesTheSameBytes) {
  const nlohmann::json cases = Read("golden_encode.json");
  ASSERT_GE(cases.size(), 14U);
  ForEachTarget([&] {
    for (const nlohmann::json& it : cases) {
      SCOPED_TRACE(it.at("seed").get<int>());
      const RecordShape shape = {.codec = Codec::kTokenMixed,
                                 .plane = PlaneOf(it.at("kind")),
                                 .rows = it.at("rows"),
                                 .dims = it.at("dims"),
                                 .code_planes = it.at("planes")};
      std::vector<float> weights(it.at("weighted").get<bool>() ? shape.dims : 0);
      for (size_t c = 0; c < weights.size(); ++c) {
        weights[c] = static_cast<float>(c * 7 % 13) * 0.25F;
      }
      const std::vector<std::byte> want = Bytes(it.at("record"));
      ASSERT_EQ(want.size(), tm::Bytes(shape));
      const std::vector<float> tile = GoldenRows(it.at("filled"), shape.dims, it.at("seed"));
      std::vector<std::byte> got(want.size());
      tm::Encode(shape, tile.data(), it.at("filled"), weights, got.data());
      EXPECT_EQ(got, want);
    }
  });
}

}  // namespace
}  // namespace kvasir::kernels
