// Comparison: the same text under several retentions at once, each beside full retention.
//
// All sequences of a text advance in lockstep, a batch at a time, so that whole distributions are
// compared on the spot and never stored. Not thread-safe.
#ifndef KVASIR_ENGINE_COMPARISON_H_
#define KVASIR_ENGINE_COMPARISON_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "engine/generator.h"
#include "engine/kv_store.h"
#include "engine/llama_engine.h"

namespace kvasir::engine {

inline constexpr size_t kCompareTokensMin = 8;  // of a text

// Bytes of one sequence, means over the scored queries of a text.
struct MeanBytes {
  double held = 0;    // by the store, while the query looks
  double needed = 0;  // by formula: VisibleBytes()
};

// One retention on one text, over the scored queries: those of rows T/4 to T-2 of T tokens.
struct TextResult {
  std::string retention;               // as asked for
  double nll = 0;                      // mean, nats
  std::vector<double> nll_above_base;  // means over blocks of kBlockQueries
  double mean_nll_above_base = 0;
  double kl = 0;    // mean KL(base || this), nats
  double top1 = 0;  // share of queries whose greedy tokens agree
  MeanBytes bytes, base_bytes;
  double ms_per_token = 0;  // wall time of this retention's computation
};

class Comparison {
 public:
  using StoreMaker = std::function<absl::StatusOr<std::unique_ptr<KvStore>>(const std::string&)>;

  // `engine` must outlive it. batch: rows of a step, 1 to kBatchRowsMax.
  Comparison(LlamaEngine& engine, StoreMaker make_store, uint32_t batch)
      : engine_(engine), make_store_(std::move(make_store)), batch_(batch) {}

  // The base "full" first, then each of `retentions`. Errors: kInvalidArgument for fewer than
  // kCompareTokensMin tokens and for retentions that select tokens; the stores' and the engine's.
  absl::StatusOr<std::vector<TextResult>> Run(std::span<const uint32_t> tokens,
                                              std::span<const std::string> retentions,
                                              const ProgressCallback& progress);

  // The canonical text of `retention`: what a result depends on. Errors: the store's.
  absl::StatusOr<std::string> Canonical(const std::string& retention);

  // Bytes of `retention` on a text, decoded a row at a time but not computed: how much stays does
  // not depend on what the rows say. Policies that decide by scores are given even ones.
  absl::StatusOr<MeanBytes> Measure(std::span<const uint32_t> tokens, const std::string& retention);

 private:
  struct Runner;
  struct Batch;

  absl::StatusOr<std::unique_ptr<Runner>> Open(const std::string& retention);
  absl::Status Advance(Runner& runner, std::span<const uint32_t> tokens, const Batch& batch,
                       Runner* base);

  LlamaEngine& engine_;
  const StoreMaker make_store_;
  const uint32_t batch_;
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_COMPARISON_H_
