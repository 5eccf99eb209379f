#include "tests/engine/double_llama.h"

#include <algorithm>
#include <cmath>

namespace kvasir::engine::testing {
namespace {

std::vector<double> Multiply(const ggml_tensor* weight, const std::vector<double>& x) {
  const float* w = ggml_get_data_f32(weight);
  std::vector<double> y(static_cast<size_t>(weight->ne[1]));
  for (double& out : y) {
    double sums[4] = {};  // one after the other, additions would wait for each other
    for (size_t i = 0; i < x.size(); ++i) sums[i % 4] += static_cast<double>(w[i]) * x[i];
    out = sums[0] + sums[1] + sums[2] + sums[3];
    w += x.size();
  }
  return y;
}

void AddTo(std::vector<double>& x, const std::vector<double>& y) {
  for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
}

}  // namespace

const std::vector<std::complex<double>>& DoubleLlama::Turns::Of(int64_t distance,
                                                                const HyperParameters& p) {
  std::vector<std::complex<double>>& turns = by_distance_[distance];
  for (size_t i = turns.size() * 2; i < p.rotated_dims; i += 2) {
    turns.push_back(
        std::polar(1.0, static_cast<double>(distance) *
                            std::pow(p.rope_theta, -static_cast<double>(i) / p.rotated_dims)));
  }
  return turns;
}

std::optional<int64_t> SeesAll(uint32_t /*layer*/, uint64_t query, uint64_t key) {
  return static_cast<int64_t>(query - key);
}

DoubleLlama::Vector DoubleLlama::Norm(const Vector& x, const ggml_tensor* weight) const {
  double square = 0.0;
  for (const double value : x) square += value * value;
  const double scale = 1.0 / std::sqrt(square / static_cast<double>(x.size()) +
                                       static_cast<double>(model_.parameters().norm_epsilon));
  Vector y(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    y[i] = x[i] * scale * static_cast<double>(ggml_get_data_f32(weight)[i]);
  }
  return y;
}

DoubleLlama::Vector DoubleLlama::Attend(uint32_t layer, uint64_t row, const Vector& q,
                                        const std::vector<Vector>& keys,
                                        const std::vector<Vector>& values, const HeadSees& sees,
                                        const Probe& probe) const {
  const HyperParameters& p = model_.parameters();
  const size_t dim = p.head_dim;
  Vector out(size_t{p.heads} * dim);
  for (size_t head = 0; head < p.heads; ++head) {
    const double* query = q.data() + head * dim;
    const size_t kv_head = head / (p.heads / p.kv_heads);
    const size_t kv_at = kv_head * dim;
    Vector scores;
    std::vector<uint64_t> seen;
    for (uint64_t j = 0; j <= row; ++j) {
      const std::optional<int64_t> distance = sees(layer, static_cast<uint32_t>(kv_head), row, j);
      if (!distance) continue;
      const double* key = keys[j].data() + kv_at;
      const std::vector<std::complex<double>>& turns = turns_.Of(*distance, p);
      double score = 0.0;
      for (size_t i = 0; i < dim; i += 2) {
        const std::complex<double> turn = i < p.rotated_dims ? turns[i / 2] : 1.0;
        score += turn.real() * (query[i] * key[i] + query[i + 1] * key[i + 1]) +
                 turn.imag() * (query[i] * key[i + 1] - query[i + 1] * key[i]);
      }
      scores.push_back(score / std::sqrt(static_cast<double>(dim)));
      seen.push_back(j);
    }
    const double max = *std::max_element(scores.begin(), scores.end());
    double sum = 0.0;
    for (double& score : scores) sum += score = std::exp(score - max);
    for (size_t a = 0; a < seen.size(); ++a) {
      if (probe.probability) {
        probe.probability(layer, static_cast<uint32_t>(head), row, seen[a], scores[a] / sum);
      }
      const auto from = values[seen[a]].begin() + static_cast<ptrdiff_t>(kv_at);
      Vector value(from, from + static_cast<ptrdiff_t>(dim));
      if (probe.value) {
        probe.value(layer, static_cast<uint32_t>(kv_head), row, seen[a], value);
      }
      for (size_t i = 0; i < dim; ++i) out[head * dim + i] += scores[a] / sum * value[i];
    }
  }
  return out;
}

void DoubleLlama::Turn(int64_t position, std::vector<double>& heads) const {
  const HyperParameters& p = model_.parameters();
  const std::vector<std::complex<double>>& turns = turns_.Of(position, p);
  for (size_t at = 0; at < heads.size(); at += p.head_dim) {
    for (size_t i = 0; i < p.rotated_dims; i += 2) {
      const std::complex<double> turned =
          std::complex<double>(heads[at + i], heads[at + i + 1]) * turns[i / 2];
      heads[at + i] = turned.real();
      heads[at + i + 1] = turned.imag();
    }
  }
}

std::vector<float> DoubleLlama::Forward(std::span<const uint32_t> tokens, const Sees& sees) const {
  return ForwardByHead(tokens,
                       [&sees](uint32_t layer, uint32_t, uint64_t query, uint64_t key) {
                         return sees(layer, query, key);
                       },
                       {});
}

std::vector<float> DoubleLlama::ForwardByHead(std::span<const uint32_t> tokens,
                                              const HeadSees& sees, const Probe& probe) const {
  const HyperParameters& p = model_.parameters();
  std::vector<Vector> x;
  for (const uint32_t token : tokens) {
    const float* row = ggml_get_data_f32(model_.token_embedding()) + size_t{token} * p.embedding;
    x.emplace_back(row, row + p.embedding);
  }
  for (uint32_t l = 0; l < p.layers; ++l) {
    const LayerWeights& layer = model_.layers()[l];
    std::vector<Vector> keys;
    std::vector<Vector> values;
    for (uint64_t t = 0; t < tokens.size(); ++t) {
      const Vector normed = Norm(x[t], layer.attn_norm);
      keys.push_back(Multiply(layer.attn_k, normed));
      values.push_back(Multiply(layer.attn_v, normed));
      const Vector q = Multiply(layer.attn_q, normed);
      if (probe.rows) probe.rows(l, t, q, keys.back());
      AddTo(x[t], Multiply(layer.attn_output, Attend(l, t, q, keys, values, sees, probe)));
      const Vector inner = Norm(x[t], layer.ffn_norm);
      Vector gate = Multiply(layer.ffn_gate, inner);
      const Vector up = Multiply(layer.ffn_up, inner);
      for (size_t i = 0; i < gate.size(); ++i)
        gate[i] = gate[i] / (1.0 + std::exp(-gate[i])) * up[i];
      AddTo(x[t], Multiply(layer.ffn_down, gate));
    }
  }
  std::vector<float> logits;
  for (const Vector& row : x) {
    const Vector y = Multiply(model_.output(), Norm(row, model_.output_norm()));
    logits.insert(logits.end(), y.begin(), y.end());
  }
  return logits;
}

}  // namespace kvasir::engine::testing
