#include "tests/engine/scored_oracle.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/encoding/row_code.h"

#include <fmt/format.h>

namespace kvasir::engine::testing {
namespace {

// Scores of the engine are in float and follow rows in float: this near, either choice is right.
constexpr double kNear = 1e-4;

double Dot(const double* a, const double* b, size_t dim) {
  return std::inner_product(a, a + dim, b, 0.0);
}

// Rows of a view that one kv head of the query of `row` sees.
std::vector<uint64_t> RowsOf(const LayerView& view, uint64_t row, uint32_t kv_head) {
  std::vector<uint64_t> rows;
  for (const KeptRunView& run : view.kept) {
    const uint32_t* positions = run.positions + size_t{kv_head} * run.head_stride;
    rows.insert(rows.end(), positions, positions + run.rows);
  }
  for (const uint64_t sticky : view.sticky) {
    if (sticky < view.WindowFirst(row)) rows.push_back(sticky);
  }
  for (uint64_t p = view.WindowFirst(row); p <= row; ++p) rows.push_back(p);
  return rows;
}

}  // namespace

bool ScoredRule::DecidesAt(uint64_t row) const {
  if (interval == 0) return row == prompt_rows;
  const uint64_t first = std::max(prompt_rows, budget + recent + interval);
  return row >= first && (row - first) % interval == 0;
}

absl::StatusOr<StepView> SeenStore::Begin(uint32_t want) {
  absl::StatusOr<StepView> step = ForwardingStore::Begin(want);
  if (!step.ok()) return step;
  auto& layers = seen_[step->row];
  layers.clear();
  for (const LayerView& view : step->layers) {
    auto& heads = layers.emplace_back();
    for (uint32_t h = 0; h < kv_heads_; ++h) heads.push_back(RowsOf(view, step->row, h));
  }
  return step;
}

ScoredOracle::ScoredOracle(const GgufModel& model, const DoubleLlama& llama, const ScoredRule& rule,
                           std::span<const uint32_t> tokens, const SeenRows& seen)
    : p_(model.parameters()),
      llama_(llama),
      rule_(rule),
      tokens_(tokens),
      seen_(seen),
      layers_(p_.layers) {
  for (Layer& layer : layers_) {
    layer.heads.resize(p_.kv_heads);
    for (Head& head : layer.heads) {
      head.visible.resize(tokens.size());
      head.mass.resize(tokens.size());
      head.coded.resize(tokens.size());
    }
  }
}

DoubleLlama::HeadSees ScoredOracle::Sees() {
  return [this](uint32_t layer, uint32_t head, uint64_t query,
                uint64_t key) -> std::optional<int64_t> {
    if (layers_[layer].query != query) Advance(layer, query);
    if (!layers_[layer].heads[head].visible[key]) return std::nullopt;
    return static_cast<int64_t>(query - key);
  };
}

DoubleLlama::Probe ScoredOracle::Probe() {
  DoubleLlama::Probe probe;
  probe.probability = [this](uint32_t layer, uint32_t head, uint64_t, uint64_t key, double share) {
    layers_[layer].heads[head / (p_.heads / p_.kv_heads)].mass[key] += share;
  };
  probe.rows = [this](uint32_t layer, uint64_t row, std::vector<double> q, std::vector<double> k) {
    llama_.Turn(static_cast<int64_t>(row), q);
    llama_.Turn(static_cast<int64_t>(row), k);
    layers_[layer].queries.push_back(std::move(q));
    layers_[layer].keys.push_back(std::move(k));
  };
  if (rule_.v_bits == 0) return probe;
  probe.value = [this](uint32_t layer, uint32_t head, uint64_t, uint64_t key,
                       std::span<double> value) { Code(layer, head, key, value); };
  return probe;
}

// Kept rows are coded once, from the value as written.
void ScoredOracle::Code(uint32_t layer, uint32_t head, uint64_t key, std::span<double> value) {
  if (key >= layers_[layer].kept_below) return;
  std::vector<double>& coded = layers_[layer].heads[head].coded[key];
  if (coded.empty()) {
    const kernels::RotatedRow shape{.dims = p_.head_dim, .bits = rule_.v_bits};
    const std::vector<float> row(value.begin(), value.end());
    std::vector<std::byte> code(kernels::RotatedRowBytes(shape));
    std::vector<float> decoded(row.size());
    kernels::EncodeRotatedRow(shape, row.data(), code.data());
    kernels::DecodeRotatedRow(shape, code.data(), decoded.data());
    coded.assign(decoded.begin(), decoded.end());
  }
  std::copy(coded.begin(), coded.end(), value.begin());
}

// The next query of a layer: decides if it is time, and then sees its own row too.
void ScoredOracle::Advance(uint32_t layer, uint64_t query) {
  Layer& at = layers_[layer];
  at.query = query;
  if (rule_.DecidesAt(query)) Decide(layer, query);
  const auto step = seen_.find(query);
  for (uint32_t h = 0; h < p_.kv_heads; ++h) {
    Head& head = at.heads[h];
    head.rows.push_back(query);
    head.visible[query] = true;
    for (const uint64_t row : head.rows) head.mass[row] *= rule_.decay;
    if (step != seen_.end() && step->second[layer][h] != head.rows) {
      Fault(layer, h, query, "the view shows other rows");
    }
  }
}

void ScoredOracle::Decide(uint32_t layer, uint64_t query) {
  Layer& at = layers_[layer];
  std::vector<std::vector<double>> scores;
  for (uint32_t h = 0; h < p_.kv_heads; ++h) scores.push_back(Scores(at, h, query));
  for (uint32_t h = 1; rule_.shared && h < p_.kv_heads; ++h) {
    for (size_t i = 0; i < scores[0].size(); ++i) scores[0][i] += scores[h][i];
  }
  at.kept_below = query - std::min(query, rule_.recent);
  const auto step = seen_.find(query);
  for (uint32_t h = 0; h < p_.kv_heads; ++h) {
    Head& head = at.heads[h];
    ++keep_sets_;
    if (step == seen_.end()) {
      Fault(layer, h, query, "no step begins at the decision");
      continue;
    }
    std::vector<uint64_t> kept = step->second[layer][h];
    if (!kept.empty() && kept.back() == query) kept.pop_back();
    const size_t recent = std::min<size_t>(rule_.recent, head.rows.size());
    const auto border = head.rows.end() - static_cast<ptrdiff_t>(recent);
    if (kept.size() < recent ||
        !std::equal(border, head.rows.end(), kept.end() - static_cast<ptrdiff_t>(recent))) {
      Fault(layer, h, query, "recent rows are gone");
      continue;
    }
    const std::string wrong = Judge({head.rows.begin(), border}, scores[rule_.shared ? 0 : h],
                                    {kept.begin(), kept.end() - static_cast<ptrdiff_t>(recent)});
    if (!wrong.empty()) Fault(layer, h, query, wrong);
    for (const uint64_t row : head.rows) head.visible[row] = false;
    for (const uint64_t row : kept) head.visible[row] = true;
    head.rows = kept;
  }
}

bool ScoredOracle::Stays(uint64_t row) const {
  return row < rule_.sinks ||
         std::count(rule_.separators.begin(), rule_.separators.end(), tokens_[row]) != 0;
}

std::string ScoredOracle::Judge(const std::vector<uint64_t>& candidates,
                                const std::vector<double>& scores,
                                const std::vector<uint64_t>& kept) {
  const size_t budget = std::min<size_t>(rule_.budget, candidates.size());
  if (kept.size() != budget) return fmt::format("{} rows kept, not {}", kept.size(), budget);
  double worst_kept = std::numeric_limits<double>::infinity();
  double best_dropped = -worst_kept;
  double scale = 0.0;
  size_t found = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    scale = std::max(scale, std::fabs(scores[i]));
    const bool stays = Stays(candidates[i]);
    if (std::binary_search(kept.begin(), kept.end(), candidates[i])) {
      ++found;
      if (!stays) worst_kept = std::min(worst_kept, scores[i]);
    } else if (stays) {
      return fmt::format("row {} must stay", candidates[i]);
    } else {
      best_dropped = std::max(best_dropped, scores[i]);
    }
  }
  if (found != kept.size()) return "rows kept that were not visible";
  if (worst_kept < best_dropped) {
    ++near_ties_;
    if (best_dropped - worst_kept > kNear * scale) {
      return fmt::format("kept a score of {} and dropped one of {}", worst_kept, best_dropped);
    }
  }
  return "";
}

