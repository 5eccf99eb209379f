// Traces are checked line by line; fixed policies hit what an independent implementation hits; the
// program's outputs.
#include "replay/replay.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "eviction/return_hazard.h"
#include "replay/program.h"
#include "replay/trace.h"

#include <nlohmann/json.hpp>

namespace kvasir::replay {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string kSynthetic = KVASIR_REPLAY_DATA "/synthetic.jsonl";

Trace ReadFile(const std::string& path) {
  std::ifstream file(path);
  auto trace = Trace::Read(file, 512);
  EXPECT_TRUE(trace.ok()) << trace.status();
  return std::move(trace).value();
}

std::string ErrorOf(const std::string& text) {
  std::istringstream in(text);
  const auto trace = Trace::Read(in, 512);
  if (trace.ok()) return "no error";
  EXPECT_EQ(trace.status().code(), absl::StatusCode::kInvalidArgument);
  return MessageOf(trace.status());
}

std::string LineOf(const std::string& timestamp, const std::string& input,
                   const std::string& output, const std::string& ids) {
  return "{\"timestamp\": " + timestamp + ", \"input_length\": " + input +
         ", \"output_length\": " + output + ", \"hash_ids\": " + ids + "}\n";
}

TEST(TraceTest, ReadsWhatIsThere) {
  std::istringstream in(LineOf("5", "1024", "7", "[1, 2]") + "\n" +
                        LineOf("5", "1025", "0", "[1, 2, 9007199254740991]") +
                        LineOf("6", "600", "3", "[2, 1]"));
  const auto trace = Trace::Read(in, 512);
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ(trace->requests(), 3U);
  EXPECT_EQ(trace->accesses().size(), 7U);
  // The same number behind another one is another block.
  EXPECT_EQ(trace->unique_blocks(), 5U);
  const eviction::Request first = trace->request(0), second = trace->request(1);
  EXPECT_EQ(first.now_us, 5000);
  EXPECT_EQ(first.tokens_in, 1024U);
  EXPECT_EQ(first.tokens_out, 7U);
  EXPECT_FALSE(first.last_partial);
  EXPECT_TRUE(second.last_partial);
  EXPECT_EQ(first.chain[1], second.chain[1]);
  EXPECT_NE(first.chain[0], trace->request(2).chain[1]);
}

TEST(TraceTest, HostileLinesAreRefusedWithLineFieldAndBound) {
  const std::string good = LineOf("5", "600", "7", "[1, 2]");
  EXPECT_EQ(ErrorOf(good), "no error");
  EXPECT_THAT(ErrorOf(""), HasSubstr("requests=0 min=1"));
  EXPECT_THAT(ErrorOf(good + "[]"), HasSubstr("no JSON object: line=2"));
  EXPECT_THAT(ErrorOf("{\"timestamp\": 1"), HasSubstr("no JSON object: line=1"));
  EXPECT_THAT(ErrorOf(std::string(100000, '[')), HasSubstr("no JSON object: line=1"));
  EXPECT_THAT(ErrorOf("{}"), HasSubstr("line=1 field=timestamp"));
  EXPECT_THAT(ErrorOf(good + LineOf("4", "600", "7", "[1, 2]")),
              HasSubstr("line=2 timestamp=4 min=5 max=8796093022208"));
  for (const char* number : {"-1", "1.5", "\"600\"", "null", "1e3", "99999999999999999999"}) {
    EXPECT_THAT(ErrorOf(LineOf(number, "600", "7", "[1, 2]")), HasSubstr("line=1 timestamp="));
    EXPECT_THAT(ErrorOf(LineOf("5", number, "7", "[1, 2]")), HasSubstr("line=1 input_length="));
    EXPECT_THAT(ErrorOf(LineOf("5", "600", number, "[1, 2]")), HasSubstr("line=1 output_length="));
    EXPECT_THAT(ErrorOf(LineOf("5", "600", "7", std::string("[1, ") + number + "]")),
                HasSubstr("line=1 hash_ids="));
  }
  EXPECT_THAT(ErrorOf(LineOf("5", "0", "7", "[]")), HasSubstr("input_length=0 min=1"));
  EXPECT_THAT(ErrorOf(LineOf("5", "600", "7", "[1]")), HasSubstr("hash_ids=1 expected=2"));
  EXPECT_THAT(ErrorOf(LineOf("5", "600", "7", "7")), HasSubstr("hash_ids=0 expected=2"));
  EXPECT_THAT(ErrorOf(LineOf("5", "600", "2147483649", "[1, 2]")),
              HasSubstr("output_length=2147483649 min=0 max=2147483648"));
  EXPECT_THAT(ErrorOf(LineOf("5", "600", "7", "[1, 9007199254740992]")),
              HasSubstr("hash_ids=9007199254740992 min=0 max=9007199254740991"));
  // Levels that are no error of JSON's take no stack either.
  const std::string deep = std::string(1 << 20, '[') + std::string(1 << 20, ']');
  EXPECT_THAT(ErrorOf(LineOf(deep, "600", "7", "[1, 2]")), HasSubstr("line=1 timestamp=array"));
  EXPECT_THAT(ErrorOf(LineOf("5", "600", "7", "[1, " + deep + "]")),
              HasSubstr("line=1 hash_ids=array"));
  EXPECT_THAT(ErrorOf(std::string(kLineBytesMax + 1, ' ')), HasSubstr("line is too long: line=1"));
}

TEST(ReplayTest, FixedPoliciesHitWhatTheReferenceHits) {
  std::ifstream file(KVASIR_REPLAY_DATA "/expected.json");
  const nlohmann::json expected = nlohmann::json::parse(file);
  const Trace trace = ReadFile(kSynthetic);
  EXPECT_EQ(trace.accesses().size(), expected.at("accesses").get<size_t>());
  EXPECT_EQ(trace.unique_blocks(), expected.at("unique_blocks").get<uint32_t>());
  ASSERT_EQ(expected.at("rows").size(), 42U);
  for (const auto& row : expected.at("rows")) {
    const auto name = row.at("eviction").get<std::string>();
    const auto capacity = row.at("capacity_blocks").get<uint32_t>();
    const auto result = Replay(trace, name, capacity, nullptr);
    ASSERT_TRUE(result.ok()) << result.status();
    const auto hits = static_cast<double>(result->block_hits);
    const auto wanted = row.at("block_hits").get<double>();
    // The sketch counts about, the reference exactly.
    const double slack = name == "w-tinylfu" ? 0.001 * static_cast<double>(result->accesses) : 0;
    EXPECT_LE(std::abs(hits - wanted), slack) << name << " " << capacity << " " << hits;
    EXPECT_LE(result->prefix_hits, result->block_hits);
    EXPECT_LE(result->resident, capacity);
  }
}

TEST(ReplayTest, ReturnHazardKeepsItsInvariantsOnTheTrace) {
  const Trace trace = ReadFile(kSynthetic);
  auto policy = eviction::ReturnHazard::Make(300, {});
  ASSERT_TRUE(policy.ok());
  std::vector<eviction::Eviction> evicted;
  uint64_t hits = 0;
  for (size_t i = 0; i < trace.requests(); ++i) {
    const auto admission = eviction::Serve(**policy, trace.request(i), evicted);
    ASSERT_TRUE(admission.ok());
    hits += admission->prefix_hits;
    const absl::Status status = (*policy)->CheckInvariants();
    ASSERT_TRUE(status.ok()) << "request " << i << ": " << status;
  }
  const auto result = Replay(trace, "return-hazard", 300, nullptr);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->block_hits, hits);
  EXPECT_EQ(result->prefix_hits, hits);
  // Better than idle time alone, and below what the future allows.
  EXPECT_GT(hits, Replay(trace, "lru", 300, nullptr)->block_hits);
  EXPECT_LT(hits, Replay(trace, "belady", 300, nullptr)->block_hits);
}

