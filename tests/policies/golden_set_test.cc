// The reader of golden sets refuses what does not fit, and reads what does.
#include "tests/policies/golden_set.h"

#include <array>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvasir::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// 128 bytes: floats 0.5, 1, 2, ... at 0, integers at 64.
std::array<std::byte, 128> Data() {
  std::array<std::byte, 128> data{};
  const float floats[] = {0.5F, 1, 2, 3};
  const int32_t integers[] = {7, -1};
  std::memcpy(data.data(), floats, sizeof floats);
  std::memcpy(data.data() + 64, integers, sizeof integers);
  return data;
}

std::string Text(const std::string& line) { return "case\tone\tknorm\n" + line + "\nend\n"; }

std::string ErrorOf(const std::string& text, std::array<std::byte, 128> data = Data()) {
  try {
    ParseGoldenSet(text, data);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "no error";
}

TEST(GoldenSet, ReadsParamsAndTensors) {
  const auto cases = ParseGoldenSet(
      "case\tone\tknorm\r\nparam\tn\t12\nparam\tbase\t0.5\ntensor\tf\tf32\t2x2\t0\t16\n"
      "tensor\ti\ti32\t2\t64\t8\ntensor\tnone\ti32\t0x3\t128\t0\nend\n\ncase\ttwo\ttova\nend",
      Data());
  ASSERT_EQ(cases.size(), 2U);
  const GoldenCase& one = cases[0];
  EXPECT_EQ(one.algorithm, "knorm");
  EXPECT_EQ(one.Number("n", 1, 12), 12U);
  EXPECT_EQ(one.Real("base"), 0.5);
  EXPECT_THAT(one.Floats("f", {2, 2}), ElementsAre(0.5F, 1, 2, 3));
  EXPECT_THAT(one.Integers("i", {2}), ElementsAre(7, -1));
  EXPECT_TRUE(one.Integers("none", {0, 3}).empty());
  EXPECT_THROW(one.Number("n", 1, 11), std::runtime_error);
  EXPECT_THROW(one.Number("base", 0, 9), std::runtime_error);
  EXPECT_THROW(one.Real("missing"), std::runtime_error);
  EXPECT_THROW(one.Floats("f", {4}), std::runtime_error);
  EXPECT_THROW(one.Floats("i", {2}), std::runtime_error);
  EXPECT_THROW(one.Integers("f", {2, 2}), std::runtime_error);
  EXPECT_THROW(one.Shape("f", 1), std::runtime_error);
  EXPECT_THROW(one.Shape("missing", 1), std::runtime_error);
}

TEST(GoldenSet, RefusesTensorsOutsideOfTheData) {
  const auto error = [](const std::string& tensor) {
    return ErrorOf(Text("tensor\tt\t" + tensor));
  };
  EXPECT_THAT(error("f64\t2\t0\t16"), HasSubstr("line 2: unknown dtype f64"));
  EXPECT_THAT(error("f32\t2\t128\t8"), HasSubstr("outside of 128 bytes"));
  EXPECT_THAT(error("f32\t2\t192\t8"), HasSubstr("outside of 128 bytes"));
  EXPECT_THAT(error("f32\t17\t64\t68"), HasSubstr("outside of 128 bytes"));
  EXPECT_THAT(error("f32\t2\t18446744073709551552\t8"), HasSubstr("outside of 128 bytes"));
  EXPECT_THAT(error("f32\t2\t4\t8"), HasSubstr("multiple of 64"));
  EXPECT_THAT(error("f32\t2\t0\t12"), HasSubstr("nbytes 12"));
  EXPECT_THAT(error("f32\t2x129\t0\t8"), HasSubstr("larger than the data"));
  EXPECT_THAT(error("f32\t128x128\t0\t8"), HasSubstr("larger than the data"));
  EXPECT_THAT(error("f32\t4294967296x4294967296\t0\t0"), HasSubstr("larger than the data"));
  EXPECT_THAT(error("f32\t1x1x1x1x1x1x1x1x1\t0\t4"), HasSubstr("larger than the data"));
  EXPECT_THAT(error("f32\t-2\t0\t8"), HasSubstr("dimension is no number: -2"));
  EXPECT_THAT(error("f32\t2x\t0\t8"), HasSubstr("dimension is no number"));
  EXPECT_THAT(error("f32\t2\t0x0\t8"), HasSubstr("offset is no number"));
  EXPECT_THAT(error("f32\t2\t0\t99999999999999999999"), HasSubstr("nbytes is no number"));
  EXPECT_THAT(error("f32\t2\t0"), HasSubstr("tensor with 5 fields, not 6"));
}

TEST(GoldenSet, RefusesValuesThatAreNotFinite) {
  std::array<std::byte, 128> data = Data();
  const float bad = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(data.data() + 4, &bad, sizeof bad);
  EXPECT_THAT(ErrorOf(Text("tensor\tt\tf32\t2\t0\t8"), data), HasSubstr("not finite"));
}

TEST(GoldenSet, RefusesLinesOutOfPlace) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("no cases"));
  EXPECT_THAT(ErrorOf("case\tone\tknorm\n"), HasSubstr("one has no end"));
  EXPECT_THAT(ErrorOf("case\tone\n"), HasSubstr("case with 2 fields, not 3"));
  EXPECT_THAT(ErrorOf("end\n"), HasSubstr("end outside of a case"));
  EXPECT_THAT(ErrorOf("param\ta\t1\n"), HasSubstr("param outside of a case"));
  EXPECT_THAT(ErrorOf(Text("case\ttwo\ttova")), HasSubstr("line 2: case inside a case"));
  EXPECT_THAT(ErrorOf(Text("word\ta")), HasSubstr("unknown word word"));
  EXPECT_THAT(ErrorOf(Text("") + Text("")), HasSubstr("case one twice"));
  EXPECT_THAT(ErrorOf(Text("param\ta\t1\nparam\ta\t2")), HasSubstr("param a twice"));
  EXPECT_THAT(ErrorOf(Text("tensor\tt\ti32\t2\t64\t8\ntensor\tt\ti32\t2\t64\t8")),
              HasSubstr("tensor t twice"));
}

}  // namespace
}  // namespace kvasir::testing
