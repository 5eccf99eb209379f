// What comparisons say: their arithmetic, their files, and a run over a daemon.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <gmock/gmock.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/gnuplot.h"
#include "engine/compare_grid.h"
#include "engine/compare_plot.h"
#include "engine/compare_program.h"
#include "engine/compare_results.h"
#include "engine/compare_score.h"
#include "engine/held_bytes.h"
#include "engine/profile_program.h"
#include "policies/policy_registry.h"
#include "tests/engine/daemon_parity_support.h"

#include <nlohmann/json.hpp>

namespace kvasir::engine::testing {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(CompareScore, DivergenceIsThatOfTheDefinition) {
  const std::vector<float> a = {1, 2, 0.5F}, b = {0, 2, 1};
  double sum_a = 0, sum_b = 0, expected = 0;
  for (size_t i = 0; i < 3; ++i) {
    sum_a += std::exp(a[i]);
    sum_b += std::exp(b[i]);
  }
  for (size_t i = 0; i < 3; ++i) {
    const double p = std::exp(a[i]) / sum_a, q = std::exp(b[i]) / sum_b;
    expected += p * std::log(p / q);
  }
  EXPECT_NEAR(Divergence(DistributionOf(a), DistributionOf(b)), expected, 1e-6);
  EXPECT_EQ(Divergence(DistributionOf(a), DistributionOf(a)), 0.0);
  EXPECT_EQ(DistributionOf(a).greedy, 1U);
  EXPECT_NEAR(DistributionOf(std::vector<float>{1e4F, 0}).log_probability[1], -1e4, 1);
}

TEST(CompareScore, ErrorsComeFromBlocks) {
  std::vector<double> values(300, 1.0);
  std::fill(values.begin() + 128, values.begin() + 256, 3.0);
  EXPECT_THAT(BlockMeans(values), ElementsAre(1.0, 3.0, 1.0));
  EXPECT_NEAR(StandardError(BlockMeans(values)), std::sqrt(8.0 / 3 / 2 / 3), 1e-12);
  EXPECT_EQ(StandardError(std::vector<double>{5}), 0.0);
}

TEST(CompareScore, TheFrontierHasWhatNothingBeats) {
  const std::vector<double> bytes = {50, 10, 30, 20, 30}, loss = {1, 9, 2, 9.5, 4};
  EXPECT_THAT(Frontier(bytes, loss), ElementsAre(1U, 2U, 0U));
}

TextResult Result(const std::string& retention, double kl) {
  TextResult result;
  result.retention = retention;
  result.nll_above_base = {0.1, 0.3};
  result.mean_nll_above_base = 0.2;
  result.kl = kl;
  result.top1 = 0.5;
  result.bytes = {.held = 25, .needed = 10};
  result.base_bytes = {.held = 100, .needed = 50};
  return result;
}

TEST(CompareResults, SummariesAreMeansOverTexts) {
  const std::vector<TextResult> results = {Result("x", 0.1), Result("x", 0.3)};
  const RetentionSummary summary = Summarise(results);
  EXPECT_NEAR(summary.perplexity_ratio, std::exp(0.2), 1e-12);
  EXPECT_NEAR(summary.ratio_error, 0.1 / std::sqrt(2.0), 1e-12);
  EXPECT_NEAR(summary.kl, 0.2, 1e-12);
  EXPECT_EQ(summary.held_ratio, 0.25);
  EXPECT_EQ(summary.formula_ratio, 0.2);
  const auto json = SummaryJson(std::vector{summary}, {{"x", "kl <= 1"}});
  EXPECT_EQ(json["rows"][0]["goal"], "kl <= 1");
  EXPECT_EQ(json["rows"][0]["held_ratio"], 0.25);
  EXPECT_THAT(SummaryTable(std::vector{summary}), HasSubstr("25.0%"));
}

TEST(CompareResults, TheBestHoldsNoMoreThanAllowed) {
  std::vector<RetentionSummary> rows(4);
  const std::vector<std::pair<double, double>> held_and_kl = {
      {0.3, 0.1}, {0.2, 0.3}, {0.25, 0.2}, {0.1, 0.2}};
  for (size_t i = 0; i < rows.size(); ++i) {
    std::tie(rows[i].held_ratio, rows[i].kl) = held_and_kl[i];
  }
  EXPECT_THAT(BestWithin(rows, 0.25), ElementsAre(2U, 3U, 1U));
  EXPECT_THAT(BestWithin(rows, 1), ElementsAre(0U, 2U, 3U, 1U));
  EXPECT_THAT(BestWithin(rows, 0.05), ElementsAre());
}

class CompareFiles : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override {
    std::filesystem::current_path(start_);
    std::filesystem::remove_all(folder_);
  }
  const std::filesystem::path start_ = std::filesystem::current_path();
  const std::string folder_ = ::testing::TempDir() + "kvasir_compare_" + std::to_string(::getpid());
};

