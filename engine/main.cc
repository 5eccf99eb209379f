// kvasir-generate: text from a language model whose KV cache lives in kvasird's shared memory.
// Exit codes: 0 done, 1 failed (reason on standard error), 2 wrong command line.
#include <cmath>
#include <cstdio>
#include <map>
#include <string>

#include "base/error.h"
#include "engine/conformance_program.h"
#include "engine/program.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace {

using kvasir::PrefixQuality;
using kvasir::engine::ProgramOptions;
using kvasir::engine::WeightsMode;
using kvasir::kernels::RowType;

constexpr int kFailed = 1;
constexpr int kUsage = 2;
constexpr uint64_t kTextTokens = 2048;  // of a text to compare on
constexpr uint32_t kTextBatch = 16;     // rows of its steps: what is held is exact to a batch

// Why the text is no rate; "": it is one.
std::string IsRate(const std::string& text) {
  double rate = 0;
  const bool is_rate = CLI::detail::lexical_cast(text, rate) && std::isfinite(rate) && rate > 0;
  return is_rate ? "" : "must be a number above 0: " + text;
}

void AddModeOptions(CLI::App& app, ProgramOptions& o) {
  auto* prompt = app.add_option("-p,--prompt", o.prompt, "Text to continue");
  auto* file =
      app.add_option("-f,--prompt-file", o.prompt_path, "The same from a file; - is stdin");
  auto* chat = app.add_flag("--chat", o.chat,
                            "Apply the model's chat template; without a prompt, read a message a "
                            "line from standard input");
  auto* perplexity = app.add_option("--perplexity", o.perplexity_path, "Score the text of a file");
  app.add_option("--suspend", o.suspend_path,
                 "At the end save the sequence in the daemon and write to this file how to go on "
                 "from it")
      ->excludes(perplexity);
  auto* share =
      app.add_flag("--share", o.share,
                   "Compute only what the daemon has not cached of the prompt, and let later "
                   "prompts begin with it")
          ->excludes(perplexity);
  app.add_option("--prefill-rows-per-s", o.store.kvasir.prefill_rows_per_s,
                 "Rows of a prompt that this machine computes in a second, as an earlier run with "
                 "--output=json has measured it (prefill_rows_per_s): what would take longer to "
                 "read from disk or another host is computed. Without it all that lies there is "
                 "read")
      ->check(IsRate)
      ->needs(share);
  app.add_option(
         "--least-quality", o.store.kvasir.least_quality,
         "With --share: go on from other forms of the prompt, too, where they are longer and "
         "at least full, quantised or compacted")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, PrefixQuality>{{"full", PrefixQuality::kFull},
                                               {"quantised", PrefixQuality::kQuantised},
                                               {"compacted", PrefixQuality::kCompacted}}));
  app.add_option("--system", o.system, "System message of a chat")->needs(chat);
  app.add_option("--decode", o.decode_tokens,
                 "Behind the scored text also decode N tokens one by one, for the time per token")
      ->needs(perplexity);
  app.add_option("--text-tokens", o.text_tokens, "Use only the first N tokens of prompt or text");
  app.add_flag("--show-selected", o.show_selected,
               "Show what a selection policy (gemfilter) chose of the prompt: on standard error "
               "before the answer, or in the JSON")
      ->excludes(perplexity);
  prompt->excludes(file)->excludes(perplexity);
  file->excludes(perplexity);
  chat->excludes(perplexity);
}

