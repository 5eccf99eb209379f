#include "engine/program.h"

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "engine/profile_program.h"
#include "engine/program_io.h"
#include "engine/running_text.h"
#include "engine/selected_text.h"
#include "engine/suspended_text.h"
#include "engine/tokenizer.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace kvasir::engine {
namespace {

constexpr int kJsonSchema = 1;

void WriteText(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void WriteJson(const nlohmann::json& value) {
  // A vocabulary may hold bytes that are no UTF-8.
  WriteText(value.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Everything that a mode needs, in the order in which it is made.
struct Session {
  std::unique_ptr<GgufModel> model;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<LlamaEngine> engine;
  std::unique_ptr<KvStore> store;
  uint64_t context = 0;
};

uint64_t ContextOf(const ProgramOptions& options, const GgufModel& model) {
  return options.context != 0 ? options.context : model.parameters().context;
}

absl::StatusOr<Session> MakeSession(const ProgramOptions& options) {
  Session session;
  KVASIR_ASSIGN_OR_RETURN(GgufModel model, GgufModel::Load(options.model_path, options.weights));
  session.model = std::make_unique<GgufModel>(std::move(model));
  KVASIR_ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::Load(options.model_path));
  session.tokenizer = std::make_unique<Tokenizer>(std::move(tokenizer));
  KVASIR_ASSIGN_OR_RETURN(session.engine, LlamaEngine::Create(*session.model, options.engine));
  session.context = ContextOf(options, *session.model);
  return session;
}

absl::Status OpenStore(const ProgramOptions& options, uint64_t prompt_rows, Session& session) {
  KvStoreOptions store = options.store;
  store.kvasir.prompt_rows = prompt_rows;
  store.rows_max = session.context;
  store.kvasir.max_rows = session.context;
  KVASIR_ASSIGN_OR_RETURN(session.store, MakeKvStore(*session.model, *session.tokenizer, store));
  return absl::OkStatus();
}

absl::Status CheckFits(const Session& session, uint64_t tokens, uint64_t generated) {
  if (tokens > session.context || generated > session.context - tokens) {
    return InvalidArgument("context is too short: prompt_tokens={} tokens={} context={}", tokens,
                           generated, session.context);
  }
  return absl::OkStatus();
}

absl::Status CheckShowSelected(const ProgramOptions& options, const Session& session) {
  if (!options.show_selected || session.store->filter_layer()) return absl::OkStatus();
  return InvalidArgument("--show-selected needs a retention that selects tokens: retention={}",
                         options.store.kvasir.retention);
}

// The options of a turn over `prompt`. Where asked for, `selected` gets the text of what the store
// selects, and people see it before the answer. `prompt` and `selected` must outlive the turn.
GenerateOptions TurnOptions(const ProgramOptions& options, const Session& session,
                            const std::vector<uint32_t>& prompt,
                            absl::StatusOr<std::string>& selected) {
  GenerateOptions turn = options.generate;
  if (!options.show_selected) return turn;
  turn.on_selected = [&options, &session, &prompt, &selected](std::span<const uint32_t> rows) {
    selected = SelectedText(*session.tokenizer, prompt, rows);
    if (options.json || !selected.ok()) return;
    fmt::print(stderr, "selected: {} of {} tokens\n{}\n\n", rows.size(), prompt.size(), *selected);
    std::fflush(stderr);
  };
  return turn;
}

absl::StatusOr<nlohmann::json> UsageJson(KvStore& store) {
  KVASIR_ASSIGN_OR_RETURN(const KvUsage usage, store.Usage());
  return nlohmann::json{{"tokens_seen", usage.tokens_seen},
                        {"tokens_kept", usage.tokens_kept},
                        {"held_bytes", usage.held_bytes}};
}

// How much of a full prefill's work a selection left; nothing without one.
std::string WorkShare(const GenerateResult& result) {
  if (result.selected_rows.empty()) return "";
  return fmt::format(", {:.0f}% of a full prefill's work",
                     100.0 * static_cast<double>(result.prefill_token_layers) /
                         static_cast<double>(result.prefill_token_layers_full));
}

absl::Status ReportGenerate(const ProgramOptions& options, const Session& session,
                            const GenerateResult& result, const std::string& selected,
                            uint64_t cached) {
  const double steps = static_cast<double>(std::max<size_t>(result.token_ms.size(), 1));
  const double mean_ms =
      std::accumulate(result.token_ms.begin(), result.token_ms.end(), 0.0) / steps;
  KVASIR_ASSIGN_OR_RETURN(nlohmann::json usage, UsageJson(*session.store));
  if (!options.json) {
    const std::string before = cached == 0 ? "" : fmt::format("{} cached and ", cached);
    fmt::print(stderr,
               "prompt: {}{} tokens in {:.1f} ms{}; generated: {} tokens, median {:.2f} ms each; "
               "kept: {} of {} tokens, {}\n",
               before, result.prompt_tokens, result.prompt_ms, WorkShare(result),
               result.tokens.size(), Median(result.token_ms), usage["tokens_kept"].get<uint64_t>(),
               usage["tokens_seen"].get<uint64_t>(),
               HumanBytes(usage["held_bytes"].get<uint64_t>()));
    return absl::OkStatus();
  }
  usage.update({{"schema", kJsonSchema},
                {"text", result.text},
                {"token_ids", result.tokens},
                {"ended", result.ended},
                {"prompt_tokens", result.prompt_tokens},
                {"cached_tokens", cached},
                {"prompt_ms", result.prompt_ms},
                {"ms_per_token", Median(result.token_ms)},
                {"mean_ms_per_token", mean_ms},
                {"cpu_ms_per_token", result.decode_cpu_ms / steps},
                {"prefill_token_layers", result.prefill_token_layers},
                {"prefill_token_layers_full", result.prefill_token_layers_full},
                {"retention", options.store.kvasir.retention}});
  // A selection's two passes are no prefill of all rows.
  if (result.selected_rows.empty() && result.prompt_ms > 0) {
    usage["prefill_rows_per_s"] =
        1000.0 * static_cast<double>(result.prompt_tokens) / result.prompt_ms;
  }
  if (options.show_selected) {
    usage.update({{"selected_rows", result.selected_rows}, {"selected_text", selected}});
  }
  WriteJson(usage);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint32_t>> FirstTokens(absl::StatusOr<std::vector<uint32_t>> tokens,
                                                  uint64_t count) {
  if (tokens.ok() && count != 0 && tokens->size() > count) tokens->resize(count);
  return tokens;
}

// The text that the mode goes on with, and where it was suspended, if it was.
struct OpenText {
  RunningText text;
  std::optional<SuspendedText> from;
};

absl::StatusOr<OpenText> BeginText(const ProgramOptions& options, const Session& session) {
  const Tokenizer& tokenizer = *session.tokenizer;
  if (options.resume_path.empty()) {
    return OpenText{RunningText(tokenizer, options.chat, options.system), std::nullopt};
  }
  KVASIR_ASSIGN_OR_RETURN(SuspendedText from,
                          ReadSuspendedText(options.resume_path, tokenizer.vocabulary()));
  KVASIR_ASSIGN_OR_RETURN(RunningText text, RunningText::Resume(tokenizer, options.chat, from));
  return OpenText{std::move(text), std::move(from)};
}

// Opens the store where the text stands.
absl::Status OpenStoreOf(const OpenText& open, const ProgramOptions& options, uint64_t prompt_rows,
                         Session& session) {
  if (!open.from) return OpenStore(options, prompt_rows, session);
  ProgramOptions resumed = options;
  resumed.store.kvasir.snapshot = open.from->snapshot_id;
  KVASIR_RETURN_IF_ERROR(OpenStore(resumed, prompt_rows, session));
  if (session.store->rows() == open.from->rows) return absl::OkStatus();
  return InvalidArgument("suspended text does not fit its snapshot: rows={} of_snapshot={} path={}",
                         open.from->rows, session.store->rows(), options.resume_path);
}

// Where it is asked for: saves the sequence and says so in the file. What it was resumed from is
// out of date then.
absl::Status Suspend(const OpenText& open, const ProgramOptions& options, const Session& session) {
  if (options.suspend_path.empty()) return absl::OkStatus();
  if (session.store->rows() == 0) return FailedPrecondition("there is nothing to suspend: rows=0");
  KVASIR_ASSIGN_OR_RETURN(const KvSnapshot saved, session.store->Save());
  const absl::Status written = WriteSuspendedText(open.text.Suspend(saved), options.suspend_path);
  if (!written.ok()) {
    (void)session.store->DropSnapshot(saved.id);  // nobody knows its id
    return written;
  }
  if (!open.from) return absl::OkStatus();
  const absl::Status dropped = session.store->DropSnapshot(open.from->snapshot_id);
  return absl::IsNotFound(dropped) ? absl::OkStatus() : dropped;
}

// Whether the prompt is worth offering: a chunk of it at least is new. Selections are for one
// prompt.
bool Publishes(const ProgramOptions& options, const Session& session, uint64_t cached,
               uint64_t prompt_tokens) {
  constexpr uint64_t kChunkTokens = 16;
  return options.share && !session.store->filter_layer() &&
         prompt_tokens - 1 >= RoundDown(cached, kChunkTokens) + kChunkTokens;
}

absl::Status RunPrompt(const ProgramOptions& options, Session& session, const std::string& text) {
  KVASIR_ASSIGN_OR_RETURN(OpenText open, BeginText(options, session));
  bool anew = false;
  KVASIR_ASSIGN_OR_RETURN(const std::vector<uint32_t> tokens,
                          FirstTokens(open.text.Next(text, &anew), options.text_tokens));
  const uint64_t before = open.from && !anew ? open.from->rows : 0;
  KVASIR_RETURN_IF_ERROR(CheckFits(session, before + tokens.size(), options.generate.tokens_max));
  ProgramOptions shared = options;
  if (options.share) shared.store.kvasir.shared_prompt = tokens;
  KVASIR_RETURN_IF_ERROR(OpenStoreOf(open, shared, tokens.size(), session));
  const uint64_t cached = options.share ? session.store->rows() : 0;
  if (anew) KVASIR_RETURN_IF_ERROR(session.store->Truncate(0));
  KVASIR_RETURN_IF_ERROR(CheckShowSelected(options, session));
  Generator generator(*session.engine, *session.tokenizer, *session.store, options.batch);
  const TextCallback on_text = options.json ? TextCallback() : WriteText;
  absl::StatusOr<std::string> selected = std::string();
  GenerateOptions turn = TurnOptions(options, session, tokens, selected);
  turn.publish = Publishes(options, session, cached, tokens.size());
  KVASIR_ASSIGN_OR_RETURN(
      const GenerateResult result,
      generator.Generate(std::span(tokens).subspan(cached), turn, ProgressLine("prompt"), on_text));
  KVASIR_RETURN_IF_ERROR(selected.status());
  open.text.Add(result);
  if (!options.json) WriteText("\n");
  KVASIR_RETURN_IF_ERROR(ReportGenerate(options, session, result, *selected, cached));
  return Suspend(open, options, session);
}

absl::Status RunPerplexity(const ProgramOptions& options, Session& session) {
  KVASIR_ASSIGN_OR_RETURN(const std::string text, ReadText(options.perplexity_path));
  KVASIR_ASSIGN_OR_RETURN(
      const std::vector<uint32_t> tokens,
      FirstTokens(session.tokenizer->Encode(text, true, false), options.text_tokens));
  KVASIR_RETURN_IF_ERROR(CheckFits(session, tokens.size(), options.decode_tokens));
  KVASIR_RETURN_IF_ERROR(OpenStore(options, 0, session));
  if (session.store->filter_layer()) {
    return InvalidArgument("a text is scored as a whole, without a selection: retention={}",
                           options.store.kvasir.retention);
  }
  Generator generator(*session.engine, *session.tokenizer, *session.store, options.batch);
  KVASIR_ASSIGN_OR_RETURN(const PerplexityResult result,
                          generator.Perplexity(tokens, ProgressLine("perplexity")));
  double decode_ms = 0.0;
  if (options.decode_tokens > 0) {
    GenerateOptions decode = options.generate;
    decode.tokens_max = options.decode_tokens;
    decode.stop_at_end = false;
    KVASIR_ASSIGN_OR_RETURN(
        const GenerateResult decoded,
        generator.Generate(std::span(tokens).last(1), decode, ProgressCallback(), TextCallback()));
    decode_ms = Median(decoded.token_ms);
  }
  KVASIR_ASSIGN_OR_RETURN(nlohmann::json json, UsageJson(*session.store));
  if (!options.json) {
    WriteText(fmt::format("perplexity: {:.4f} over {} tokens, {:.2f} ms each\n",
                          result.Perplexity(), result.nll.size(),
                          result.wall_ms / static_cast<double>(result.nll.size())));
    return absl::OkStatus();
  }
  json.update({{"schema", kJsonSchema},
               {"perplexity", result.Perplexity()},
               {"mean_nll", result.Mean()},
               {"scored_tokens", result.nll.size()},
               {"ms_per_token", result.wall_ms / static_cast<double>(result.nll.size())},
               {"decode_ms_per_token", decode_ms},
               {"retention", options.store.kvasir.retention}});
  WriteJson(json);
  return absl::OkStatus();
}

// A chat over standard input, a message a line. Only what a turn adds is computed.
absl::Status RunConversation(const ProgramOptions& options, Session& session) {
  KVASIR_ASSIGN_OR_RETURN(OpenText open, BeginText(options, session));
  KVASIR_RETURN_IF_ERROR(OpenStoreOf(open, options, 0, session));
  KVASIR_RETURN_IF_ERROR(CheckShowSelected(options, session));
  Generator generator(*session.engine, *session.tokenizer, *session.store, options.batch);
  std::string line;
  while (fmt::print(stderr, "> "), std::getline(std::cin, line)) {
    bool anew = false;
    KVASIR_ASSIGN_OR_RETURN(const std::vector<uint32_t> tokens, open.text.Next(line, &anew));
    if (anew) KVASIR_RETURN_IF_ERROR(session.store->Truncate(0));
    KVASIR_RETURN_IF_ERROR(
        CheckFits(session, session.store->rows() + tokens.size(), options.generate.tokens_max));
    absl::StatusOr<std::string> selected = std::string();
    KVASIR_ASSIGN_OR_RETURN(
        const GenerateResult result,
        generator.Generate(tokens, TurnOptions(options, session, tokens, selected),
                           ProgressLine("prompt"), WriteText));
    KVASIR_RETURN_IF_ERROR(selected.status());
    WriteText("\n");
    open.text.Add(result);
  }
  return Suspend(open, options, session);
}

absl::StatusOr<std::vector<CompareText>> ReadTexts(const ProgramOptions& options,
                                                   const GgufModel& model,
                                                   const Tokenizer& tokenizer) {
  const uint64_t context = ContextOf(options, model);
  std::vector<CompareText> texts;
  for (const std::string& path : options.text_paths) {
    KVASIR_ASSIGN_OR_RETURN(const std::string text, ReadText(path));
    KVASIR_ASSIGN_OR_RETURN(std::vector<uint32_t> ids,
                            FirstTokens(tokenizer.Encode(text, true, false), options.text_tokens));
    if (ids.size() > context) {
      return InvalidArgument("context is too short: text={} tokens={} context={}", path, ids.size(),
                             context);
    }
    texts.push_back({path.substr(path.rfind('/') + 1), std::move(ids)});
  }
  return texts;
}

// Modes that look at texts under many retentions, or at the model alone.
absl::Status RunTextMode(const ProgramOptions& options, const GgufModel& model,
                         const Tokenizer& tokenizer) {
  KVASIR_ASSIGN_OR_RETURN(const std::vector<CompareText> texts,
                          ReadTexts(options, model, tokenizer));
  if (options.profile) {
    return RunProfile(model, {options.batch, options.engine, options.profile_path}, texts);
  }
  CompareOptions compare = options.comparison;
  compare.batch = options.batch;
  compare.store = options.store;
  compare.engine = options.engine;
  if (options.recommend) return RunRecommend(model, tokenizer, compare, texts);
  return RunCompare(model, tokenizer, compare, texts).status();
}

absl::Status RunMode(const ProgramOptions& options, Session& session) {
  if (!options.perplexity_path.empty()) return RunPerplexity(options, session);
  if (!options.prompt_path.empty()) {
    KVASIR_ASSIGN_OR_RETURN(const std::string text, ReadText(options.prompt_path));
    return RunPrompt(options, session, text);
  }
  if (options.prompt) return RunPrompt(options, session, *options.prompt);
  return RunConversation(options, session);
}

}  // namespace

absl::Status RunProgram(const ProgramOptions& options) {
  KVASIR_RETURN_IF_ERROR(CheckOptions(options.generate.sampler));
  if (options.compare || options.recommend || options.profile) {
    KVASIR_ASSIGN_OR_RETURN(const GgufModel model,
                            GgufModel::Load(options.model_path, options.weights));
    KVASIR_ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Load(options.model_path));
    return RunTextMode(options, model, tokenizer);
  }
  KVASIR_ASSIGN_OR_RETURN(Session session, MakeSession(options));
  const absl::Status status = RunMode(options, session);
  if (!session.store) return status;
  if (options.hold && status.ok()) {
    std::fflush(stdout);
    while (std::cin.get() != std::char_traits<char>::eof()) continue;
  }
  const absl::Status closed = session.store->Close();
  return status.ok() ? closed : status;
}

}  // namespace kvasir::engine
