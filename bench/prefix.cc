// bench_prefix: what a cached prefix saves, and what finding one costs.
//
// attach: a prompt is computed and published by one session; then processes of their own, one after
// the other, open a sequence with the same tokens. Timed there: from the call that opens it to the
// views of its next row, which is all that stands between an engine and its next step. The
// reference is the prefill in the same run, and the logits of the next token are compared with
// those that the first session computes. Connecting and registering the model, which an engine does
// once, are rows of their own.
//
// lookup: a prefix of 131,072 tokens (8,192 chunks) of a model with one small layer, so that what
// is timed is the index: a look, and an open that attaches to it.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "bench/daemon_process.h"
#include "bench/report.h"
#include "bench/statistics.h"
#include "engine/generator.h"
#include "engine/gguf_model.h"
#include "engine/kvasir_kv_store.h"
#include "engine/llama_engine.h"
#include "engine/tokenizer.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace kvasir::bench {
namespace {

constexpr uint64_t kPoolBytes = 1536 * kMiB, kReadyBytes = 512 * kMiB;
constexpr uint32_t kBatch = 512;
constexpr uint64_t kLookupTokens = 131'072;
constexpr int kLooks = 50, kOpens = 20;

struct Options {
  std::string model, json = "build/bench/prefix.json", retention = "full";
  uint64_t tokens = 4096;
  int processes = 9;
  uint32_t threads = 2;
  // Of a child: where the daemon is.
  std::string child_control, child_data;
};

double MillisecondsSince(Instant start) {
  return std::chrono::duration<double, std::milli>(SystemClock().Now() - start).count();
}

std::vector<uint32_t> RandomTokens(uint64_t count, uint32_t vocabulary) {
  std::mt19937 random(20'261'126);
  std::vector<uint32_t> tokens(count);
  for (uint32_t& token : tokens) token = 100 + static_cast<uint32_t>(random() % (vocabulary - 100));
  return tokens;
}

struct Loaded {
  std::unique_ptr<engine::GgufModel> model;
  std::unique_ptr<engine::Tokenizer> tokenizer;
  std::unique_ptr<engine::LlamaEngine> engine;
};

absl::StatusOr<Loaded> Load(const Options& options) {
  Loaded loaded;
  KVASIR_ASSIGN_OR_RETURN(engine::GgufModel model,
                          engine::GgufModel::Load(options.model, engine::WeightsMode::kAsStored));
  loaded.model = std::make_unique<engine::GgufModel>(std::move(model));
  KVASIR_ASSIGN_OR_RETURN(engine::Tokenizer tokenizer, engine::Tokenizer::Load(options.model));
  loaded.tokenizer = std::make_unique<engine::Tokenizer>(std::move(tokenizer));
  engine::EngineOptions engine;
  engine.threads = options.threads;
  KVASIR_ASSIGN_OR_RETURN(loaded.engine, engine::LlamaEngine::Create(*loaded.model, engine));
  return loaded;
}

// Logits of the last of `tokens`, the others of which the store may have already.
absl::StatusOr<std::vector<float>> LastLogits(engine::LlamaEngine& engine, engine::KvStore& store,
                                              std::span<const uint32_t> tokens) {
  std::vector<float> last;
  while (store.rows() < tokens.size()) {
    const auto want =
        static_cast<uint32_t>(std::min<uint64_t>(kBatch, tokens.size() - store.rows()));
    KVASIR_ASSIGN_OR_RETURN(const StepView step, store.Begin(want));
    const auto batch = tokens.subspan(store.rows(), step.count);
    const bool ends = store.rows() + batch.size() == tokens.size();
    KVASIR_ASSIGN_OR_RETURN(
        const std::span<const float> logits,
        engine.Compute(batch, step,
                       ends ? engine::LogitsWanted::kLast : engine::LogitsWanted::kNone, nullptr));
    KVASIR_RETURN_IF_ERROR(store.Commit(batch));
    last.assign(logits.begin(), logits.end());
  }
  return last;
}

// What a process of its own finds; one line of JSON on standard output.
absl::Status RunChild(const Options& options) {
  KVASIR_ASSIGN_OR_RETURN(Loaded loaded, Load(options));
  const std::vector<uint32_t> tokens =
      RandomTokens(options.tokens + 1, loaded.model->parameters().vocabulary);
  ConnectOptions connect;
  connect.control_socket = options.child_control;
  connect.data_socket = options.child_data;
  engine::KvasirStoreOptions store;
  KVASIR_ASSIGN_OR_RETURN(const ModelSpec spec,
                          engine::ModelSpecOf(*loaded.model, *loaded.tokenizer, store));
  const Instant before = SystemClock().Now();
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<kvasir::Session> session,
                          kvasir::Session::Connect(connect));
  KVASIR_ASSIGN_OR_RETURN(const ModelHandle handle, session->RegisterModel(spec));
  const double connect_ms = MillisecondsSince(before);
  OpenOptions open;
  open.model = handle;
  open.retention = options.retention;
  open.reads_records = true;
  open.prefix = PrefixOptions{};
  open.prefix->tokens = tokens;
  open.prefix->rows_max = options.tokens;
  const Instant start = SystemClock().Now();
  KVASIR_ASSIGN_OR_RETURN(Sequence sequence, session->OpenSequence(open));
  KVASIR_ASSIGN_OR_RETURN(const StepView step, sequence.Begin(1));
  const double attach_ms = MillisecondsSince(start);
  const uint64_t rows = step.row;
  std::vector<float> logits;
  if (rows == options.tokens) {
    const uint32_t last = tokens.back();
    KVASIR_ASSIGN_OR_RETURN(
        const std::span<const float> of_last,
        loaded.engine->Compute(std::span(&last, 1), step, engine::LogitsWanted::kLast, nullptr));
    logits.assign(of_last.begin(), of_last.end());
    KVASIR_RETURN_IF_ERROR(sequence.Commit(std::span(&last, 1)));
  }
  const nlohmann::json found = {
      {"rows", rows}, {"attach_ms", attach_ms}, {"connect_ms", connect_ms}, {"logits", logits}};
  fmt::print("{}\n", found.dump());
  return absl::OkStatus();
}