void AddTextModeOptions(CLI::App& app, ProgramOptions& o) {
  auto* compare = app.add_flag("--compare", o.compare,
                               "Compare retentions and encodings on texts: quality at bytes held");
  auto* recommend = app.add_flag(
      "--recommend", o.recommend,
      "Search the best retention and encoding within --bytes; prints a piece of configuration");
  auto* profile = app.add_flag("--profile", o.profile,
                               "Measure what makes token-mixed rows of this model better, into "
                               "--profile-file; needs no daemon");
  compare->excludes(recommend)->excludes(profile);
  recommend->excludes(profile);
  app.add_flag("--conformance", o.conformance,
               "Speak with kvasir-conformance on standard input and output; it names the sockets")
      ->excludes(compare)
      ->excludes(recommend)
      ->excludes(profile);
  app.add_option("--text", o.text_paths, "Text to compare or measure on; may be given again")
      ->allow_extra_args(false);
  app.add_option_function<std::string>(
         "--bytes",
         [&o](const std::string& text) {
           const bool percent = !text.empty() && text.back() == '%';
           double value = 0;
           if (!CLI::detail::lexical_cast(percent ? text.substr(0, text.size() - 1) : text,
                                          value) ||
               !(value > 0) || value > (percent ? 100 : 1)) {
             throw CLI::ValidationError("--bytes", "must be a share such as 25% or 0.25");
           }
           o.comparison.bytes = percent ? value / 100 : value;
         },
         "Share of the bytes of full retention that may be held, e.g. 25%")
      ->needs(recommend);
  app.add_option("--bytes-at", o.comparison.bytes_at,
                 "Measure the bytes of sequences of so many tokens too")
      ->check(CLI::Range(uint64_t{kvasir::engine::kCompareTokensMin}, uint64_t{1} << 30))
      ->needs(compare);
  app.add_option("--json", o.comparison.json_path, "Write what was compared to this file");
  app.add_option("--plot", o.comparison.plot_path,
                 "Draw quality against bytes held: a .svg or .png");
  app.add_option("--resume", o.resume_path,
                 "Go on from the text that --suspend left in this file. With --compare and "
                 "--recommend: remember finished texts in this file and do not compute them again");
  app.add_option("--profile-file", o.profile_path, "Where --profile writes")->needs(profile);
}

void AddModelOptions(CLI::App& app, ProgramOptions& o) {
  app.add_option("-m,--model", o.model_path, "GGUF file of Llama architecture")->required();
  app.add_option("--weights", o.weights, "as-stored or f32 (expanded in memory)")
      ->transform(CLI::CheckedTransformer(std::map<std::string, WeightsMode>{
          {"as-stored", WeightsMode::kAsStored}, {"f32", WeightsMode::kF32}}));
  app.add_option("--kv-type", o.engine.kv_type, "Element type of K and V rows: f16 or f32")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, RowType>{{"f16", RowType::kF16}, {"f32", RowType::kF32}}));
  app.add_option("-t,--threads", o.engine.threads, "Threads that compute")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("-b,--batch", o.batch, "Rows of a prompt computed at once")
      ->check(CLI::Range(uint32_t{1}, kvasir::engine::kBatchRowsMax))
      ->capture_default_str();
  app.add_option("-c,--context", o.context, "Rows of the sequence at most; 0: as the model");
}

void AddSamplingOptions(CLI::App& app, ProgramOptions& o) {
  auto& sampler = o.generate.sampler;
  app.add_option("-n,--tokens", o.generate.tokens_max, "Tokens to generate at most")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 30))
      ->capture_default_str();
  app.add_option("--temperature", sampler.temperature, "0: always the likeliest token")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  app.add_option("--top-k", sampler.top_k, "Pick among the K likeliest; 0: all");
  app.add_option("--top-p", sampler.top_p, "Pick among the likeliest with this share together")
      ->check(CLI::Range(1e-9, 1.0))
      ->capture_default_str();
  app.add_option("--seed", sampler.seed, "Of the random numbers")->capture_default_str();
  app.add_flag("--ignore-end{false}", o.generate.stop_at_end,
               "Go on behind a token that ends an answer");
}

