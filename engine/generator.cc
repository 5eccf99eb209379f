#include "engine/generator.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"

#include <time.h>

namespace kvasir::engine {
namespace {

double MillisecondsSince(Instant start) {
  return std::chrono::duration<double, std::milli>(SystemClock().Now() - start).count();
}

double CpuMilliseconds() {
  timespec now = {};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

// Bytes of the character that `lead` begins; 1 for what begins none.
size_t CharacterBytes(unsigned char lead) {
  if (lead >= 0xF0 && lead < 0xF8) return 4;
  if (lead >= 0xE0) return lead < 0xF0 ? 3 : 1;
  return lead >= 0xC2 ? 2 : 1;
}

}  // namespace

std::string Utf8Gate::Push(const std::string& bytes) {
  held_ += bytes;
  size_t whole = held_.size();
  for (size_t back = 1; back <= std::min<size_t>(3, held_.size()); ++back) {
    const auto byte = static_cast<unsigned char>(held_[held_.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;  // inside a character
    if (CharacterBytes(byte) > back) whole = held_.size() - back;
    break;
  }
  std::string out = held_.substr(0, whole);
  held_.erase(0, whole);
  return out;
}

std::string Utf8Gate::Flush() { return std::exchange(held_, {}); }

double PerplexityResult::Mean() const {
  return nll.empty()
             ? 0.0
             : std::accumulate(nll.begin(), nll.end(), 0.0) / static_cast<double>(nll.size());
}

double PerplexityResult::Perplexity() const { return std::exp(Mean()); }

absl::Status Generator::Append(std::span<const uint32_t> tokens, LogitsWanted wanted,
                               const ProgressCallback& progress, const RowsCallback& on_logits) {
  size_t done = 0;
  while (done < tokens.size()) {
    const size_t want = std::min<size_t>(batch_, tokens.size() - done);
    KVASIR_ASSIGN_OR_RETURN(const StepView step, store_.Begin(static_cast<uint32_t>(want)));
    const std::span<const uint32_t> batch =
        tokens.subspan(done, std::min<size_t>(step.count, want));
    const bool last = done + batch.size() == tokens.size();
    const LogitsWanted now = wanted == LogitsWanted::kLast && !last ? LogitsWanted::kNone : wanted;
    KVASIR_ASSIGN_OR_RETURN(const std::span<const float> logits,
                            engine_.Compute(batch, step, now, &far_));
    KVASIR_RETURN_IF_ERROR(store_.Commit(batch));
    if (!logits.empty()) on_logits(done, logits);
    done += batch.size();
    if (progress) progress(done, tokens.size());
  }
  return absl::OkStatus();
}

// Computes the prompt up to the filter layer and asks the store which of its rows stay.
absl::StatusOr<std::vector<uint32_t>> Generator::Select(std::span<const uint32_t> prompt,
                                                        uint32_t filter_layer,
                                                        const ProgressCallback& progress) {
  std::vector<float> query;
  for (size_t done = 0; done < prompt.size();) {
    const size_t want = std::min<size_t>(batch_, prompt.size() - done);
    KVASIR_ASSIGN_OR_RETURN(const StepView step, store_.Begin(static_cast<uint32_t>(want)));
    const std::span<const uint32_t> batch =
        prompt.subspan(done, std::min<size_t>(step.count, want));
    KVASIR_ASSIGN_OR_RETURN(const std::span<const float> summed,
                            engine_.ComputeFilter(batch, step, filter_layer));
    query.assign(summed.begin(), summed.end());
    KVASIR_RETURN_IF_ERROR(store_.Commit(batch));
    done += batch.size();
    if (progress) progress(done, prompt.size());
  }
  KVASIR_ASSIGN_OR_RETURN(std::vector<uint32_t> rows, store_.SelectRows(query));
  if (rows.empty() || rows.back() >= prompt.size() ||
      std::adjacent_find(rows.begin(), rows.end(), std::greater_equal<>()) != rows.end()) {
    return Internal("selected rows are not ascending rows of the prompt: rows={} prompt_tokens={}",
                    rows.size(), prompt.size());
  }
  return rows;
}

absl::Status Generator::Prefill(std::span<const uint32_t> prompt, const GenerateOptions& options,
                                const ProgressCallback& progress, const RowsCallback& on_logits,
                                GenerateResult& result) {
  const uint64_t layers = engine_.model().parameters().layers;
  result.prefill_token_layers_full = prompt.size() * layers;
  const std::optional<uint32_t> filter_layer = store_.filter_layer();
  if (!filter_layer || store_.rows() > 0) {
    result.prefill_token_layers = prompt.size() * layers;
    if (!options.publish) return Append(prompt, LogitsWanted::kLast, progress, on_logits);
    // Whoever goes on from it computes the last token alone, for its logits.
    KVASIR_RETURN_IF_ERROR(
        Append(prompt.first(prompt.size() - 1), LogitsWanted::kNone, progress, on_logits));
    KVASIR_RETURN_IF_ERROR(store_.PublishPrefix());
    return Append(prompt.last(1), LogitsWanted::kLast, nullptr, on_logits);
  }
  KVASIR_ASSIGN_OR_RETURN(result.selected_rows, Select(prompt, *filter_layer, progress));
  if (options.on_selected) options.on_selected(result.selected_rows);
  std::vector<uint32_t> selected;
  for (const uint32_t row : result.selected_rows) selected.push_back(prompt[row]);
  result.prefill_token_layers = prompt.size() * (*filter_layer + 1) + selected.size() * layers;
  return Append(selected, LogitsWanted::kLast, progress, on_logits);
}

absl::StatusOr<GenerateResult> Generator::Generate(std::span<const uint32_t> prompt,
                                                   const GenerateOptions& options,
                                                   const ProgressCallback& progress,
                                                   const TextCallback& on_text) {
  if (prompt.empty()) return InvalidArgument("prompt is empty: tokens=0 min=1");
  KVASIR_RETURN_IF_ERROR(CheckOptions(options.sampler));
  Sampler sampler(options.sampler);
  Utf8Gate gate;
  GenerateResult result;
  result.prompt_tokens = prompt.size();
  uint32_t next = 0;
  const RowsCallback pick = [&](size_t, std::span<const float> logits) {
    next = sampler.Next(logits);
  };
  Instant start = SystemClock().Now();
  KVASIR_RETURN_IF_ERROR(Prefill(prompt, options, progress, pick, result));
  result.prompt_ms = MillisecondsSince(start);
  const double cpu_start = CpuMilliseconds();
  while (result.tokens.size() < options.tokens_max) {
    if (options.stop_at_end && tokenizer_.IsEnd(next)) {
      result.ended = true;
      break;
    }
    KVASIR_ASSIGN_OR_RETURN(const std::string piece, tokenizer_.Piece(next));
    result.tokens.push_back(next);
    result.text += piece;
    if (on_text) {
      const std::string ready = gate.Push(piece);
      if (!ready.empty()) on_text(ready);
    }
    if (result.tokens.size() == options.tokens_max) break;
    start = SystemClock().Now();
    const uint32_t token = next;
    KVASIR_RETURN_IF_ERROR(Append(std::span(&token, 1), LogitsWanted::kLast, nullptr, pick));
    result.token_ms.push_back(MillisecondsSince(start));
  }
  result.decode_cpu_ms = CpuMilliseconds() - cpu_start;
  const std::string rest = gate.Flush();
  if (on_text && !rest.empty()) on_text(rest);
  return result;
}

absl::StatusOr<PerplexityResult> Generator::Perplexity(std::span<const uint32_t> tokens,
                                                       const ProgressCallback& progress) {
  if (tokens.size() < 2) {
    return InvalidArgument("text is too short to score: tokens={} min=2", tokens.size());
  }
  PerplexityResult result;
  const Instant start = SystemClock().Now();
  const size_t vocabulary = engine_.model().parameters().vocabulary;
  const RowsCallback score = [&](size_t first, std::span<const float> logits) {
    for (size_t t = 0; t < logits.size() / vocabulary; ++t) {
      if (first + t + 1 >= tokens.size()) break;
      result.nll.push_back(
          NegativeLogLikelihood(logits.subspan(t * vocabulary, vocabulary), tokens[first + t + 1]));
    }
  };
  KVASIR_RETURN_IF_ERROR(Append(tokens, LogitsWanted::kAll, progress, score));
  result.wall_ms = MillisecondsSince(start);
  return result;
}

}  // namespace kvasir::engine
