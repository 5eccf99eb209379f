// bench_passkey: does a model still find a number in a long prompt, under each retention policy?
//
// Every prompt hides a five-digit pass key at a random depth of a piece of Moby Dick and asks for
// it at the end, in the model's chat template; the answer is decoded greedily and its first number
// must be the key. All prompts come from one seed. Beside the hits: the share of a full prefill's
// token-layers that the policy saves, and the time of the prompt.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "bench/daemon_process.h"
#include "bench/report.h"
#include "bench/texts.h"
#include "engine/generator.h"
#include "engine/gguf_model.h"
#include "engine/kvasir_kv_store.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace kvasir::bench {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kPoolBytes = 768 * kMiB, kReadyBytes = 384 * kMiB;
constexpr std::array<uint32_t, 3> kLengths = {1024, 2048, 4096};  // tokens of a prompt, about
constexpr uint32_t kPromptsPerLength = 12;
constexpr uint32_t kAnswerTokens = 24;
constexpr uint32_t kBatch = 512;
constexpr size_t kCutBytes = 16;

struct Policy {
  const char* name;
  const char* retention;
  double goal;  // least share of hits; 0: none
};

constexpr Policy kPolicies[] = {
    {"full", "full", 1.0},
    {"gemfilter-21", "gemfilter:filter_layer=21,topk=256,n_sink=4,n_tail=32", 0.85},
    {"gemfilter-15", "gemfilter:filter_layer=15,topk=256,n_sink=4,n_tail=32", 0.75},
    {"snapkv-k15", "snapkv:max_capacity_prompt=256,window_size=16,kernel_size=15,start_size=4",
     0.9},
    {"snapkv-k5", "snapkv:max_capacity_prompt=256,window_size=16,kernel_size=5,start_size=4", 0},
    {"streamingllm", "streamingllm:start_size=4,recent_size=252,positions=original", 0},
};

struct Options {
  std::string model, folder, only, json = "build/bench/passkey.json";
  uint64_t seed = 20'240'927;
  uint32_t prompts = kPromptsPerLength;
  uint32_t threads = 1;
  bool show = false;
};

struct Prompt {
  uint32_t length = 0;  // one of kLengths
  std::string key;
  double depth = 0;  // of the needle, 0 to 1
  std::vector<uint32_t> ids;
};

// Whole sentences of `text` from the first one that begins at or after `at`, at least `bytes` long.
std::string Sentences(const std::string& text, size_t at, size_t bytes) {
  const size_t first = std::min(text.find(". ", at), text.size() - 2) + 2;
  const size_t end = std::min(text.find(". ", first + bytes), text.size() - 1) + 1;
  return text.substr(first, end - first);
}

std::string Question(const std::string& haystack, double depth, const std::string& key) {
  const auto at = static_cast<size_t>(depth * static_cast<double>(haystack.size()));
  const size_t border = depth == 0 ? 0 : std::min(haystack.find(". ", at), haystack.size() - 2) + 2;
  return fmt::format(
      "There is a pass key hidden inside a long text. Find it and remember it.\n\n{}The pass key "
      "is "
      "{}. Remember it. {} is the pass key. {}\n\nWhat is the pass key in the text above?",
      haystack.substr(0, border), key, key, haystack.substr(border));
}

// The first run of digits in an answer.
std::string FirstNumber(const std::string& text) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto first = std::find_if(text.begin(), text.end(), digit);
  return {first, std::find_if_not(first, text.end(), digit)};
}

class PasskeyBench {
 public:
  explicit PasskeyBench(Options options) : options_(std::move(options)) {}
  absl::Status Run();

 private:
  struct Tally {
    std::map<uint32_t, uint32_t> hits, prompts;  // by length
    std::map<uint32_t, double> prompt_ms;
    uint64_t token_layers = 0, full_token_layers = 0;
  };

  absl::Status SetUp();
  absl::StatusOr<Prompt> MakePrompt(const std::string& text, uint32_t length,
                                    std::mt19937_64& random) const;
  absl::Status MakePrompts();
  absl::Status RunPolicy(const Policy& policy);
  absl::Status Ask(const Policy& policy, const Prompt& prompt, Tally* tally);
  void AddRows(const Policy& policy, const Tally& tally);

