#include "tests/engine/retrieval_oracle.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include <fmt/format.h>

namespace kvasir::engine::testing {
namespace {

// The engine works in float: this near, relative to the size of what is compared, either choice is
// right.
constexpr double kNear = 1e-3;

double Gap(double a, double b) {
  const double gap = std::fabs(a - b);
  return std::isnan(gap) ? HUGE_VAL : gap;
}

}  // namespace

RetrievalOracle::RetrievalOracle(const AttentionGeometry& geometry, const InfLlmConfig& config,
                                 const FarLookups& lookups, uint64_t rows, Turn turn)
    : geometry_(geometry),
      config_(config),
      lookups_(lookups),
      rows_(rows),
      turn_(std::move(turn)),
      layers_(geometry.layers) {
  for (Layer& layer : layers_) layer.mass.assign(geometry.heads, std::vector<double>(rows));
}

void RetrievalOracle::AddRow(uint32_t index, uint64_t row, const std::vector<double>& q,
                             const std::vector<double>& k) {
  Layer& layer = layers_[index];
  if (row > 0 && lookups_.count(row) != 0) {
    EndStep(index, row);
    layer.step = row;
  }
  if (row == layer.step) layer.block_mass.assign(lookups_.at(row)[index].blocks.size(), 0.0);
  layer.queries.push_back(q);
  layer.keys.push_back(k);
}

std::optional<int64_t> RetrievalOracle::Distance(uint32_t index, uint64_t query,
                                                 uint64_t key) const {
  const Layer& layer = layers_[index];
  const auto far = static_cast<int64_t>(config_.n_local) - 1;
  if (key + config_.n_local > query) return static_cast<int64_t>(query - key);
  if (key < layer.init || key >= layer.remainder) return far;
  const auto block = static_cast<uint32_t>((key - config_.n_init) / config_.block_size);
  const std::vector<uint32_t>& chosen = lookups_.at(layer.step)[index].blocks;
  return std::count(chosen.begin(), chosen.end(), block) != 0 ? std::optional(far) : std::nullopt;
}

void RetrievalOracle::AddShare(uint32_t index, uint32_t head, uint64_t query, uint64_t key,
                               double share) {
  Layer& layer = layers_[index];
  if (key + config_.n_local > query) {
    layer.mass[head][key] += share;
  } else if (key >= layer.init && key < layer.remainder) {
    const std::vector<uint32_t>& chosen = lookups_.at(layer.step)[index].blocks;
    const auto block = static_cast<uint32_t>((key - config_.n_init) / config_.block_size);
    const auto at = std::find(chosen.begin(), chosen.end(), block) - chosen.begin();
    layer.block_mass[static_cast<size_t>(at)] += share;
  }
}

void RetrievalOracle::Finish() {
  for (uint32_t index = 0; index < layers_.size(); ++index) EndStep(index, rows_);
}

// The step before row `end` has run.
void RetrievalOracle::EndStep(uint32_t index, uint64_t end) {
  Layer& layer = layers_[index];
  if (end - layer.step > config_.exc_block_size) Fault(index, "the step is too long");
  Judge(index, lookups_.at(layer.step)[index]);
  CheckMass(index, end);
  SealBlocks(layer, end);
  layer.queries.clear();
}

void RetrievalOracle::Judge(uint32_t index, const FarLookup& lookup) {
  Layer& layer = layers_[index];
  std::vector<double> mean(size_t{geometry_.heads} * geometry_.head_dim);
  for (std::vector<double>& query : layer.queries) {
    turn_(static_cast<int64_t>(config_.n_local) - 1, query);
    for (size_t i = 0; i < mean.size(); ++i) {
      mean[i] += query[i] / static_cast<double>(layer.queries.size());
    }
  }
  if (lookup.query.size() != mean.size()) return Fault(index, "no lookup");
  for (size_t i = 0; i < mean.size(); ++i) {
    query_error_ = std::max(query_error_, Gap(mean[i], static_cast<double>(lookup.query[i])));
  }
  const std::vector<uint32_t>& chosen = lookup.blocks;
  if (chosen.size() != std::min<size_t>(config_.topk, layer.blocks.size())) {
    return Fault(index, "the wrong number of blocks");
  }
  if (std::adjacent_find(chosen.begin(), chosen.end(), std::greater_equal<>()) != chosen.end()) {
    return Fault(index, "blocks do not ascend");
  }
  if (chosen.size() == layer.blocks.size()) return;
  double worst_in = HUGE_VAL, best_out = -HUGE_VAL, size = 0.0;
  bool doubtful = false;
  for (uint32_t b = 0; b < layer.blocks.size(); ++b) {
    const std::vector<double>& repr = layer.blocks[b].repr;
    const double score = std::inner_product(mean.begin(), mean.end(), repr.begin(), 0.0);
    const bool in = std::count(chosen.begin(), chosen.end(), b) != 0;
    if (in) worst_in = std::min(worst_in, score);
    if (!in) best_out = std::max(best_out, score);
    size = std::max(size, std::fabs(score));
    doubtful |= layer.blocks[b].doubtful;
  }
  ++judged_;
  if (best_out <= worst_in + kNear * size) return;
  if (doubtful) {
    ++doubtful_;
  } else {
    Fault(index, fmt::format("left out {:.6f}, took {:.6f}", best_out, worst_in));
  }
}

// What the engine said of this step's blocks when it asked for the next ones.
void RetrievalOracle::CheckMass(uint32_t index, uint64_t next) {
  const auto found = lookups_.find(next);
  if (found == lookups_.end()) return;
  const std::vector<float>& told = found->second[index].mass;
  const std::vector<double>& expected = layers_[index].block_mass;
  if (told.size() != expected.size()) return Fault(index, "mass of the wrong number of blocks");
  for (size_t i = 0; i < told.size(); ++i) {
    mass_error_ = std::max(mass_error_, Gap(expected[i], static_cast<double>(told[i])));
  }
}

void RetrievalOracle::SealBlocks(Layer& layer, uint64_t rows) const {
  if (rows - layer.remainder > config_.n_local) {
    const uint64_t more =
        std::min(config_.n_init - layer.init, rows - layer.remainder - config_.n_local);
    layer.init += more;
    layer.remainder += more;
  }
  while (rows - layer.remainder >= config_.n_local + config_.block_size) {
    layer.blocks.push_back(MakeBlock(layer));
    layer.remainder += config_.block_size;
  }
}

// Of the first rows of the remainder.
RetrievalOracle::Block RetrievalOracle::MakeBlock(const Layer& layer) const {
  const size_t dim = geometry_.head_dim;
  Block block;
  block.repr.resize(geometry_.heads * dim);
  std::vector<uint64_t> order(config_.block_size);
  for (size_t head = 0; head < geometry_.heads; ++head) {
    const std::vector<double>& mass = layer.mass[head];
    std::iota(order.begin(), order.end(), layer.remainder);
    std::stable_sort(order.begin(), order.end(),
                     [&mass](uint64_t a, uint64_t b) { return mass[a] > mass[b]; });
    const size_t kv_at = head / (geometry_.heads / geometry_.kv_heads) * dim;
    for (size_t i = 0; i < config_.repr_topk; ++i) {
      for (size_t d = 0; d < dim; ++d) {
        block.repr[head * dim + d] += layer.keys[order[i]][kv_at + d] / config_.repr_topk;
      }
    }
    if (config_.repr_topk == config_.block_size) continue;
    const double last = mass[order[config_.repr_topk - 1]];
    block.doubtful |= last - mass[order[config_.repr_topk]] < kNear * last;
  }
  return block;
}

void RetrievalOracle::Fault(uint32_t layer, const std::string& what) {
  faults_.push_back(fmt::format("row={} layer={}: {}", layers_[layer].step, layer, what));
}

AttentionGeometry GeometryOf(const GgufModel& model) {
  const HyperParameters& p = model.parameters();
  return {.layers = p.layers,
          .heads = p.heads,
          .kv_heads = p.kv_heads,
          .head_dim = p.head_dim,
          .type = kernels::RowType::kF32};
}

std::vector<float> ForwardByOracle(const DoubleLlama& llama, std::span<const uint32_t> tokens,
                                   RetrievalOracle& oracle) {
  DoubleLlama::Probe probe;
  probe.rows = [&](uint32_t layer, uint64_t row, const std::vector<double>& q,
                   const std::vector<double>& k) { oracle.AddRow(layer, row, q, k); };
  probe.probability = [&](uint32_t layer, uint32_t head, uint64_t query, uint64_t key,
                          double share) { oracle.AddShare(layer, head, query, key, share); };
  std::vector<float> logits = llama.ForwardByHead(
      tokens,
      [&](uint32_t layer, uint32_t, uint64_t query, uint64_t key) {
        return oracle.Distance(layer, query, key);
      },
      probe);
  oracle.Finish();
  return logits;
}

}  // namespace kvasir::engine::testing