TEST_F(CompareFiles, ARunGoesOnWhereItWasCutOff) {
  const std::string path = folder_ + "/deep/resume.jsonl";
  {
    ResumeFile file = ValueOrDie(ResumeFile::Open(path));
    ASSERT_TRUE(file.Add("text", Result("a", 0.25)).ok());
    ASSERT_TRUE(file.Add("text", Result("b", 0.5)).ok());
  }
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 20);  // torn
  ResumeFile file = ValueOrDie(ResumeFile::Open(path));
  ASSERT_NE(file.Find("text", "a"), nullptr);
  EXPECT_EQ(file.Find("text", "a")->kl, 0.25);
  EXPECT_THAT(file.Find("text", "a")->nll_above_base, ElementsAre(0.1, 0.3));
  EXPECT_EQ(file.Find("text", "b"), nullptr);
  EXPECT_EQ(file.Find("other", "a"), nullptr);
  ASSERT_TRUE(file.Add("text", Result("c", 1)).ok());
  EXPECT_NE(ValueOrDie(ResumeFile::Open(path)).Find("text", "c"), nullptr);
  std::ofstream(path, std::ios::app) << "[1]\n{\"text\": 3}\nnonsense\n";
  EXPECT_NE(ValueOrDie(ResumeFile::Open(path)).Find("text", "c"), nullptr);
}