absl::StatusOr<std::string> OutputOf(const std::string& command) {
  FILE* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return ErrnoStatus(errno, "popen");
  std::string out;
  char buffer[65536];
  size_t bytes = 0;
  while ((bytes = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0) out.append(buffer, bytes);
  const int status = ::pclose(pipe);
  if (status != 0) return Internal("a process has failed: status={} output={}", status, out);
  return out;
}

absl::StatusOr<nlohmann::json> SpawnChild(const Options& options, const ConnectOptions& connect) {
  const std::string command = fmt::format(
      "/proc/{}/exe --child-control '{}' --child-data '{}' --model '{}' --tokens {} "
      "--threads {} --retention '{}'",
      ::getpid(), connect.control_socket, connect.data_socket, options.model, options.tokens,
      options.threads, options.retention);
  KVASIR_ASSIGN_OR_RETURN(const std::string out, OutputOf(command));
  nlohmann::json found = nlohmann::json::parse(out, nullptr, /*allow_exceptions=*/false);
  if (found.is_discarded()) return Internal("a process that attaches says: {}", out);
  return found;
}

// What kvasirctl says of the bench's tenant.
absl::StatusOr<nlohmann::json> TenantStats(const ConnectOptions& connect) {
  KVASIR_ASSIGN_OR_RETURN(
      const std::string out,
      OutputOf(fmt::format(
          "$(dirname $(readlink /proc/{}/exe))/kvasirctl --socket '{}' --output json tenants",
          ::getpid(), connect.control_socket)));
  return nlohmann::json::parse(out)["tenants"][0];
}

void AddTimed(const std::string& name, std::vector<double> samples, std::optional<double> reference,
              const std::string& goal, Report* report) {
  const MedianInterval median = MedianOf(std::move(samples));
  Row row;
  row.name = name;
  row.value = median.median;
  row.unit = "ms";
  row.reference = reference;
  row.goal = goal;
  row.extra = {{"low", median.low}, {"high", median.high}};
  report->Add(std::move(row));
}

// The first attach after a restart: the prefix comes from the disk.
absl::Status MeasureFromDisk(const Options& options, const std::string& disk, double prefill_ms,
                             Report* report) {
  std::vector<double> attach;
  for (int i = 0; i < options.processes; ++i) {
    KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<DaemonProcess> daemon,
                            DaemonProcess::Start(kPoolBytes, kReadyBytes, "", disk));
    KVASIR_ASSIGN_OR_RETURN(const nlohmann::json found,
                            SpawnChild(options, daemon->connect_options()));
    const auto rows = found["rows"].get<uint64_t>();
    if (rows != options.tokens / 16 * 16) {
      return Internal("the prefix was not found after a restart: rows={}", rows);
    }
    attach.push_back(found["attach_ms"].get<double>());
  }
  AddTimed("attach/from_disk_after_restart", attach, prefill_ms, "", report);
  return absl::OkStatus();
}

