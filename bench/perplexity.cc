// bench_perplexity: what a retention policy costs in quality, by scoring texts through a kvasird.
//
// static/...: three texts of 2,048 tokens (prose, manual, code), original positions: SepLLM with
// windows of 64 to 512, and a StreamingLLM window of the same mean size on the same text, each as a
// difference to full retention in nats a token. streaming/...: 16,384 tokens with positions in the
// cache, far beyond the trained context: perplexity by position. Every number stands beside the one
// that was measured before (bench/data/perplexity_expected.json).
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "bench/daemon_process.h"
#include "bench/report.h"
#include "bench/scored_text.h"
#include "bench/texts.h"
#include "engine/gguf_model.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace kvasir::bench {
namespace {

using Json = nlohmann::ordered_json;
using engine::WeightsMode;
using kernels::RowType;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kPoolBytes = 512 * kMiB, kReadyBytes = 256 * kMiB;
constexpr size_t kStaticTokens = 2048;
constexpr size_t kStreamTokens = 16'384;
constexpr uint64_t kStartSize = 4;
constexpr uint64_t kWindows[] = {64, 128, 256, 512};  // of SepLLM
constexpr double kNatsGoal = 0.01;

struct Options {
  std::string model, folder, only, json = "build/bench/perplexity.json";
  std::string expected = KVASIR_PERPLEXITY_EXPECTED;
  uint32_t threads = 1;
  WeightsMode weights = WeightsMode::kF32;
  RowType kv_type = RowType::kF32;
  bool quick = false;
};

// One line of the static table on one text; `all` adds the texts up.
struct StaticResult {
  double nll = 0, full_nll = 0;  // means over the scored queries
  double mean_visible = 0, kv_share = 0;
  uint32_t peak = 0;
};

std::optional<double> NumberAt(const Json& json, const std::string& pointer) {
  const Json::json_pointer at(pointer);
  if (!json.contains(at) || !json[at].is_number()) return std::nullopt;
  return json[at].get<double>();
}

class PerplexityBench {
 public:
  explicit PerplexityBench(Options options) : options_(std::move(options)) {}
  absl::Status Run();

 private:
  absl::Status SetUp();
  absl::Status RunStatic();
  absl::Status RunSegment(const std::string& segment);
  absl::Status RunPair(const std::string& segment, const std::vector<uint32_t>& ids,
                       const ScoredText& full, uint64_t window);
  absl::StatusOr<StaticResult> ScoreStatic(const std::string& name, const std::string& retention,
                                           const std::vector<uint32_t>& ids,
                                           const ScoredText& full);
  absl::Status RunStreaming();
  void AddStreamRows(const Json& run, const ScoredText& scored);
  absl::StatusOr<ScoredText> Score(const std::string& name, const std::string& retention,
                                   std::span<const uint32_t> ids);

  void AddFullRows();
  void AddStaticRows(uint64_t window);
  void AddDifference(const std::string& name, const StaticResult& result,
                     std::optional<double> expected, const Json& beside);
  bool Wanted(const std::string& name) const {
    return options_.only.empty() || name.find(options_.only) != std::string::npos;
  }

  const Options options_;
  Json expected_;
  std::optional<Texts> texts_;
  std::optional<engine::GgufModel> model_;
  std::optional<engine::Tokenizer> tokenizer_;
  std::unique_ptr<engine::LlamaEngine> engine_;
  std::unique_ptr<DaemonProcess> daemon_;
  std::map<std::string, StaticResult> full_;  // by segment
  std::map<std::pair<std::string, uint64_t>, StaticResult> sepllm_, streamingllm_;
  Report report_;
};

absl::Status PerplexityBench::SetUp() {
  std::ifstream file(options_.expected);
  expected_ = Json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!expected_.contains("static") || !expected_.contains("streaming")) {
    return InvalidArgument("expected numbers cannot be read: path={}", options_.expected);
  }
  KVASIR_ASSIGN_OR_RETURN(texts_, Texts::Open(kTextCatalogue, options_.folder));
  KVASIR_ASSIGN_OR_RETURN(model_, engine::GgufModel::Load(options_.model, options_.weights));
  KVASIR_ASSIGN_OR_RETURN(tokenizer_, engine::Tokenizer::Load(options_.model));
  engine::EngineOptions engine_options;
  engine_options.threads = options_.threads;
  engine_options.kv_type = options_.kv_type;
  KVASIR_ASSIGN_OR_RETURN(engine_, engine::LlamaEngine::Create(*model_, engine_options));
  KVASIR_ASSIGN_OR_RETURN(daemon_, DaemonProcess::Start(kPoolBytes, kReadyBytes));
  return absl::OkStatus();
}