  const Options options_;
  std::unique_ptr<engine::GgufModel> model_;
  std::unique_ptr<engine::Tokenizer> tokenizer_;
  std::unique_ptr<engine::LlamaEngine> engine_;
  std::unique_ptr<DaemonProcess> daemon_;
  std::vector<Prompt> prompts_;
  Report report_;
};

absl::Status PasskeyBench::SetUp() {
  KVASIR_ASSIGN_OR_RETURN(engine::GgufModel model,
                          engine::GgufModel::Load(options_.model, engine::WeightsMode::kAsStored));
  model_ = std::make_unique<engine::GgufModel>(std::move(model));
  KVASIR_ASSIGN_OR_RETURN(engine::Tokenizer tokenizer, engine::Tokenizer::Load(options_.model));
  tokenizer_ = std::make_unique<engine::Tokenizer>(std::move(tokenizer));
  engine::EngineOptions engine_options;
  engine_options.threads = options_.threads;
  KVASIR_ASSIGN_OR_RETURN(engine_, engine::LlamaEngine::Create(*model_, engine_options));
  KVASIR_ASSIGN_OR_RETURN(daemon_, DaemonProcess::Start(kPoolBytes, kReadyBytes));
  return MakePrompts();
}

// Draws in a fixed order, and by plain arithmetic: the standard's distributions differ by library.
absl::StatusOr<Prompt> PasskeyBench::MakePrompt(const std::string& text, uint32_t length,
                                                std::mt19937_64& random) const {
  Prompt prompt;
  prompt.length = length;
  prompt.key = fmt::format("{}", 10'000 + random() % 90'000);
  prompt.depth = static_cast<double>(random() % 1000) / 1000;
  const size_t at = random() % (text.size() / 2);
  // Too much at first; then cut in proportion until the prompt just fits.
  size_t bytes = size_t{5} * length;
  for (int round = 0; round < 20; ++round) {
    const std::string question = Question(Sentences(text, at, bytes), prompt.depth, prompt.key);
    KVASIR_ASSIGN_OR_RETURN(const std::string chat,
                            tokenizer_->ApplyTemplate({{"user", question}}));
    KVASIR_ASSIGN_OR_RETURN(prompt.ids, tokenizer_->Encode(chat, true, true));
    if (prompt.ids.size() <= length) return prompt;
    bytes = std::min(bytes * length / prompt.ids.size(), bytes - kCutBytes);
  }
  return Internal("no prompt fits: length={} tokens={}", length, prompt.ids.size());
}

absl::Status PasskeyBench::MakePrompts() {
  KVASIR_ASSIGN_OR_RETURN(const Texts texts, Texts::Open(kTextCatalogue, options_.folder));
  KVASIR_ASSIGN_OR_RETURN(const std::string file, texts.File("moby-dick.txt"));
  const std::string text = NormaliseLines(file, true);
  std::mt19937_64 random(options_.seed);
  for (const uint32_t length : kLengths) {
    for (uint32_t i = 0; i < options_.prompts; ++i) {
      KVASIR_ASSIGN_OR_RETURN(Prompt prompt, MakePrompt(text, length, random));
      prompts_.push_back(std::move(prompt));
    }
  }
  return absl::OkStatus();
}

absl::Status PasskeyBench::Ask(const Policy& policy, const Prompt& prompt, Tally* tally) {
  engine::KvasirStoreOptions options;
  options.connect = daemon_->connect_options();
  options.retention = policy.retention;
  options.prompt_rows = prompt.ids.size();
  options.label = policy.name;
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<engine::KvasirKvStore> store,
                          engine::KvasirKvStore::Create(*model_, *tokenizer_, options));
  engine::Generator generator(*engine_, *tokenizer_, *store, kBatch);
  engine::GenerateOptions generate;
  generate.tokens_max = kAnswerTokens;
  generate.sampler.temperature = 0;
  KVASIR_ASSIGN_OR_RETURN(const engine::GenerateResult result,
                          generator.Generate(prompt.ids, generate, nullptr, nullptr));
  tally->full_token_layers += result.prefill_token_layers_full;
  tally->token_layers += result.prefill_token_layers;
  KVASIR_RETURN_IF_ERROR(store->Close());
  const bool hit = FirstNumber(result.text) == prompt.key;
  ++tally->prompts[prompt.length];
  tally->hits[prompt.length] += hit ? 1 : 0;
  tally->prompt_ms[prompt.length] += result.prompt_ms;
  if (options_.show || !hit) {
    fmt::print(stderr, "{}: {} tokens, depth {:.3f}, key {}: {} \"{}\"\n", policy.name,
               prompt.ids.size(), prompt.depth, prompt.key, hit ? "found" : "missed", result.text);
  }
  return absl::OkStatus();
}