absl::Status MeasureAttach(const Options& options, const std::string& disk, Report* report) {
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<DaemonProcess> daemon,
                          DaemonProcess::Start(kPoolBytes, kReadyBytes, "", disk));
  KVASIR_ASSIGN_OR_RETURN(Loaded loaded, Load(options));
  const std::vector<uint32_t> tokens =
      RandomTokens(options.tokens + 1, loaded.model->parameters().vocabulary);
  engine::KvasirStoreOptions store_options;
  store_options.connect = daemon->connect_options();
  store_options.retention = options.retention;
  store_options.shared_prompt = tokens;
  KVASIR_ASSIGN_OR_RETURN(
      std::unique_ptr<engine::KvasirKvStore> store,
      engine::KvasirKvStore::Create(*loaded.model, *loaded.tokenizer, store_options));
  fmt::print(stderr, "prefill of {} tokens\n", options.tokens);
  Instant start = SystemClock().Now();
  KVASIR_RETURN_IF_ERROR(
      LastLogits(*loaded.engine, *store, std::span(tokens).first(options.tokens)).status());
  const double prefill_ms = MillisecondsSince(start);
  start = SystemClock().Now();
  KVASIR_RETURN_IF_ERROR(store->PublishPrefix());
  const double publish_ms = MillisecondsSince(start);
  KVASIR_ASSIGN_OR_RETURN(const std::vector<float> expected,
                          LastLogits(*loaded.engine, *store, tokens));
  std::vector<double> attach, connect;
  double worst = 0;
  for (int i = 0; i < options.processes; ++i) {
    KVASIR_ASSIGN_OR_RETURN(const nlohmann::json found,
                            SpawnChild(options, daemon->connect_options()));
    if (found["rows"].get<uint64_t>() != options.tokens) {
      return Internal("the prefix was not attached: rows={} expected={}",
                      found["rows"].get<uint64_t>(), options.tokens);
    }
    const auto logits = found["logits"].get<std::vector<float>>();
    if (logits.size() != expected.size()) return Internal("logits of another size");
    for (size_t t = 0; t < logits.size(); ++t) {
      worst = std::max(worst, std::fabs(static_cast<double>(logits[t]) - expected[t]));
    }
    attach.push_back(found["attach_ms"].get<double>());
    connect.push_back(found["connect_ms"].get<double>());
  }
  if (worst > 0.05) return Internal("logits differ from the computed ones: worst={}", worst);
  AddTimed("attach/prefill", {prefill_ms}, std::nullopt, "", report);
  AddTimed("attach/publish", {publish_ms}, prefill_ms, "", report);
  AddTimed("attach/new_process", attach, prefill_ms, "ratio <= 0.01", report);
  AddTimed("attach/connect_and_register", connect, std::nullopt, "", report);
  Row logits;
  logits.name = "attach/logits";
  logits.value = worst;
  logits.unit = "largest difference";
  logits.goal = "value <= 0.05";
  report->Add(std::move(logits));
  store.reset();
  daemon.reset();                                            // writes the prefix down
  if (options.retention != "full") return absl::OkStatus();  // other forms stay in memory
  return MeasureFromDisk(options, disk, prefill_ms, report);
}

