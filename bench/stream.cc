// bench_stream: a long stream through one sequence stays flat in memory.
//
// First real prose through a real model with in-cache positions (the streaming form of SepLLM,
// initial/separators/window/capacity = 4/64/256/800), then the same text over and over with made-up
// rows and no model, as far as the paper's longest stream. Bytes held are counted from the engine's
// side; the daemon's resident memory is the kernel's word.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "bench/daemon_process.h"
#include "bench/report.h"
#include "engine/generator.h"
#include "engine/gguf_model.h"
#include "engine/kvasir_kv_store.h"
#include "engine/llama_engine.h"
#include "engine/tokenizer.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace kvasir::bench {
namespace {

constexpr char kRetention[] =
    "sepllm:form=manager,init_cache_size=4,sep_cache_size=64,local_size=256,cache_size=800";
// The cache has been full and compacted several times, and the pool's stock is filled up again.
constexpr uint64_t kWarmRows = 5'000;
constexpr uint64_t kWarmShare = 50;  // of the stream, if that is more
// Smaller than a cycle between compactions, so that the samples see the highest point as well.
constexpr uint32_t kBatch = 128;

struct Options {
  std::string model, text, json = "build/bench/stream.json";
  uint64_t model_tokens = 50'000, tokens = 4'000'000;
  uint32_t threads = 1;
};

struct Sample {
  uint64_t rows, held_bytes, kept_rows, resident_bytes;
  double nll = 0;       // sum over the tokens scored since the last sample
  uint64_t scored = 0;  // 0 without a model
};

struct Stream {
  std::string name;
  std::vector<Sample> samples;
  double seconds = 0;
  std::chrono::steady_clock::time_point told{};  // when progress was printed
};

// Text of the Debian package bible-kjv-text without verse numbers, unless a file is given.
absl::StatusOr<std::string> ReadText(const std::string& path) {
  FILE* in = path.empty() ? ::popen("bible -f gen1:1-rev22:21 | sed 's/^[^ ]* *//'", "r")
                          : std::fopen(path.c_str(), "r");
  if (in == nullptr) return NotFound("text cannot be read: path={}", path);
  std::string text;
  std::array<char, 1 << 16> buffer;
  for (size_t got = 0; (got = std::fread(buffer.data(), 1, buffer.size(), in)) > 0;) {
    text.append(buffer.data(), got);
  }
  const int rc = path.empty() ? ::pclose(in) : std::fclose(in);
  if (rc != 0 || text.empty()) {
    return NotFound("text cannot be read (Debian package bible-kjv-text): path={}", path);
  }
  return text;
}

absl::Status Look(engine::KvasirKvStore& store, const DaemonProcess& daemon, double nll,
                  uint64_t scored, Stream* stream) {
  KVASIR_ASSIGN_OR_RETURN(const engine::KvUsage usage, store.Usage());
  stream->samples.push_back({usage.tokens_seen, usage.held_bytes, usage.tokens_kept,
                             daemon.ResidentBytes(), nll, scored});
  const auto now = std::chrono::steady_clock::now();
  if (now - stream->told < std::chrono::seconds(5)) return absl::OkStatus();
  stream->told = now;
  fmt::print(stderr, "{}: {} tokens, {} kept, {} held\n", stream->name, usage.tokens_seen,
             usage.tokens_kept, HumanBytes(usage.held_bytes));
  return absl::OkStatus();
}

// -log p(token) under the logits of one row.
double NegativeLogLikelihood(std::span<const float> logits, uint32_t token) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit - top));
  return std::log(sum) - static_cast<double>(logits[token] - top);
}

absl::Status RunModel(engine::LlamaEngine& engine, engine::KvasirKvStore& store,
                      const DaemonProcess& daemon, std::span<const uint32_t> ids, Stream* stream) {
  const uint32_t vocabulary = engine.model().parameters().vocabulary;
  double nll = 0;
  uint64_t scored = 0;
  for (uint64_t row = 0; row < ids.size();) {
    const auto want = static_cast<uint32_t>(std::min<uint64_t>(kBatch, ids.size() - row));
    KVASIR_ASSIGN_OR_RETURN(const StepView step, store.Begin(want));
    const std::span<const uint32_t> tokens = ids.subspan(row, step.count);
    KVASIR_ASSIGN_OR_RETURN(const std::span<const float> logits,
                            engine.Compute(tokens, step, engine::LogitsWanted::kAll));
    for (uint32_t t = 0; t < step.count && row + t + 1 < ids.size(); ++t, ++scored) {
      nll += NegativeLogLikelihood(logits.subspan(uint64_t{t} * vocabulary, vocabulary),
                                   ids[row + t + 1]);
    }
    KVASIR_RETURN_IF_ERROR(store.Commit(tokens));
    row += step.count;
    KVASIR_RETURN_IF_ERROR(Look(store, daemon, nll, scored, stream));
    nll = 0;
    scored = 0;
  }
  return absl::OkStatus();
}