TEST(ReplayTest, CapacitiesAreBlocksOrShares) {
  EXPECT_EQ(*ParseCapacity("1827", 10), 1827U);
  EXPECT_EQ(*ParseCapacity("5%", 182790), 9139U);
  EXPECT_EQ(*ParseCapacity("0.5%", 1000), 5U);
  EXPECT_EQ(*ParseCapacity("1%", 10), 1U);
  for (const char* text :
       {"", "%", "0", "-1", "1.5", "101%", "0%", "nan%", "5x", "16777217", "5%%"}) {
    const auto capacity = ParseCapacity(text, 1000);
    ASSERT_FALSE(capacity.ok()) << text;
    EXPECT_THAT(MessageOf(capacity.status()), HasSubstr(std::string("capacity_blocks=") + text));
  }
}

TEST(ReplayTest, EvictionsAreSplitAtNames) {
  EXPECT_THAT(SplitEvictions("lru"), ElementsAre("lru"));
  EXPECT_THAT(SplitEvictions("return-hazard:kappa=4,old_bonus=0,lru,arc:x=1"),
              ElementsAre("return-hazard:kappa=4,old_bonus=0", "lru", "arc:x=1"));
  EXPECT_THAT(SplitEvictions("lru,x=1,"), ElementsAre("lru", "x=1", ""));
}