absl::StatusOr<ScoredText> PerplexityBench::Score(const std::string& name,
                                                  const std::string& retention,
                                                  std::span<const uint32_t> ids) {
  engine::KvasirStoreOptions store;
  store.connect = daemon_->connect_options();
  store.kv_type = options_.kv_type;
  store.retention = retention;
  store.label = name;
  store.expanded_weights = options_.weights == WeightsMode::kF32;
  uint64_t told = 0;
  const auto progress = [&](uint64_t done, uint64_t total) {
    if (done * 4 / total == told) return;
    told = done * 4 / total;
    fmt::print(stderr, "{}: {}/{} tokens\n", name, done, total);
  };
  fmt::print(stderr, "{}: {}\n", name, retention);
  return ScoreText(*engine_, *tokenizer_, store, ids, progress);
}

absl::StatusOr<StaticResult> PerplexityBench::ScoreStatic(const std::string& name,
                                                          const std::string& retention,
                                                          const std::vector<uint32_t>& ids,
                                                          const ScoredText& full) {
  KVASIR_ASSIGN_OR_RETURN(const ScoredText scored, Score(name, retention, ids));
  const size_t first = ids.size() / 4, last = ids.size() - 1;
  StaticResult result;
  result.nll = scored.MeanNll(first, last);
  result.full_nll = full.MeanNll(first, last);
  result.mean_visible = scored.MeanVisible(first, last);
  result.kv_share = result.mean_visible / full.MeanVisible(first, last);
  result.peak = scored.PeakVisible();
  fmt::print(stderr, "{}: {:+.4f} nats, {:.1f}% visible, {:.0f} s\n", name,
             result.nll - result.full_nll, 100 * result.kv_share, scored.seconds);
  return result;
}

absl::Status PerplexityBench::RunPair(const std::string& segment, const std::vector<uint32_t>& ids,
                                      const ScoredText& full, uint64_t window) {
  const std::string name = fmt::format("static/{}/sepllm-{}", segment, window);
  KVASIR_ASSIGN_OR_RETURN(
      const StaticResult sepllm,
      ScoreStatic(
          name,
          fmt::format("sepllm:form=static,init_cache_size={},local_size={}", kStartSize, window),
          ids, full));
  const uint64_t equal =
      EqualMeanWindow(kStartSize, ids.size() / 4, ids.size() - 1, sepllm.mean_visible);
  KVASIR_ASSIGN_OR_RETURN(
      const StaticResult streamingllm,
      ScoreStatic(fmt::format("static/{}/streamingllm-{}", segment, window),
                  fmt::format("streamingllm:start_size={},recent_size={},positions=original",
                              kStartSize, equal),
                  ids, full));
  sepllm_[{segment, window}] = sepllm;
  streamingllm_[{segment, window}] = streamingllm;
  return absl::OkStatus();
}

absl::Status PerplexityBench::RunSegment(const std::string& segment) {
  std::vector<uint64_t> windows(std::begin(kWindows), std::end(kWindows));
  if (options_.quick) windows = {64, 512};
  windows.erase(std::remove_if(windows.begin(), windows.end(),
                               [&](uint64_t window) {
                                 return !Wanted(fmt::format("static/{}/{}", segment, window));
                               }),
                windows.end());
  if (windows.empty()) return absl::OkStatus();
  absl::StatusOr<std::vector<uint32_t>> ids = texts_->Segment(segment, *tokenizer_);
  if (absl::IsNotFound(ids.status())) {  // left out by ./dev, which said why
    fmt::print(stderr, "skipped: {}: {}\n", segment, MessageOf(ids.status()));
    return absl::OkStatus();
  }
  KVASIR_RETURN_IF_ERROR(ids.status());
  ids->resize(kStaticTokens);
  KVASIR_ASSIGN_OR_RETURN(const ScoredText full,
                          Score(fmt::format("static/{}/full", segment), "full", *ids));
  const double nll = full.MeanNll(kStaticTokens / 4, kStaticTokens - 1);
  full_[segment] = {nll, nll, full.MeanVisible(kStaticTokens / 4, kStaticTokens - 1), 1,
                    full.PeakVisible()};
  fmt::print(stderr, "static/{}/full: perplexity {:.3f}, {:.0f} s\n", segment, std::exp(nll),
             full.seconds);
  for (const uint64_t window : windows) {
    KVASIR_RETURN_IF_ERROR(RunPair(segment, *ids, full, window));
  }
  return absl::OkStatus();
}