absl::Status RunRows(engine::KvasirKvStore& store, const DaemonProcess& daemon,
                     std::span<const uint32_t> ids, uint64_t tokens, Stream* stream) {
  std::vector<std::byte> made_up;
  std::vector<uint32_t> batch;
  for (uint64_t row = 0; row < tokens;) {
    const auto want = static_cast<uint32_t>(std::min<uint64_t>(kBatch, tokens - row));
    KVASIR_ASSIGN_OR_RETURN(const StepView step, store.Begin(want));
    for (const LayerView& layer : step.layers) {
      made_up.resize(std::max<size_t>(layer.k_stride, layer.v_stride), std::byte{0x3C});
      for (uint64_t p = row; p < row + step.count; ++p) {
        made_up[0] = static_cast<std::byte>(p);
        std::memcpy(layer.KeyOf(p), made_up.data(), layer.k_stride);
        std::memcpy(layer.ValueOf(p), made_up.data(), layer.v_stride);
      }
    }
    batch.clear();
    for (uint64_t p = row; p < row + step.count; ++p) batch.push_back(ids[p % ids.size()]);
    KVASIR_RETURN_IF_ERROR(store.Commit(batch));
    row += step.count;
    KVASIR_RETURN_IF_ERROR(Look(store, daemon, 0, 0, stream));
  }
  return absl::OkStatus();
}

// Highest value after the warm-up, beside the highest one in it.
void AddFlatRow(const Stream& stream, const std::string& what, uint64_t Sample::*field,
                Report* report) {
  const uint64_t rows = stream.samples.back().rows;
  const uint64_t warm_rows = std::min(std::max(kWarmRows, rows / kWarmShare), rows / 2);
  uint64_t warm = 0, highest = 0;
  for (const Sample& sample : stream.samples) {
    const bool warming = sample.rows < warm_rows;
    uint64_t& top = warming ? warm : highest;
    top = std::max(top, sample.*field);
  }
  Row row;
  row.name = stream.name + " " + what;
  row.value = static_cast<double>(highest);
  row.unit = "bytes";
  row.reference = static_cast<double>(warm);
  row.goal = "flat: ratio <= 1.05";
  row.extra = {{"tokens", stream.samples.back().rows},
               {"kept", stream.samples.back().kept_rows},
               {"seconds", stream.seconds},
               {"reference_rows", warm_rows}};
  report->Add(std::move(row));
}

void AddPerplexityRows(const Stream& stream, Report* report) {
  constexpr uint64_t kSpan = 10'000;
  double sum = 0;
  uint64_t count = 0, border = kSpan;
  for (const Sample& sample : stream.samples) {
    sum += sample.nll;
    count += sample.scored;
    if (sample.rows < border && &sample != &stream.samples.back()) continue;
    Row row;
    row.name = fmt::format("{} perplexity to {}", stream.name, sample.rows);
    row.value = std::exp(sum / static_cast<double>(count));
    row.unit = "ppl";
    report->Add(std::move(row));
    sum = 0;
    count = 0;
    border += kSpan;
  }
}

