#include "bench/scored_text.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <utility>

#include "base/status_macros.h"
#include "engine/held_bytes.h"

namespace kvasir::bench {
namespace {

constexpr uint32_t kBatch = 256;

template <typename T>
double MeanOf(const std::vector<T>& values, size_t first, size_t last) {
  const auto from = values.begin() + static_cast<ptrdiff_t>(first);
  return std::accumulate(from, values.begin() + static_cast<ptrdiff_t>(last), 0.0) /
         static_cast<double>(last - first);
}

double StreamingMean(uint64_t size, size_t first, size_t last) {
  double sum = 0;
  for (size_t row = first; row < last; ++row) {
    sum += static_cast<double>(std::min<uint64_t>(row + 1, size));
  }
  return sum / static_cast<double>(last - first);
}

}  // namespace

absl::StatusOr<StepView> CountingStore::Begin(uint32_t want) {
  KVASIR_ASSIGN_OR_RETURN(const StepView step, ForwardingStore::Begin(want));
  step_.clear();
  for (uint64_t row = step.row; row < step.row + step.count; ++row) {
    step_.push_back(static_cast<uint32_t>(engine::VisibleRows(step.layers.front(), row)));
  }
  return step;
}

absl::Status CountingStore::Commit(std::span<const uint32_t> token_ids) {
  KVASIR_RETURN_IF_ERROR(ForwardingStore::Commit(token_ids));
  visible_.insert(visible_.end(), step_.begin(),
                  step_.begin() + static_cast<ptrdiff_t>(token_ids.size()));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint32_t>> CountingStore::SelectRows(std::span<const float> query) {
  visible_.clear();  // the selected tokens come again, as rows 0 and on
  return ForwardingStore::SelectRows(query);
}

absl::Status CountingStore::Truncate(uint64_t row) {
  KVASIR_RETURN_IF_ERROR(ForwardingStore::Truncate(row));
  visible_.resize(row);
  return absl::OkStatus();
}

double ScoredText::MeanNll(size_t first, size_t last) const { return MeanOf(nll, first, last); }

double ScoredText::MeanVisible(size_t first, size_t last) const {
  return MeanOf(visible, first, last);
}

uint32_t ScoredText::PeakVisible() const {
  return *std::max_element(visible.begin(), visible.end());
}

absl::StatusOr<ScoredText> ScoreText(engine::LlamaEngine& engine,
                                     const engine::Tokenizer& tokenizer,
                                     const engine::KvasirStoreOptions& options,
                                     std::span<const uint32_t> ids,
                                     const engine::ProgressCallback& progress) {
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<engine::KvasirKvStore> store,
                          engine::KvasirKvStore::Create(engine.model(), tokenizer, options));
  CountingStore counting(*store);
  engine::Generator generator(engine, tokenizer, counting, kBatch);
  KVASIR_ASSIGN_OR_RETURN(engine::PerplexityResult result, generator.Perplexity(ids, progress));
  KVASIR_RETURN_IF_ERROR(store->Close());
  return ScoredText{std::move(result.nll), counting.visible(), result.wall_ms / 1000};
}

uint64_t EqualMeanWindow(uint64_t start_size, size_t first, size_t last, double mean_visible) {
  // The mean grows with the size, so the first size that reaches it or the one below is nearest.
  uint64_t size = start_size + 1;
  while (size < last && StreamingMean(size, first, last) < mean_visible) ++size;
  if (size > start_size + 1 && std::abs(StreamingMean(size - 1, first, last) - mean_visible) <=
                                   std::abs(StreamingMean(size, first, last) - mean_visible)) {
    --size;
  }
  return size - start_size;
}

}  // namespace kvasir::bench