void PerplexityBench::AddFullRows() {
  double sum = 0;
  const auto add = [&](const std::string& segment, double nll) {
    Row row;
    row.name = fmt::format("static/{}/full", segment);
    row.value = std::exp(nll);
    row.unit = "ppl";
    row.reference = NumberAt(expected_, "/static/full/ppl/" + segment);
    report_.Add(std::move(row));
  };
  for (const auto& [segment, result] : full_) {
    add(segment, result.nll);
    sum += result.nll;
  }
  if (full_.size() == 3) add("all", sum / 3);
}

void PerplexityBench::AddDifference(const std::string& name, const StaticResult& result,
                                    std::optional<double> expected, const Json& beside) {
  Row row;
  row.name = name;
  row.value = result.nll - result.full_nll;
  row.unit = "nats over full";
  row.extra = {{"percent", 100 * std::expm1(row.value)},
               {"kv_percent", 100 * result.kv_share},
               {"peak", result.peak}};
  if (expected) {
    row.goal = fmt::format("|difference| <= {}", kNatsGoal);
    row.extra["expected"] = *expected;
    row.extra["difference"] = row.value - *expected;
  }
  row.extra.update(beside);
  report_.Add(std::move(row));
}

// Each text, then the mean of all three, for both policies and their difference.
void PerplexityBench::AddStaticRows(uint64_t window) {
  StaticResult sums[2];
  size_t segments = 0;
  const std::string at = fmt::format("/static/{}", window);
  const auto add_minus = [&](const std::string& segment, const StaticResult& a,
                             const StaticResult& b, std::optional<double> expected) {
    StaticResult minus = a;
    minus.full_nll = b.nll;
    AddDifference(fmt::format("static/{}/sepllm minus streamingllm-{}", segment, window), minus,
                  expected, Json::object());
  };
  const auto percent = [&](const char* policy) -> std::optional<double> {
    const auto value = NumberAt(expected_, fmt::format("{}/{}/percent", at, policy));
    return value ? std::optional(std::log1p(*value / 100)) : std::nullopt;
  };
  for (const auto& [segment, full] : full_) {
    if (sepllm_.count({segment, window}) == 0) continue;
    ++segments;
    const StaticResult* results[] = {&sepllm_[{segment, window}],
                                     &streamingllm_[{segment, window}]};
    for (const int policy : {0, 1}) {
      const StaticResult& result = *results[policy];
      AddDifference(
          fmt::format("static/{}/{}-{}", segment, policy == 0 ? "sepllm" : "streamingllm", window),
          result, std::nullopt, Json::object());
      StaticResult& sum = sums[policy];
      sum.nll += result.nll / 3;
      sum.full_nll += result.full_nll / 3;
      sum.kv_share += result.kv_share / 3;
      sum.peak = std::max(sum.peak, result.peak);
    }
    add_minus(segment, *results[0], *results[1],
              NumberAt(expected_, fmt::format("{}/minus_streamingllm/{}", at, segment)));
  }
  if (segments != 3) return;
  for (const int policy : {0, 1}) {
    const char* name = policy == 0 ? "sepllm" : "streamingllm";
    Json beside = Json::object();
    for (const std::string& key : {at + "/kv_percent", fmt::format("{}/{}/peak", at, name)}) {
      if (const auto number = NumberAt(expected_, key)) {
        beside["expected_" + key.substr(key.rfind('/') + 1)] = *number;
      }
    }
    AddDifference(fmt::format("static/all/{}-{}", name, window), sums[policy], percent(name),
                  beside);
  }
  add_minus("all", sums[0], sums[1], std::nullopt);
}

absl::Status PerplexityBench::RunStatic() {
  for (const char* segment : {"prose0", "manual0", "code0"}) {
    KVASIR_RETURN_IF_ERROR(RunSegment(segment));
    if (options_.quick) break;
  }
  AddFullRows();
  for (const uint64_t window : kWindows) AddStaticRows(window);
  return absl::OkStatus();
}