template <typename T>
T Sum(const std::map<uint32_t, T>& by_length) {
  T sum{};
  for (const auto& [length, value] : by_length) sum += value;
  return sum;
}

void PasskeyBench::AddRows(const Policy& policy, const Tally& tally) {
  Row row;
  row.name = policy.name;
  const uint32_t prompts = Sum(tally.prompts);
  row.value = 100.0 * Sum(tally.hits) / prompts;
  row.unit = "% found";
  row.better = Better::kHigher;
  if (policy.goal > 0) row.goal = fmt::format("value >= {:.0f}", 100 * policy.goal);
  for (const auto& [length, hits] : tally.hits) {
    row.extra[fmt::format("{}", length)] = fmt::format("{}/{}", hits, tally.prompts.at(length));
  }
  row.extra["all"] = fmt::format("{}/{}", Sum(tally.hits), prompts);
  row.extra["saved_percent"] = 100 * (1 - static_cast<double>(tally.token_layers) /
                                              static_cast<double>(tally.full_token_layers));
  for (const auto& [length, ms] : tally.prompt_ms) {
    row.extra[fmt::format("prompt_ms_{}", length)] = ms / tally.prompts.at(length);
  }
  report_.Add(std::move(row));
}

absl::Status PasskeyBench::RunPolicy(const Policy& policy) {
  Tally tally;
  for (const Prompt& prompt : prompts_) {
    KVASIR_RETURN_IF_ERROR(Ask(policy, prompt, &tally));
    fmt::print(stderr, "{}: {}/{} prompts, {} found\n", policy.name, Sum(tally.prompts),
               prompts_.size(), Sum(tally.hits));
  }
  AddRows(policy, tally);
  return absl::OkStatus();
}

absl::Status PasskeyBench::Run() {
  KVASIR_RETURN_IF_ERROR(SetUp());
  for (const Policy& policy : kPolicies) {
    if (std::string(policy.name).find(options_.only) == std::string::npos) continue;
    KVASIR_RETURN_IF_ERROR(RunPolicy(policy));
  }
  if (report_.rows().empty()) return NotFound("no policy has such a name: only={}", options_.only);
  KVASIR_RETURN_IF_ERROR(report_.Write(options_.json));
  fmt::print("{}", report_.ToTable());
  return absl::OkStatus();
}

}  // namespace
}  // namespace kvasir::bench

int main(int argc, char** argv) {
  kvasir::bench::Options options;
  if (const char* model = std::getenv("KVASIR_MODEL")) options.model = model;
  if (const char* folder = std::getenv("KVASIR_TEXT_DIR")) options.folder = folder;
  if (const char* json = std::getenv("KVASIR_BENCH_JSON")) options.json = json;
  CLI::App app("A pass key hidden in a long prompt, under retention policies", "bench_passkey");
  app.add_option("--model", options.model, "GGUF file; default: $KVASIR_MODEL");
  app.add_option("--texts", options.folder, "Folder of the texts; default: $KVASIR_TEXT_DIR");
  app.add_option("--only", options.only, "Only policies whose name has this in it");
  app.add_option("--prompts", options.prompts, "Of each length")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Of the prompts")->capture_default_str();
  app.add_option("--threads", options.threads, "Of the model")->capture_default_str();
  app.add_flag("--show", options.show, "Print every answer, not only the wrong ones");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = kvasir::bench::PasskeyBench(options).Run();
  if (status.ok()) return 0;
  fmt::print(stderr, "bench_passkey: {}\n", kvasir::MessageOf(status));
  return 1;
}
