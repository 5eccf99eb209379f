// The JSON and the table of a bench report.
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/report.h"

#include <nlohmann/json.hpp>

namespace kvasir::bench {
namespace {

Report Sample() {
  Report report;
  report.Add({"ours", 3.0, "ms", 2.0, Better::kLower, "ratio <= 2", {{"held_bytes", 64}}});
  report.Add({"alone",
              std::numeric_limits<double>::infinity(),
              "ms",
              std::nullopt,
              Better::kHigher,
              "",
              {{"value", 1}}});
  return report;
}

TEST(BenchReport, JsonHasTheAgreedFields) {
  const auto json = Sample().ToJson();
  EXPECT_EQ(json.at("schema"), 1);
  const auto& ours = json.at("rows").at(0);
  EXPECT_EQ(ours.at("name"), "ours");
  EXPECT_EQ(ours.at("ratio"), 1.5);
  EXPECT_EQ(ours.at("better"), "lower");
  EXPECT_EQ(ours.at("goal"), "ratio <= 2");
  EXPECT_EQ(ours.at("held_bytes"), 64);
  const auto& alone = json.at("rows").at(1);
  EXPECT_TRUE(alone.at("ratio").is_null());
  EXPECT_TRUE(alone.at("value").is_null());  // not a number, and extra fields replace nothing
}

TEST(BenchReport, TableIsAligned) {
  const std::string table = Sample().ToTable();
  EXPECT_THAT(table, ::testing::HasSubstr("ours   3      ms    2          1.5"));
  EXPECT_THAT(table, ::testing::HasSubstr("alone  inf"));
}

TEST(BenchReport, AReferenceMayHaveAName) {
  Report report;
  Row row;
  row.name = "fetch";
  row.value = 1.0;
  row.unit = "ms";
  row.reference = 4.0;
  row.reference_name = "redis";
  report.Add(row);
  const auto json = report.ToJson();
  const auto& named = json.at("rows").at(0);
  EXPECT_EQ(named.at("reference"), "redis");
  EXPECT_EQ(named.at("reference_value"), 4.0);
  EXPECT_EQ(named.at("ratio"), 0.25);
  EXPECT_THAT(report.ToTable(), ::testing::HasSubstr("redis 4    0.25"));
}

TEST(BenchReport, WritesAFileAndSaysWhenItCannot) {
  const auto folder = std::filesystem::path(::testing::TempDir()) / "kvasir_bench_report_test";
  const auto path = folder / "made" / "report.json";
  ASSERT_TRUE(Sample().Write(path.string()).ok());
  std::ifstream file(path);
  EXPECT_EQ(nlohmann::ordered_json::parse(file), Sample().ToJson());
  EXPECT_FALSE(Sample().Write((path / "below_a_file.json").string()).ok());
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace kvasir::bench
