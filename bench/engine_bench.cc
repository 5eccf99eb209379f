// bench_engine: time of a decode step by length of context, for llama.cpp itself, the engine on
// private memory, and the engine on a daemon's memory: full retention, SepLLM, encoded rows.
//
// All variants are computed in turn, one step each a round and in a new order every time, so that a
// busy machine and warm caches touch all alike; the ratios are of the two steps of one round. The
// sequences are made anew several times a context, because physical pages are luck. The rows of the
// engine's contexts are made up: timing does not look at their values. llama.cpp has no way in for
// rows, so it computes its own.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "bench/daemon_process.h"
#include "bench/decode_variants.h"
#include "bench/engine_system_calls.h"
#include "bench/report.h"
#include "bench/statistics.h"
#include "engine/ggml_log.h"
#include "engine/kvasir_kv_store.h"
#include "engine/private_kv_store.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <llama.h>
#include <time.h>

namespace kvasir::bench {
namespace {

constexpr uint32_t kWarmRounds = 2;
// Which physical pages a cache gets decides up to a tenth of a step's time, either way: so every
// context is measured on several caches.
constexpr uint32_t kSets = 10;

struct Options {
  std::string model, json = "build/bench/engine.json";
  std::vector<uint64_t> contexts = {512, 1024, 2048, 4096, 8192};
  uint32_t pairs = 40;
  uint32_t threads = 1;
  bool system_calls = false;  // and nothing else
  std::string walk;           // of the program that is traced: its memory
};

enum VariantIndex {
  kLlamaFlash,
  kLlamaPlain,
  kPrivate,
  kFull,
  kSep50,
  kSep12,
  kInt8,
  kInt4,
  kTm25,
  kTm19,
  kVariants
};

struct EncodedVariant {
  VariantIndex index;
  const char* name;
  const char* retention;
  double goal_long;  // most time, relative to full retention, from 4,096 rows on
};

// Where the cache is larger than the last-level cache fewer bytes are less time; below none may be
// a tenth slower than rows as written.
constexpr EncodedVariant kEncoded[] = {{kInt8, "int8", "full+int8", 1.0},
                                       {kInt4, "int4", "full+int4", 1 / 1.15},
                                       {kTm25, "tm 25%", "full+tm64:k_bits=3.25,v_bits=2.75", 1.0},
                                       {kTm19, "tm 19%", "full+tm64:k_bits=2.25,v_bits=1.75", 1.0}};
constexpr uint64_t kLongContext = 4096;

struct Timing {
  std::vector<double> wall_ms, cpu_ms;
};

using Timings = std::vector<Timing>;  // by VariantIndex

struct LlamaModelDeleter {
  void operator()(llama_model* model) const { llama_model_free(model); }
};

double Milliseconds(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

class EngineBench {
 public:
  explicit EngineBench(Options options) : options_(std::move(options)) {}

  absl::Status Run() {
    if (options_.system_calls) {
      KVASIR_RETURN_IF_ERROR(CountSystemCalls(options_.model, report_));
      KVASIR_RETURN_IF_ERROR(report_.Write(options_.json));
      fmt::print("{}{}\n", report_.ToTable(), options_.json);
      return absl::OkStatus();
    }
    KVASIR_RETURN_IF_ERROR(SetUp());
    for (const uint64_t context : options_.contexts) {
      KVASIR_RETURN_IF_ERROR(RunContext(context));
    }
    KVASIR_RETURN_IF_ERROR(report_.Write(options_.json));
    fmt::print("{}{}\n", report_.ToTable(), options_.json);
    return absl::OkStatus();
  }

 private:
  absl::Status SetUp() {
    std::sort(options_.contexts.begin(), options_.contexts.end());
    KVASIR_ASSIGN_OR_RETURN(
        engine::GgufModel model,
        engine::GgufModel::Load(options_.model, engine::WeightsMode::kAsStored));
    model_ = std::make_unique<engine::GgufModel>(std::move(model));
    KVASIR_ASSIGN_OR_RETURN(engine::Tokenizer tokenizer, engine::Tokenizer::Load(options_.model));
    tokenizer_ = std::make_unique<engine::Tokenizer>(std::move(tokenizer));
    KVASIR_ASSIGN_OR_RETURN(engine_,
                            engine::LlamaEngine::Create(*model_, {.threads = options_.threads}));
    const uint64_t rows_max = options_.contexts.back() + 2 * (options_.pairs + kWarmRounds) + 256;
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0;
    llama_model_.reset(llama_model_load_from_file(options_.model.c_str(), params));
    if (llama_model_ == nullptr) return Internal("libllama: {}", engine::TakeLibraryErrors());
    for (const bool flash : {true, false}) {
      KVASIR_ASSIGN_OR_RETURN(
          variants_[flash ? kLlamaFlash : kLlamaPlain],
          MakeLlamaVariant(llama_model_.get(), rows_max, options_.threads, flash));
    }
    const engine::KvGeometry geometry = GeometryOf(64);
    const uint64_t row_bytes =
        uint64_t{geometry.k_row_bytes + geometry.v_row_bytes} * geometry.layers;
    const uint64_t pool = RoundUp(6 * rows_max * row_bytes + 256 * kMiB, kMiB);
    KVASIR_ASSIGN_OR_RETURN(daemon_, DaemonProcess::Start(pool, pool / 2));
    return absl::OkStatus();
  }

  engine::KvGeometry GeometryOf(uint32_t slots) const {
    return engine::GeometryOf(model_->parameters(), kernels::RowType::kF16, slots);
  }

  // `kept`: share of the rows that SepLLM keeps of `context`; half of it in the window.
  absl::StatusOr<std::unique_ptr<DecodeVariant>> MakeKvasir(uint64_t context, double kept,
                                                            const char* retention = "full") {
    engine::KvasirStoreOptions options;
    options.connect = daemon_->connect_options();
    options.label = "bench";
    options.retention = retention;
    double separators = 0;
    if (kept < 1) {
      options.retention = fmt::format(
          "sepllm:form=static,init_cache_size=4,local_size={},separators={}",
          std::max<uint64_t>(1, static_cast<uint64_t>(static_cast<double>(context) * kept / 2)),
          kSeparator);
      separators = kept / 2 / (1 - kept / 2);
    }
    KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<engine::KvasirKvStore> store,
                            engine::KvasirKvStore::Create(*model_, *tokenizer_, options));
    slots_per_block_ = store->sequence().slots_per_block();
    return MakeStoreVariant(*engine_, std::move(store), separators);
  }

  absl::Status MakeStores(uint64_t context) {
    for (const auto& [index, kept] :
         {std::pair{kFull, 1.0}, std::pair{kSep50, 0.5}, std::pair{kSep12, 0.12}}) {
      variants_[index].reset();
      KVASIR_ASSIGN_OR_RETURN(variants_[index], MakeKvasir(context, kept));
    }
    for (const EncodedVariant& encoded : kEncoded) {
      variants_[encoded.index].reset();
      KVASIR_ASSIGN_OR_RETURN(variants_[encoded.index], MakeKvasir(context, 1, encoded.retention));
    }
    variants_[kPrivate].reset();
    KVASIR_ASSIGN_OR_RETURN(
        std::unique_ptr<engine::PrivateKvStore> store,
        engine::PrivateKvStore::Create(GeometryOf(slots_per_block_),
                                       context + options_.pairs + kWarmRounds + 1));
    variants_[kPrivate] = MakeStoreVariant(*engine_, std::move(store), 0);
    return absl::OkStatus();
  }

  double CpuMilliseconds() const {
    clockid_t daemon_clock{};
    const bool known = ::clock_getcpuclockid(daemon_->pid(), &daemon_clock) == 0;
    return Milliseconds(CLOCK_PROCESS_CPUTIME_ID) + (known ? Milliseconds(daemon_clock) : 0);
  }

  absl::Status RunContext(uint64_t context) {
    const uint32_t sets = std::min(kSets, options_.pairs);
    Timings timings(kVariants);
    std::mt19937_64 random(context);
    for (uint32_t set = 0; set < sets; ++set) {
      fmt::print(stderr, "context {}: set {} of {}\n", context, set + 1, sets);
      const uint32_t rounds = options_.pairs * (set + 1) / sets - options_.pairs * set / sets;
      KVASIR_RETURN_IF_ERROR(RunSet(context, rounds, random, timings));
    }
    return AddRows(context, timings);
  }

  // New sequences in new memory, then `rounds` steps of each variant.
  absl::Status RunSet(uint64_t context, uint32_t rounds, std::mt19937_64& random,
                      Timings& timings) {
    std::vector<size_t> order(kVariants);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    KVASIR_RETURN_IF_ERROR(MakeStores(context));
    for (const size_t index : order) KVASIR_RETURN_IF_ERROR(variants_[index]->FillTo(context));
    for (uint32_t round = 0; round < kWarmRounds + rounds; ++round) {
      // A variant gains when one with the same weights and activations ran just before it.
      std::shuffle(order.begin(), order.end(), random);
      for (const size_t index : order) {
        const double cpu = CpuMilliseconds();
        const double wall = Milliseconds(CLOCK_MONOTONIC);
        KVASIR_RETURN_IF_ERROR(variants_[index]->Step());
        if (round < kWarmRounds) continue;
        timings[index].wall_ms.push_back(Milliseconds(CLOCK_MONOTONIC) - wall);
        timings[index].cpu_ms.push_back(CpuMilliseconds() - cpu);
      }
    }
    return absl::OkStatus();
  }

  absl::Status AddRows(uint64_t context, const Timings& timings) {
    const bool flash = MedianOf(timings[kLlamaFlash].wall_ms).median <=
                       MedianOf(timings[kLlamaPlain].wall_ms).median;
    const Timing& llama = timings[flash ? kLlamaFlash : kLlamaPlain];
    const std::string other = flash ? "flash attention on" : "flash attention off";
    const std::string no_slower = context >= 1024 ? "ratio <= 1" : "";
    AddRow(context, "full private", timings[kFull], timings[kPrivate], "ratio_low <= 1.01", 1, "");
    AddRow(context, "full llama.cpp", timings[kFull], llama, no_slower, 1, other);
    for (const auto& [index, name] : {std::pair{kSep50, "50%"}, std::pair{kSep12, "12%"}}) {
      KVASIR_ASSIGN_OR_RETURN(const double kept, variants_[index]->KeptShare());
      AddRow(context, fmt::format("sepllm {}", name), timings[index], timings[kFull], "", kept, "");
      AddRow(context, fmt::format("sepllm {} llama.cpp", name), timings[index], llama, "", kept,
             other);
    }
    for (const EncodedVariant& encoded : kEncoded) {
      const double most = context >= kLongContext ? encoded.goal_long : 1.1;
      AddRow(context, encoded.name, timings[encoded.index], timings[kFull],
             fmt::format("ratio <= {:.2f}", most), 1, "");
    }
    AddRow(context, "tm 19% int4", timings[kTm19], timings[kInt4],
           context >= kLongContext ? "ratio <= 1" : "", 1, "");
    return absl::OkStatus();
  }

  void AddRow(uint64_t context, const std::string& name, const Timing& ours,
              const Timing& reference, const std::string& goal, double kept,
              const std::string& note) {
    const auto ratios = [](const std::vector<double>& a, const std::vector<double>& b) {
      std::vector<double> all;
      for (size_t i = 0; i < a.size(); ++i) all.push_back(a[i] / b[i]);
      return MedianOf(all);
    };
    const MedianInterval wall = ratios(ours.wall_ms, reference.wall_ms);
    const MedianInterval cpu = ratios(ours.cpu_ms, reference.cpu_ms);
    const auto rounded = [](double value) { return std::round(value * 1e4) / 1e4; };
    Row row;
    row.name = name;
    row.value = MedianOf(ours.wall_ms).median;
    row.unit = "ms";
    row.reference = MedianOf(reference.wall_ms).median;
    row.goal = goal;
    row.extra = {{"context", context},
                 {"ratio_median", rounded(wall.median)},
                 {"ratio_low", rounded(wall.low)},
                 {"ratio_high", rounded(wall.high)},
                 {"cpu_ms", rounded(MedianOf(ours.cpu_ms).median)},
                 {"cpu_reference", rounded(MedianOf(reference.cpu_ms).median)},
                 {"cpu_ratio", rounded(cpu.median)},
                 {"cpu_ratio_low", rounded(cpu.low)},
                 {"cpu_ratio_high", rounded(cpu.high)},
                 {"kept", rounded(kept)},
                 {"pairs", ours.wall_ms.size()},
                 {"note", note}};
    report_.Add(std::move(row));
  }

  Options options_;
  std::unique_ptr<engine::GgufModel> model_;
  std::unique_ptr<engine::Tokenizer> tokenizer_;
  std::unique_ptr<engine::LlamaEngine> engine_;
  std::unique_ptr<llama_model, LlamaModelDeleter> llama_model_;
  std::unique_ptr<DaemonProcess> daemon_;
  std::vector<std::unique_ptr<DecodeVariant>> variants_{kVariants};  // by VariantIndex
  uint32_t slots_per_block_ = 64;
  Report report_;
};

std::string LoadText() {
  std::array<double, 3> load{};
  if (::getloadavg(load.data(), 3) != 3) return "unknown";
  return fmt::format("{:.2f} {:.2f} {:.2f}", load[0], load[1], load[2]);
}

int Main(int argc, char** argv) {
  Options options;
  if (const char* model = std::getenv("KVASIR_MODEL")) options.model = model;
  if (const char* json = std::getenv("KVASIR_BENCH_JSON")) options.json = json;
  CLI::App app("Time of a decode step, as interleaved pairs", "bench_engine");
  app.add_option("--model", options.model, "GGUF file; default: $KVASIR_MODEL");
  app.add_option("--contexts", options.contexts, "Rows in front of the steps")
      ->delimiter(',')
      ->check(CLI::Range(64, 1 << 17));
  app.add_option("--pairs", options.pairs, "Steps of each variant and context")
      ->check(CLI::Range(6, 10'000))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "Of a step")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_flag("--system-calls", options.system_calls,
               "Only count the system calls of steps between block borders, by strace");
  app.add_option(kWalkOption, options.walk, "")->group("");
  CLI11_PARSE(app, argc, argv);
  if (options.model.empty()) {
    fmt::print(stderr, "bench_engine: no model: give --model or set KVASIR_MODEL\n");
    return 2;
  }
  if (!options.walk.empty()) {
    const absl::Status walked = Walk(options.model, options.walk);
    if (!walked.ok()) fmt::print(stderr, "bench_engine: {}\n", MessageOf(walked));
    return walked.ok() ? 0 : 1;
  }
  fmt::print(
      "Decode steps of {} in rounds, {} threads, f16 rows; made-up rows in front of them but for "
      "llama.cpp,\nwhich computes its own. Load of the machine: {}. Intervals: 95%, of the median "
      "of "
      "the pairs' ratios.\n",
      options.model, options.threads, LoadText());
  const absl::Status status = EngineBench(options).Run();
  if (status.ok()) return 0;
  fmt::print(stderr, "bench_engine: {}\n", MessageOf(status));
  return 1;
}

}  // namespace
}  // namespace kvasir::bench

int main(int argc, char** argv) { return kvasir::bench::Main(argc, argv); }