void AddStoreOptions(CLI::App& app, ProgramOptions& o, std::string& output) {
  auto& kvasir = o.store.kvasir;
  app.add_option("--retention", o.comparison.retentions,
                 "What the daemon keeps, e.g. full, streamingllm:recent_size=512, "
                 "sepllm:local_size=256, gemfilter:filter_layer=21,topk=256; empty: the tenant's "
                 "default. --compare takes many")
      ->allow_extra_args(false);
  app.add_option("--slots-per-block", kvasir.slots_per_block,
                 "Rows of a block: 16, 32, 64 or 128; 0: as the daemon likes");
  app.add_option("--socket", kvasir.connect.control_socket, "The daemon's gRPC socket")
      ->capture_default_str();
  app.add_option("--data-socket", kvasir.connect.data_socket, "The daemon's memory socket")
      ->capture_default_str();
  app.add_option("--label", kvasir.label, "Name of the sequence, for people");
  app.add_flag("--send-texts", kvasir.send_texts,
               "Send token texts to the daemon, so that kvasirctl inspect can show them");
  app.add_flag(
      "--hold", o.hold,
      "Keep the sequence after the work until standard input ends, so that others can look");
  app.add_flag("--private", o.store.private_memory, "Keep the cache in this process, no daemon");
  app.add_option("-o,--output", output, "text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
}

// What does not go together beyond what the options say of themselves; null: nothing.
const char* TextModeProblem(const ProgramOptions& o, bool text_mode) {
  if (!text_mode && !o.text_paths.empty()) {
    return "--text is for --compare, --recommend and --profile";
  }
  if (!o.compare && !o.recommend &&
      !(o.comparison.json_path.empty() && o.comparison.plot_path.empty())) {
    return "--json and --plot are for --compare and --recommend";
  }
  if (o.profile && !o.resume_path.empty()) return "--profile takes no --resume";
  if (text_mode && !o.suspend_path.empty()) return "--suspend needs a prompt or a chat";
  if (!o.share && o.store.kvasir.least_quality) return "--least-quality is for --share";
  if (o.share) {
    if (text_mode) return "--share needs a prompt";
    if (o.store.private_memory) return "--share needs a daemon";
    if (!o.resume_path.empty()) return "--share takes no --resume: what is resumed is there";
    if (!o.prompt && o.prompt_path.empty()) return "--share needs a prompt";
  }
  if (!text_mode && !(o.resume_path.empty() && o.suspend_path.empty())) {
    if (!o.perplexity_path.empty()) return "--suspend and --resume need a prompt or a chat";
    if (o.store.private_memory) return "--suspend and --resume need a daemon";
    if (!o.system.empty() && !o.resume_path.empty()) return "--resume takes no --system";
    if (o.text_tokens > 0) return "--suspend and --resume take no --text-tokens";
  }
  if ((o.recommend || o.profile) && !o.comparison.retentions.empty()) {
    return "--recommend and --profile take no --retention";
  }
  if (!o.compare && o.comparison.retentions.size() > 1)
    return "only --compare takes many retentions";
  if (!text_mode) return nullptr;
  if (o.text_paths.empty()) return "--text is required";
  if (o.profile && o.profile_path.empty()) return "--profile needs --profile-file";
  return nullptr;
}

int Finish(const absl::Status& status) {
  if (status.ok()) return 0;
  fmt::print(stderr, "kvasir-generate: {}: {}\n", absl::StatusCodeToString(status.code()),
             kvasir::MessageOf(status));
  return kFailed;
}

}  // namespace

int main(int argc, char** argv) {
  ProgramOptions options;
  std::string output = "text";
  CLI::App app("Generates text with a KV cache in kvasird's shared memory", "kvasir-generate");
  AddModelOptions(app, options);
  AddModeOptions(app, options);
  AddTextModeOptions(app, options);
  AddSamplingOptions(app, options);
  AddStoreOptions(app, options, output);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsage;
  }
  options.json = output == "json";
  options.store.kvasir.kv_type = options.engine.kv_type;
  options.store.kvasir.expanded_weights = options.weights == WeightsMode::kF32;
  if (!options.comparison.retentions.empty())
    options.store.kvasir.retention = options.comparison.retentions.front();
  const bool text_mode = options.compare || options.recommend || options.profile;
  if (const char* problem = TextModeProblem(options, text_mode); problem != nullptr) {
    fmt::print(stderr, "kvasir-generate: {}\n", problem);
    return kUsage;
  }
  if (text_mode) {
    options.comparison.resume_path = options.resume_path;
    options.text_tokens = app.count("--tokens") > 0 ? options.generate.tokens_max : kTextTokens;
    if (app.count("--batch") == 0) options.batch = kTextBatch;
    return Finish(kvasir::engine::RunProgram(options));
  }
  if (options.conformance) return Finish(kvasir::engine::RunConformance(options));
  const bool any_mode = options.prompt || !options.prompt_path.empty() || options.chat ||
                        !options.perplexity_path.empty();
  const bool interactive = options.chat && !options.prompt && options.prompt_path.empty();
  if (!any_mode || (interactive && options.json)) {
    fmt::print(stderr, "kvasir-generate: {}\n",
               any_mode ? "--output=json needs a prompt"
                        : "one of --prompt, --prompt-file, --chat, --perplexity, --compare, "
                          "--recommend, --profile is required");
    return kUsage;
  }
  return Finish(kvasir::engine::RunProgram(options));
}