void ScoredOracle::Fault(uint32_t layer, uint32_t head, uint64_t query, const std::string& what) {
  faults_.push_back(fmt::format("layer {} head {} query {}: {}", layer, head, query, what));
}

std::vector<double> ScoredOracle::Scores(const Layer& layer, uint32_t head, uint64_t query) const {
  switch (rule_.score) {
    case ScoredRule::Score::kQueries:
      return QueryScores(layer, head, query);
    case ScoredRule::Score::kKeyNorm:
    case ScoredRule::Score::kKeyDifference:
      return KeyScores(layer, head);
    case ScoredRule::Score::kMass:
      break;
  }
  std::vector<double> scores;
  for (const uint64_t row : layer.heads[head].rows) scores.push_back(layer.heads[head].mass[row]);
  return scores;
}

// Softmax of the window's queries over all keys up to each, summed; pooled over the rows before the
// window, and the mean of the group's query heads.
std::vector<double> ScoredOracle::QueryScores(const Layer& layer, uint32_t head,
                                              uint64_t query) const {
  const std::vector<uint64_t>& rows = layer.heads[head].rows;
  const uint32_t group = p_.heads / p_.kv_heads;
  const size_t dim = p_.head_dim;
  std::vector<double> mean(rows.size() - rule_.window);
  for (uint32_t g = head * group; g < (head + 1) * group; ++g) {
    std::vector<double> sum(rows.size());
    for (uint64_t w = query - rule_.window; w < query; ++w) {
      std::vector<double> weights;
      for (size_t i = 0; i < rows.size() && rows[i] <= w; ++i) {
        const double dot =
            Dot(layer.queries[w].data() + g * dim, layer.keys[rows[i]].data() + head * dim, dim);
        weights.push_back(std::exp(dot / std::sqrt(static_cast<double>(dim))));
      }
      const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
      for (size_t i = 0; i < weights.size(); ++i) sum[i] += weights[i] / total;
    }
    sum.resize(mean.size());
    Pool(sum, mean);
  }
  for (double& value : mean) value /= group;
  return mean;
}

