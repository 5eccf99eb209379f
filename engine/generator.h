// Generator: drives engine, tokenizer and store of one sequence: prompt in, text out, perplexity.
#ifndef KVASIR_ENGINE_GENERATOR_H_
#define KVASIR_ENGINE_GENERATOR_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "engine/far_blocks.h"
#include "engine/kv_store.h"
#include "engine/llama_engine.h"
#include "engine/sampler.h"
#include "engine/tokenizer.h"

namespace kvasir::engine {

// Called with rows done and rows in all, after every batch of long work.
using ProgressCallback = std::function<void(uint64_t done, uint64_t total)>;
// Called with whole UTF-8 characters, as they come.
using TextCallback = std::function<void(const std::string& text)>;

// Called with the rows of the prompt that the store's policy selected, before any text.
using SelectionCallback = std::function<void(std::span<const uint32_t> rows)>;

struct GenerateOptions {
  uint64_t tokens_max = 128;
  SamplerOptions sampler = {};
  bool stop_at_end = true;             // at a token that ends an answer
  SelectionCallback on_selected = {};  // may be null
  // When all of the prompt but its last token is in the store, which is then asked to share it.
  bool publish = false;
};

struct GenerateResult {
  std::vector<uint32_t> tokens;  // generated ones, without the ending token
  std::string text;              // of `tokens`
  bool ended = false;            // by an ending token, not by tokens_max
  uint64_t prompt_tokens = 0;
  double prompt_ms = 0.0;        // wall time
  std::vector<double> token_ms;  // wall time of each decode step
  double decode_cpu_ms = 0.0;    // CPU time of the process in all decode steps
  // Rows of the prompt that the store's policy selected, ascending; empty without a selection.
  std::vector<uint32_t> selected_rows;
  // Work of the prompt, in tokens times layers; the filter layer counts in full. Beside it that of
  // a prefill of all tokens in all layers.
  uint64_t prefill_token_layers = 0;
  uint64_t prefill_token_layers_full = 0;
};

struct PerplexityResult {
  std::vector<double> nll;  // nll[i]: of token i + 1 after tokens 0..i
  double wall_ms = 0.0;

  double Mean() const;
  double Perplexity() const;  // exp(mean nll)
};

// Not thread-safe. Continues the sequence in `store` where it stands.
class Generator {
 public:
  // All must outlive it. batch: rows of a prefill step, 1 to kBatchRowsMax.
  Generator(LlamaEngine& engine, const Tokenizer& tokenizer, KvStore& store, uint32_t batch)
      : engine_(engine),
        tokenizer_(tokenizer),
        store_(store),
        far_(store, engine.model().parameters().layers),
        batch_(batch) {}

  // Appends `prompt` and then up to options.tokens_max tokens of the model's. The last one picked
  // is not in the store (it has no successor yet), so the caller may prepend it to the next prompt.
  // Where the empty store has a selection to make, the prompt is computed up to the filter layer
  // first, and then only its selected tokens in full, as rows 0 and on. Source: GemFilter
  // (arXiv 2409.17422), algorithm 1.
  // Errors: kInvalidArgument for an empty prompt or bad options; the engine's and the store's.
  absl::StatusOr<GenerateResult> Generate(std::span<const uint32_t> prompt,
                                          const GenerateOptions& options,
                                          const ProgressCallback& progress,
                                          const TextCallback& on_text);

  // Appends `tokens` and scores each one but the first. Errors: kInvalidArgument for fewer than 2.
  absl::StatusOr<PerplexityResult> Perplexity(std::span<const uint32_t> tokens,
                                              const ProgressCallback& progress);

 private:
  using RowsCallback = std::function<void(size_t first, std::span<const float> logits)>;

  absl::Status Append(std::span<const uint32_t> tokens, LogitsWanted wanted,
                      const ProgressCallback& progress, const RowsCallback& on_logits);
  absl::StatusOr<std::vector<uint32_t>> Select(std::span<const uint32_t> prompt,
                                               uint32_t filter_layer,
                                               const ProgressCallback& progress);
  absl::Status Prefill(std::span<const uint32_t> prompt, const GenerateOptions& options,
                       const ProgressCallback& progress, const RowsCallback& on_logits,
                       GenerateResult& result);

  LlamaEngine& engine_;
  const Tokenizer& tokenizer_;
  KvStore& store_;
  FarBlocks far_;
  const uint32_t batch_;
};

// Lets whole UTF-8 characters through and holds an unfinished one back. Not thread-safe.
class Utf8Gate {
 public:
  // `bytes` after what was held back, up to the last whole character. Bytes that are no UTF-8 pass.
  std::string Push(const std::string& bytes);
  // What is still held back.
  std::string Flush();

 private:
  std::string held_;
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_GENERATOR_H_