TEST(ReplayProgramTest, WritesTableRowsAndPlot) {
  ProgramOptions options;
  options.path = kSynthetic;
  options.capacities = {"300", "10%"};
  options.evictions = {"lru", "return-hazard"};
  options.block_bytes = 1 << 20;
  options.plot_path = ::testing::TempDir() + "/replay_plot/a b.svg";
  std::ostringstream table;
  const absl::Status drawn = replay::Run(options, table);
  ASSERT_TRUE(drawn.ok()) << drawn;
  const std::string text = table.str();
  EXPECT_THAT(text, HasSubstr("2400 requests, 22499 block accesses, 6124 different blocks"));
  EXPECT_LT(text.find("return-hazard"), text.find("lru"));  // the default first
  std::ifstream plot(options.plot_path);
  std::stringstream svg;
  svg << plot.rdbuf();
  EXPECT_THAT(svg.str(), HasSubstr("return-hazard"));
  EXPECT_THAT(svg.str(), HasSubstr("</svg>"));
  std::filesystem::remove_all(::testing::TempDir() + "/replay_plot");

  options.json = true;
  options.plot_path.clear();
  std::ostringstream out;
  ASSERT_TRUE(replay::Run(options, out).ok());
  const nlohmann::json report = nlohmann::json::parse(out.str());
  EXPECT_EQ(report.at("schema"), 1);
  ASSERT_EQ(report.at("rows").size(), 8U);
  for (const auto& row : report.at("rows")) {
    EXPECT_EQ(row.at("better"), "higher");
    EXPECT_EQ(row.at("value"), row.at("block_hit_ratio"));
    EXPECT_LE(row.at("prefix_hit_ratio").get<double>(), row.at("block_hit_ratio").get<double>());
    EXPECT_EQ(row.at("bytes_written").get<uint64_t>(), row.at("stored_blocks").get<uint64_t>()
                                                           << 20);
  }
  EXPECT_EQ(report.at("rows")[0].at("eviction"), "return-hazard");
  EXPECT_EQ(report.at("rows")[0].at("capacity_blocks"), 300);
  EXPECT_EQ(report.at("rows")[2].at("eviction"), "belady");
  EXPECT_EQ(report.at("rows")[2].at("ratio"), 1.0);
}

TEST(ReplayProgramTest, WhatIsWrongIsSaidBeforeTheWork) {
  const auto error = [](const ProgramOptions& options) {
    std::ostringstream out;
    const absl::Status status = replay::Run(options, out);
    EXPECT_TRUE(out.str().empty());
    return MessageOf(status);
  };
  ProgramOptions options;
  options.path = "/nonexistent/trace";
  EXPECT_THAT(error(options), HasSubstr("path=/nonexistent/trace"));
  options.evictions = {"clock"};
  EXPECT_THAT(error(options), HasSubstr("eviction=clock"));
  options.evictions = {};
  options.plot_path = "x.gif";
  EXPECT_THAT(error(options), HasSubstr("x.gif"));
  options.plot_path = "";
  options.path = kSynthetic;
  options.capacities = {"10", "200%"};
  EXPECT_THAT(error(options), HasSubstr("capacity_blocks=200%"));
}

}  // namespace
}  // namespace kvasir::replay