void PerplexityBench::AddStreamRows(const Json& run, const ScoredText& scored) {
  const std::string name = run.value("name", "");
  for (const Json& range : run["ppl"]) {
    const auto from = range.value("from", size_t{0});
    const auto to = std::min(range.value("to", size_t{0}), scored.nll.size());
    if (from >= to) continue;  // a quick run ends before
    Row row;
    row.name = fmt::format("streaming/kjv/{} {}-{}", name, from, range.value("to", size_t{0}));
    row.value = std::exp(scored.MeanNll(from, to));
    row.unit = "ppl";
    row.reference = range.value("ppl", 0.0);
    row.goal = "ratio 0.99 to 1.01";
    fmt::print(stderr, "{}: {:.3f}, expected {:.2f}\n", row.name, row.value, *row.reference);
    row.extra = {{"mean_visible", scored.MeanVisible(0, scored.visible.size())},
                 {"expected_mean_visible", run.value("mean_visible", 0.0)}};
    report_.Add(std::move(row));
  }
}

absl::Status PerplexityBench::RunStreaming() {
  std::optional<std::vector<uint32_t>> ids;
  size_t runs = 0;
  for (const Json& run : expected_["streaming"]) {
    const std::string name = "streaming/kjv/" + run.value("name", "");
    if (!Wanted(name) || (options_.quick && runs == 2)) continue;
    ++runs;
    if (!ids) {
      const absl::StatusOr<std::string> text = texts_->File("kjv.txt");
      if (absl::IsNotFound(text.status())) {
        fmt::print(stderr, "skipped: streaming: {}\n", MessageOf(text.status()));
        return absl::OkStatus();
      }
      KVASIR_RETURN_IF_ERROR(text.status());
      // Far more than enough bytes: a token of this text has about four.
      KVASIR_ASSIGN_OR_RETURN(
          ids, tokenizer_->Encode(text->substr(0, 16 * kStreamTokens), false, false));
      ids->resize(options_.quick ? kStreamTokens / 4 : kStreamTokens);
    }
    KVASIR_ASSIGN_OR_RETURN(const ScoredText scored, Score(name, run.value("retention", ""), *ids));
    fmt::print(stderr, "{}: {:.0f} s\n", name, scored.seconds);
    AddStreamRows(run, scored);
  }
  return absl::OkStatus();
}

absl::Status PerplexityBench::Run() {
  KVASIR_RETURN_IF_ERROR(SetUp());
  KVASIR_RETURN_IF_ERROR(RunStatic());
  KVASIR_RETURN_IF_ERROR(RunStreaming());
  if (report_.rows().empty()) return NotFound("nothing was measured: only={}", options_.only);
  KVASIR_RETURN_IF_ERROR(report_.Write(options_.json));
  fmt::print("{}", report_.ToTable());
  return absl::OkStatus();
}

}  // namespace
}  // namespace kvasir::bench

int main(int argc, char** argv) {
  using kvasir::bench::Options;
  Options options;
  if (const char* model = std::getenv("KVASIR_MODEL")) options.model = model;
  if (const char* folder = std::getenv("KVASIR_TEXT_DIR")) options.folder = folder;
  if (const char* json = std::getenv("KVASIR_BENCH_JSON")) options.json = json;
  CLI::App app("Perplexity of texts under retention policies", "bench_perplexity");
  app.add_option("--model", options.model, "GGUF file; default: $KVASIR_MODEL");
  app.add_option("--texts", options.folder, "Folder of the texts; default: $KVASIR_TEXT_DIR");
  app.add_option("--only", options.only,
                 "Only runs whose name has this in it: static/TEXT/WINDOW, streaming/kjv/NAME");
  app.add_flag("--quick", options.quick, "One text, two windows, a short stream: some minutes");
  app.add_option("--threads", options.threads, "Of the model")->capture_default_str();
  app.add_option("--weights", options.weights, "f32 (expanded) or as-stored")
      ->transform(CLI::CheckedTransformer(std::map<std::string, kvasir::engine::WeightsMode>{
          {"f32", kvasir::engine::WeightsMode::kF32},
          {"as-stored", kvasir::engine::WeightsMode::kAsStored}}));
  app.add_option("--kv-type", options.kv_type, "Of K and V rows: f32 or f16")
      ->transform(CLI::CheckedTransformer(std::map<std::string, kvasir::kernels::RowType>{
          {"f32", kvasir::kernels::RowType::kF32}, {"f16", kvasir::kernels::RowType::kF16}}));
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = kvasir::bench::PerplexityBench(options).Run();
  if (status.ok()) return 0;
  fmt::print(stderr, "bench_perplexity: {}\n", kvasir::MessageOf(status));
  return 1;
}