std::string Contents(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST_F(CompareFiles, AFileThatCannotBeAddedToIsKnownAtOnce) {
  EXPECT_THAT(MessageOf(ResumeFile::Open(folder_).status()), HasSubstr("path=" + folder_));
}

TEST_F(CompareFiles, PlotsAreDrawnOrRefused) {
  const std::vector<RetentionSummary> rows = {Summarise(std::vector{Result("it's`a`", 0.1)}),
                                              Summarise(std::vector{Result("b", 0.2)})};
  const std::span all(rows);
  for (const auto& refuse : {CheckPlot, +[](const std::string& path) { return Plot({}, path); }}) {
    EXPECT_EQ(refuse(folder_ + "/x.gif").code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(CheckPlot(folder_ + "/deep/x.svg").ok());
  ASSERT_TRUE(Plot(all, folder_ + "/deep/x.svg").ok());
  const std::string text = Contents(folder_ + "/deep/x.svg");
  EXPECT_THAT(text, HasSubstr("frontier"));
  EXPECT_THAT(text, HasSubstr("1  it's`a`"));
  EXPECT_THAT(text, HasSubstr("</svg>"));
  ASSERT_TRUE(Plot(all.first(1), folder_ + "/one.png").ok());
  EXPECT_THAT(Contents(folder_ + "/one.png"), HasSubstr("PNG"));
  const std::vector<RetentionSummary> same = {Summarise(std::vector{Result("full", 0)})};
  EXPECT_THAT(MessageOf(Plot(same, folder_ + "/none.svg")), HasSubstr("nothing differs"));
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/none.svg"));
}

TEST_F(CompareFiles, APathIsNeverACommand) {
  const std::vector<RetentionSummary> rows = {Summarise(std::vector{Result("a", 0.1)})};
  const std::string made = folder_ + "/made";
  for (const char* const stem : {"`touch made`", "\"; ! touch made #", "$(touch made)", "a\nb"}) {
    const std::string name = std::string(stem) + ".svg";
    std::filesystem::current_path(folder_);
    ASSERT_TRUE(Plot(rows, name).ok()) << name;
    EXPECT_THAT(Contents(name), HasSubstr("</svg>")) << name;
    EXPECT_FALSE(std::filesystem::exists(made)) << name;
  }
}

TEST_F(CompareFiles, WithoutGnuplotAPlotIsRefusedAndNothingIsLeft) {
  const std::vector<RetentionSummary> rows = {Summarise(std::vector{Result("a", 0.1)})};
  const std::string before = std::getenv("PATH");
  ::setenv("PATH", folder_.c_str(), 1);
  const absl::Status check = CheckPlot("x.svg"), plot = Plot(rows, folder_ + "/x.svg");
  ::setenv("PATH", before.c_str(), 1);
  for (const absl::Status& status : {check, plot}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(MessageOf(status), HasSubstr("gnuplot-nox"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST(CompareGrid, EveryRetentionIsOneThatADaemonTakes) {
  PolicyContext context;
  context.separators = {1};
  context.layers = 4;
  for (const auto& list : {DefaultRetentions(), RetentionGrid(2048), RetentionGrid(8)}) {
    for (const std::string& retention : list) {
      const auto lanes = MakeLanes(retention, context);
      EXPECT_TRUE(lanes.ok()) << retention << ": " << MessageOf(lanes.status());
    }
  }
}

TEST(CompareGrid, WindowsArePartsOfTheText) {
  const std::vector<std::string> grid = RetentionGrid(2048), part = RetentionGrid(512);
  ASSERT_EQ(grid.size(), part.size());
  const auto at = [&](const std::string& retention) {
    const auto found = std::find(grid.begin(), grid.end(), retention);
    return found == grid.end() ? std::string("absent")
                               : part[static_cast<size_t>(found - grid.begin())];
  };
  EXPECT_EQ(at("full+int4"), "full+int4");
  EXPECT_EQ(at("streamingllm:start_size=4,recent_size=640,positions=original+int8"),
            "streamingllm:start_size=4,recent_size=160,positions=original+int8");
  EXPECT_EQ(at("sepllm:init_cache_size=4,local_size=256"),
            "sepllm:init_cache_size=4,local_size=64");
}

TEST(ProfileRates, FollowTheLossesAndAddUpToNothing) {
  const std::vector<double> rates = RatesOf({0.01, 0.04, 0.0025});
  EXPECT_THAT(rates, ElementsAre(DoubleNear(0, 0.02), DoubleNear(1, 0.02), DoubleNear(-1, 0.02)));
  EXPECT_THAT(RatesOf({0, 0}), ElementsAre(0.0, 0.0));
  EXPECT_THAT(RatesOf({1, 1e-30}), ElementsAre(3.0, -3.0));
}

class ComparedTexts : public DaemonParity {
 protected:
  void SetUp() override {
    StartDaemon(64 * kMiB);
    LoadModel(kTinyModel);
    std::ifstream in(kTinyFixture);
    const nlohmann::json fixture = nlohmann::json::parse(in);
    texts_ = {{"one", fixture["policy_checks"][0]["ids"].get<std::vector<uint32_t>>()}};
    options_.store.kvasir.connect = MakeConnectOptions();
    options_.store.kvasir.slots_per_block = 16;
    options_.resume_path = folder_.path() + "/resume.jsonl";
    options_.json_path = folder_.path() + "/out.json";
  }

  std::vector<CompareText> texts_;
  CompareOptions options_;
};

TEST_F(ComparedTexts, BytesAndQualityAreThoseOfTheEncodings) {
  options_.retentions = {"full", "full+int8", "full+tm32:k_bits=1,v_bits=1,recent=0",
                         "streamingllm:start_size=4,recent_size=20,positions=original"};
  const auto rows = ValueOrDie(RunCompare(*model_, *tokenizer_, options_, texts_));
  ASSERT_EQ(rows.size(), 5U);
  for (const size_t same : {0U, 1U}) {
    EXPECT_EQ(rows[same].perplexity_ratio, 1.0);
    EXPECT_LT(rows[same].kl, 1e-6);
    EXPECT_EQ(rows[same].top1, 1.0);
    EXPECT_EQ(rows[same].held_ratio, 1.0);
    EXPECT_EQ(rows[same].formula_ratio, 1.0);
  }
  EXPECT_NEAR(rows[2].perplexity_ratio, 1.0, 0.02);
  EXPECT_LT(rows[2].kl, 0.01);
  EXPECT_GT(rows[3].kl, 10 * rows[2].kl);
  EXPECT_LT(rows[3].formula_ratio, rows[2].formula_ratio);
  EXPECT_LT(rows[2].formula_ratio, 1.0);
  EXPECT_LT(rows[3].held_ratio, rows[2].held_ratio);
  EXPECT_LT(rows[4].formula_ratio, 0.5);
  std::ifstream in(options_.json_path);
  EXPECT_EQ(nlohmann::json::parse(in)["rows"].size(), 5U);
}

TEST_F(ComparedTexts, FinishedTextsAreNotComputedAgain) {
  options_.retentions = {"full+int8"};
  const auto first = ValueOrDie(RunCompare(*model_, *tokenizer_, options_, texts_));
  const auto again = ValueOrDie(RunCompare(*model_, *tokenizer_, options_, texts_));
  EXPECT_EQ(again[1].kl, first[1].kl);
  EXPECT_EQ(again[1].ms_per_token, first[1].ms_per_token);  // no clock is that exact
  // Remembered by what was retained, not only by what was asked for: a default may change, and so
  // may the profile that an encoding goes by.
  std::ifstream file(options_.resume_path);
  const std::string lines(std::istreambuf_iterator<char>(file), {});
  EXPECT_THAT(lines, HasSubstr("retention=full+int8:rows=64,"));
  const std::string old = "retention=full+int8:rows=64,", other = "retention=full+int8:rows=32,";
  std::string changed = lines;
  for (size_t at = 0; (at = changed.find(old, at)) != std::string::npos;) {
    changed.replace(at, old.size(), other);
  }
  std::ofstream(options_.resume_path) << changed;
  const auto anew = ValueOrDie(RunCompare(*model_, *tokenizer_, options_, texts_));
  EXPECT_EQ(anew[1].kl, first[1].kl);
  EXPECT_NE(anew[1].ms_per_token, first[1].ms_per_token);
}

TEST_F(ComparedTexts, SelectionsAndShortTextsAreRefused) {
  options_.retentions = {"gemfilter:filter_layer=1,topk=8"};
  EXPECT_THAT(MessageOf(RunCompare(*model_, *tokenizer_, options_, texts_).status()),
              HasSubstr("without a selection"));
  options_.retentions = {"full+int8"};
  texts_[0].ids.resize(7);
  EXPECT_THAT(MessageOf(RunCompare(*model_, *tokenizer_, options_, texts_).status()),
              HasSubstr("text=one tokens=7 min=8"));
  EXPECT_THAT(MessageOf(RunRecommend(*model_, *tokenizer_, options_, texts_)),
              HasSubstr("text=one tokens=7 min=32"));
}

TEST_F(ComparedTexts, TheRecommendationHoldsWhatIsAllowed) {
  options_.bytes = 0.6;
  ::testing::internal::CaptureStdout();
  const absl::Status status = RunRecommend(*model_, *tokenizer_, options_, texts_);
  const std::string out = ::testing::internal::GetCapturedStdout();
  ASSERT_TRUE(status.ok()) << MessageOf(status);
  EXPECT_THAT(out, HasSubstr("\n[retention]\ndefault = \""));
  std::ifstream in(options_.json_path);
  const nlohmann::json json = nlohmann::json::parse(in);
  for (size_t i = 1; i < json["rows"].size(); ++i) {
    EXPECT_LE(json["rows"][i]["held_ratio"].get<double>(), 0.6);
  }
  // A round's windows are windows on the round's text: three quarters of it at most.
  std::ifstream rounds(options_.resume_path);
  size_t windows = 0;
  for (std::string line; std::getline(rounds, line);) {
    const size_t window = line.find("recent_size="), tokens = line.find("tokens=");
    if (window == std::string::npos) continue;
    ++windows;
    EXPECT_LE(4 * std::stoul(line.substr(window + 12)), 3 * std::stoul(line.substr(tokens + 7)))
        << line;
  }
  EXPECT_GT(windows, 0U);
  options_.bytes = 1e-4;
  EXPECT_EQ(RunRecommend(*model_, *tokenizer_, options_, texts_).code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace kvasir::engine::testing