absl::Status MeasureLookup(Report* report) {
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<DaemonProcess> daemon,
                          DaemonProcess::Start(512 * kMiB, 128 * kMiB));
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<kvasir::Session> session,
                          kvasir::Session::Connect(daemon->connect_options()));
  ModelSpec spec;
  spec.name = "one small layer";
  spec.layers = {LayerSpec{.kv_heads = 1, .k_head_dim = 8, .v_head_dim = 8, .query_heads = 1}};
  spec.vocabulary_size = 128'000;
  spec.weights_digest = std::string(16, 'w');
  KVASIR_ASSIGN_OR_RETURN(const ModelHandle handle, session->RegisterModel(spec));
  OpenOptions open;
  open.model = handle;
  open.retention = "full";
  open.prefix = PrefixOptions{};
  open.prefix->tokens = RandomTokens(kLookupTokens + 1, spec.vocabulary_size);
  open.prefix->rows_max = kLookupTokens;
  const std::span<const uint32_t> tokens = open.prefix->tokens;
  {
    KVASIR_ASSIGN_OR_RETURN(Sequence sequence, session->OpenSequence(open));
    while (sequence.rows() < kLookupTokens) {  // the rows themselves do not matter
      KVASIR_ASSIGN_OR_RETURN(const StepView step,
                              sequence.Begin(static_cast<uint32_t>(
                                  std::min<uint64_t>(4096, kLookupTokens - sequence.rows()))));
      KVASIR_RETURN_IF_ERROR(sequence.Commit(tokens.subspan(step.row, step.count)));
    }
    KVASIR_RETURN_IF_ERROR(sequence.PublishPrefix().status());
  }
  std::vector<double> looks, opens;
  for (int i = 0; i < kLooks; ++i) {
    const Instant start = SystemClock().Now();
    KVASIR_ASSIGN_OR_RETURN(const std::vector<PrefixForm> forms,
                            session->MatchPrefix(handle, *open.prefix));
    looks.push_back(MillisecondsSince(start));
    if (forms.size() != 1 || forms[0].rows != kLookupTokens) {
      return Internal("the prefix was not found: forms={}", forms.size());
    }
  }
  for (int i = 0; i < kOpens; ++i) {
    const Instant start = SystemClock().Now();
    KVASIR_ASSIGN_OR_RETURN(Sequence sequence, session->OpenSequence(open));
    opens.push_back(MillisecondsSince(start));
    if (sequence.rows() != kLookupTokens) {
      return Internal("the prefix was not attached: rows={}", sequence.rows());
    }
  }
  AddTimed("lookup/131072_tokens", looks, std::nullopt, "value <= 2, one call", report);
  AddTimed("lookup/open_131072_tokens", opens, std::nullopt, "", report);
  KVASIR_ASSIGN_OR_RETURN(const nlohmann::json stats, TenantStats(daemon->connect_options()));
  const double chunks = std::stod(stats["prefix_chunks"].get<std::string>());
  Row memory;
  memory.name = "index/bytes_per_chunk";
  memory.value = std::stod(stats["prefix_metadata_bytes"].get<std::string>()) / chunks;
  memory.unit = "bytes of 16 tokens, ghosts included";
  memory.extra = {{"chunks", chunks}};
  report->Add(std::move(memory));
  return absl::OkStatus();
}

absl::Status Run(const Options& options) {
  if (!options.child_control.empty()) return RunChild(options);
  Report report;
  KVASIR_RETURN_IF_ERROR(MeasureLookup(&report));
  std::string disk = (std::filesystem::temp_directory_path() / "kvasir-bench-XXXXXX").string();
  if (::mkdtemp(disk.data()) == nullptr) return ErrnoStatus(errno, "mkdtemp");
  const absl::Status attached = MeasureAttach(options, disk, &report);
  std::filesystem::remove_all(disk);
  KVASIR_RETURN_IF_ERROR(attached);
  fmt::print("{}", report.ToTable());
  return report.Write(options.json);
}

}  // namespace
}  // namespace kvasir::bench

int main(int argc, char** argv) {
  kvasir::bench::Options options;
  if (const char* model = std::getenv("KVASIR_MODEL")) options.model = model;
  if (const char* json = std::getenv("KVASIR_BENCH_JSON")) options.json = json;
  CLI::App app("What a cached prefix saves, and what finding one costs.");
  app.add_option("--model", options.model, "GGUF file (default: $KVASIR_MODEL)")
      ->required(options.model.empty());
  app.add_option("--tokens", options.tokens, "Of the prefix, a multiple of 16 (default 4096)")
      ->check(CLI::Range(16, 1 << 16));
  app.add_option("--retention", options.retention, "Policy grammar (default full)");
  app.add_option("--processes", options.processes, "That attach (default 9)")
      ->check(CLI::Range(1, 1000));
  app.add_option("--threads", options.threads, "Of an engine (default 2)")
      ->check(CLI::Range(1, 256));
  app.add_option("--child-control", options.child_control)->group("");
  app.add_option("--child-data", options.child_data)->group("");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = kvasir::bench::Run(options);
  if (status.ok()) return 0;
  fmt::print(stderr, "bench_prefix: {}\n", kvasir::MessageOf(status));
  return 1;
}
