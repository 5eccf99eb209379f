// bench_frontier: how much quality a byte buys. Encodings and policies at equal held bytes, on the
// pinned texts, beside full retention as written: see engine/comparison.h.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "bench/daemon_process.h"
#include "bench/texts.h"
#include "engine/compare_grid.h"
#include "engine/compare_program.h"
#include "engine/gguf_model.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace kvasir::bench {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kPoolBytes = 2048 * kMiB, kReadyBytes = 256 * kMiB;
constexpr uint32_t kSlotsPerBlock = 16;
const std::vector<std::string> kSegments = {"prose0", "manual0", "code0"};

constexpr uint64_t kLongTokens = 8192;

// Beside the goals, what is held may be 3 points above the formula, 1 point at kLongTokens.
const std::map<std::string, std::string> kGoals = {
    {"full+int8", "formula <= .575: ratio <= 1.002"},
    {"full+tm64:k_bits=4.25,v_bits=4", "formula <= .315: ratio <= 1.003, kl <= .003"},
    {"full+tm64:k_bits=3.25,v_bits=2.75", "formula <= .25: ratio <= 1.008, kl <= .008"},
    {"full+tm64:k_bits=2.25,v_bits=1.75", "formula <= .19: ratio <= 1.02, kl <= .028"},
    {"streamingllm:start_size=4,recent_size=636,positions=original+tm32:k_bits=2.5,v_bits=2",
     "formula <= .11: ratio <= 1.06, kl <= .07"},
    {"streamingllm:start_size=4,recent_size=436,positions=original+tm32:k_bits=2.5,v_bits=2",
     "formula <= .085: ratio <= 1.14, kl <= .14"}};

struct Options {
  std::string model, folder, profiles = KVASIR_BENCH_PROFILES;
  std::string json = "build/bench/frontier.json", plot, resume;
  std::vector<std::string> retentions, segments = kSegments;
  engine::WeightsMode weights = engine::WeightsMode::kF32;
  uint32_t threads = 2;
  uint64_t tokens = 2048;
};

absl::Status Run(const Options& options) {
  KVASIR_ASSIGN_OR_RETURN(const engine::GgufModel model,
                          engine::GgufModel::Load(options.model, options.weights));
  KVASIR_ASSIGN_OR_RETURN(const engine::Tokenizer tokenizer,
                          engine::Tokenizer::Load(options.model));
  KVASIR_ASSIGN_OR_RETURN(const Texts files, Texts::Open(kTextCatalogue, options.folder));
  std::vector<engine::CompareText> texts;
  for (const std::string& segment : options.segments) {
    KVASIR_ASSIGN_OR_RETURN(std::vector<uint32_t> ids, files.Segment(segment, tokenizer));
    if (ids.size() > options.tokens) ids.resize(options.tokens);
    texts.push_back({segment, std::move(ids)});
  }
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<DaemonProcess> daemon,
                          DaemonProcess::Start(kPoolBytes, kReadyBytes, options.profiles));
  engine::CompareOptions compare;
  compare.retentions =
      options.retentions.empty() ? engine::DefaultRetentions() : options.retentions;
  compare.json_path = options.json;
  compare.plot_path = options.plot;
  compare.resume_path = options.resume;
  compare.goals = kGoals;
  compare.bytes_at = kLongTokens;
  compare.engine.threads = options.threads;
  compare.store.kvasir.connect = daemon->connect_options();
  compare.store.kvasir.slots_per_block = kSlotsPerBlock;
  compare.store.kvasir.expanded_weights = options.weights == engine::WeightsMode::kF32;
  return engine::RunCompare(model, tokenizer, compare, texts).status();
}

}  // namespace
}  // namespace kvasir::bench

int main(int argc, char** argv) {
  using namespace kvasir;
  bench::Options options;
  if (const char* model = std::getenv("KVASIR_MODEL")) options.model = model;
  if (const char* folder = std::getenv("KVASIR_TEXT_DIR")) options.folder = folder;
  if (const char* json = std::getenv("KVASIR_BENCH_JSON")) options.json = json;
  CLI::App app("Quality at bytes held: policies and encodings", "bench_frontier");
  app.add_option("--model", options.model, "GGUF file; default: $KVASIR_MODEL");
  app.add_option("--texts", options.folder, "Folder of the texts; default: $KVASIR_TEXT_DIR");
  app.add_option("--profiles", options.profiles, "Folder of model profiles; empty: none")
      ->capture_default_str();
  app.add_option("--retention", options.retentions, "What to compare; default: the whole field")
      ->allow_extra_args(false);
  app.add_option("--segment", options.segments, "Of the texts; default: prose0 manual0 code0")
      ->allow_extra_args(false);
  app.add_option("--tokens", options.tokens, "Of each text")->capture_default_str();
  app.add_option("--weights", options.weights,
                 "f32 (expanded in memory, the default) or as-stored: faster, but the rounding of "
                 "activations alone is a KL of about 0.003")
      ->transform(CLI::CheckedTransformer(std::map<std::string, engine::WeightsMode>{
          {"as-stored", engine::WeightsMode::kAsStored}, {"f32", engine::WeightsMode::kF32}}));
  app.add_option("--threads", options.threads, "Of the model")->capture_default_str();
  app.add_option("--resume", options.resume, "Remember finished texts in this file");
  CLI11_PARSE(app, argc, argv);
  const std::string& json = options.json;
  options.plot = (json.ends_with(".json") ? json.substr(0, json.size() - 5) : json) + ".svg";
  const absl::Status status = bench::Run(options);
  if (status.ok()) return 0;
  fmt::print(stderr, "bench_frontier: {}\n", MessageOf(status));
  return 1;
}
