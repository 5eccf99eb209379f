// One text scored by a model under one retention policy, with what each query saw.
#ifndef KVASIR_BENCH_SCORED_TEXT_H_
#define KVASIR_BENCH_SCORED_TEXT_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "engine/forwarding_store.h"
#include "engine/generator.h"
#include "engine/kvasir_kv_store.h"
#include "engine/llama_engine.h"
#include "engine/tokenizer.h"

namespace kvasir::bench {

// A store that hands everything on and counts, from the tables that the engine is given, the rows
// that each query sees (in layer 0). Not thread-safe.
class CountingStore final : public engine::ForwardingStore {
 public:
  explicit CountingStore(engine::KvStore& store) : ForwardingStore(store) {}

  absl::StatusOr<StepView> Begin(uint32_t want) override;
  absl::Status Commit(std::span<const uint32_t> token_ids) override;
  absl::StatusOr<std::vector<uint32_t>> SelectRows(std::span<const float> query) override;
  absl::Status Truncate(uint64_t row) override;

  // Of every row committed, its own key included.
  const std::vector<uint32_t>& visible() const { return visible_; }

 private:
  std::vector<uint32_t> visible_;
  std::vector<uint32_t> step_;
};

struct ScoredText {
  std::vector<double> nll;        // [i]: of token i + 1 after tokens 0..i
  std::vector<uint32_t> visible;  // [i]: keys that the query of row i sees, its own included
  double seconds = 0;

  // Over the queries [first, last). REQUIRES: first < last <= nll.size().
  double MeanNll(size_t first, size_t last) const;
  double MeanVisible(size_t first, size_t last) const;
  uint32_t PeakVisible() const;  // over all queries
};

// Scores `ids` in a sequence of its own. `options` says where and under which retention.
// Errors: the store's and the engine's.
absl::StatusOr<ScoredText> ScoreText(engine::LlamaEngine& engine,
                                     const engine::Tokenizer& tokenizer,
                                     const engine::KvasirStoreOptions& options,
                                     std::span<const uint32_t> ids,
                                     const engine::ProgressCallback& progress);

// StreamingLLM's window (recent_size) for the smallest difference to `mean_visible` over the
// queries [first, last) of a text, with start_size initial rows. REQUIRES: first < last.
uint64_t EqualMeanWindow(uint64_t start_size, size_t first, size_t last, double mean_visible);

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_SCORED_TEXT_H_