void ScoredOracle::Pool(const std::vector<double>& scores, std::vector<double>& into) const {
  const auto half = static_cast<int64_t>(rule_.kernel / 2);
  const auto size = static_cast<int64_t>(scores.size());
  for (int64_t i = 0; i < size; ++i) {
    const auto first = scores.begin() + std::max<int64_t>(0, i - half);
    const auto last = scores.begin() + std::min(size, i + half + 1);
    into[static_cast<size_t>(i)] += rule_.maximum
                                        ? *std::max_element(first, last)
                                        : std::accumulate(first, last, 0.0) / rule_.kernel;
  }
}

std::vector<double> ScoredOracle::KeyScores(const Layer& layer, uint32_t head) const {
  const size_t dim = p_.head_dim;
  std::vector<double> norms;
  std::vector<double> mean(dim);
  const std::vector<uint64_t>& rows = layer.heads[head].rows;
  for (const uint64_t row : rows) {
    const double* key = layer.keys[row].data() + head * dim;
    norms.push_back(std::sqrt(Dot(key, key, dim)));
    for (size_t i = 0; i < dim; ++i) mean[i] += key[i] / norms.back();
  }
  const double length = std::sqrt(Dot(mean.data(), mean.data(), dim));
  std::vector<double> scores;
  for (size_t i = 0; i < rows.size(); ++i) {
    const double* key = layer.keys[rows[i]].data() + head * dim;
    scores.push_back(rule_.score == ScoredRule::Score::kKeyNorm
                         ? -norms[i]
                         : -Dot(key, mean.data(), dim) / (norms[i] * length));
  }
  return scores;
}

}  // namespace kvasir::engine::testing