absl::Status Plot(const std::vector<Stream>& streams, const std::string& json) {
  const std::string stem = std::filesystem::path(json).replace_extension("").string();
  std::string script = fmt::format(
      "set terminal svg size 900,560 background 'white'\nset output '{}.svg'\n"
      "set multiplot layout {},1\nset key outside right\nset xlabel 'tokens seen'\n"
      "set ylabel 'MiB'\nset yrange [0:*]\nset format x '%.0s%c'\n",
      stem, streams.size());
  for (const Stream& stream : streams) {
    const std::string data = fmt::format("{}-{}.dat", stem, stream.name);
    std::ofstream file(data);
    // A thousand points at most, each the highest of its samples.
    const size_t bin = std::max<size_t>(1, stream.samples.size() / 1000);
    for (size_t first = 0; first < stream.samples.size(); first += bin) {
      Sample top = stream.samples[first];
      for (size_t i = first; i < std::min(first + bin, stream.samples.size()); ++i) {
        top.held_bytes = std::max(top.held_bytes, stream.samples[i].held_bytes);
        top.resident_bytes = std::max(top.resident_bytes, stream.samples[i].resident_bytes);
      }
      file << fmt::format("{} {} {}\n", top.rows, static_cast<double>(top.held_bytes) / kMiB,
                          static_cast<double>(top.resident_bytes) / kMiB);
    }
    script += fmt::format(
        "set title '{2} tokens {0}'\nplot '{1}' using 1:2 with lines title 'bytes held', '' using "
        "1:3 with "
        "lines title 'resident memory of kvasird'\n",
        stream.name == "model" ? "of prose through a model" : "without a model, rows made up", data,
        stream.samples.back().rows);
  }
  std::ofstream(stem + ".gp") << script;
  if (std::system(fmt::format("gnuplot '{}.gp'", stem).c_str()) != 0) {
    return Internal("gnuplot failed: script={}.gp", stem);
  }
  fmt::print("wrote {}.svg\n", stem);
  return absl::OkStatus();
}

absl::Status Run(const Options& options) {
  KVASIR_ASSIGN_OR_RETURN(engine::GgufModel model,
                          engine::GgufModel::Load(options.model, engine::WeightsMode::kAsStored));
  KVASIR_ASSIGN_OR_RETURN(engine::Tokenizer tokenizer, engine::Tokenizer::Load(options.model));
  KVASIR_ASSIGN_OR_RETURN(const std::string text, ReadText(options.text));
  KVASIR_ASSIGN_OR_RETURN(const std::vector<uint32_t> ids, tokenizer.Encode(text, true, false));
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<DaemonProcess> daemon,
                          DaemonProcess::Start(256 * kMiB, 128 * kMiB));
  engine::KvasirStoreOptions store_options;
  store_options.connect = daemon->connect_options();
  store_options.retention = kRetention;
  std::vector<Stream> streams;
  for (const bool with_model : {true, false}) {
    const uint64_t tokens = with_model ? options.model_tokens : options.tokens;
    if (tokens == 0) continue;
    Stream& stream = streams.emplace_back();
    stream.name = with_model ? "model" : "rows";
    KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<engine::KvasirKvStore> store,
                            engine::KvasirKvStore::Create(model, tokenizer, store_options));
    const auto start = std::chrono::steady_clock::now();
    if (with_model) {
      engine::EngineOptions engine_options;
      engine_options.threads = options.threads;
      KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<engine::LlamaEngine> engine,
                              engine::LlamaEngine::Create(model, engine_options));
      KVASIR_RETURN_IF_ERROR(RunModel(*engine, *store, *daemon,
                                      std::span(ids).first(std::min<size_t>(tokens, ids.size())),
                                      &stream));
    } else {
      KVASIR_RETURN_IF_ERROR(RunRows(*store, *daemon, ids, tokens, &stream));
    }
    stream.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    fmt::print(stderr, "in {:.1f} s\n", stream.seconds);
    KVASIR_RETURN_IF_ERROR(store->Close());
  }
  Report report;
  for (const Stream& stream : streams) {
    AddFlatRow(stream, "held", &Sample::held_bytes, &report);
    AddFlatRow(stream, "resident", &Sample::resident_bytes, &report);
    if (stream.name == "model") AddPerplexityRows(stream, &report);
  }
  KVASIR_RETURN_IF_ERROR(report.Write(options.json));
  fmt::print("{}", report.ToTable());
  return Plot(streams, options.json);
}

}  // namespace
}  // namespace kvasir::bench

int main(int argc, char** argv) {
  kvasir::bench::Options options;
  if (const char* model = std::getenv("KVASIR_MODEL")) options.model = model;
  if (const char* json = std::getenv("KVASIR_BENCH_JSON")) options.json = json;
  CLI::App app("Bytes held over a long stream through one sequence", "bench_stream");
  app.add_option("--model", options.model, "GGUF file; default: $KVASIR_MODEL");
  app.add_option("--text", options.text, "Prose; default: the Debian package bible-kjv-text");
  app.add_option("--model-tokens", options.model_tokens, "Through the model")
      ->capture_default_str();
  app.add_option("--tokens", options.tokens, "Without a model")->capture_default_str();
  app.add_option("--threads", options.threads, "Of the model")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = kvasir::bench::Run(options);
  if (status.ok()) return 0;
  fmt::print(stderr, "bench_stream: {}\n", kvasir::MessageOf(status));
  return 1;
}
