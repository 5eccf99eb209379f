// Attention where a view asks for more than AttendHead() gives: keys that lie unrotated, and
// attention mass. Thread-safe but for what it adds to the view's mass.
#ifndef KVASIR_CLIENT_EXAMPLES_ASKED_ATTENTION_H_
#define KVASIR_CLIENT_EXAMPLES_ASKED_ATTENTION_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "client/examples/attention_loop.h"
#include "client/view.h"

namespace kvasir::examples {

// One row that a query sees.
struct SeenRow {
  const float* key = nullptr;
  const float* value = nullptr;
  uint64_t key_position = 0;  // of a key that lies unrotated
  uint64_t query_position = 0;
  float* mass = nullptr;  // null: not asked for
};

inline std::vector<SeenRow> SeenRows(const LayerView& view, uint64_t row, const HeadShape& shape) {
  const size_t key_at = size_t{shape.kv_head} * shape.k_dim;
  const size_t value_at = size_t{shape.kv_head} * shape.v_dim;
  const uint64_t head = shape.kv_head;
  std::vector<SeenRow> seen;
  const auto add = [&](const std::byte* k, const std::byte* v, uint64_t key_position,
                       uint64_t query_position, float* mass) {
    seen.push_back({reinterpret_cast<const float*>(k) + key_at,
                    reinterpret_cast<const float*>(v) + value_at, key_position, query_position,
                    mass});
  };
  uint64_t at = head * view.mass.kept_rows;  // mass counts over all runs
  for (const KeptRunView& run : view.kept) {
    const uint32_t* const positions = run.positions + head * run.head_stride;
    const uint64_t query = view.unrotated ? row : run.QueryPosition(row);
    for (uint32_t i = 0; i < run.rows; ++i, ++at) {
      add(run.k + size_t{i} * run.k_stride, run.v + size_t{i} * run.v_stride, positions[i], query,
          view.mass.kept == nullptr ? nullptr : view.mass.kept + at);
    }
  }
  const auto add_recent = [&](uint64_t p) {
    const uint64_t place = head * view.mass.recent_rows + p - view.recent_base;
    add(view.KeyOf(p), view.ValueOf(p), p, row,
        view.mass.recent == nullptr ? nullptr : view.mass.recent + place);
  };
  const uint64_t low = view.WindowFirst(row);
  for (const uint64_t p : view.sticky) {
    if (p < low) add_recent(p);
  }
  for (uint64_t p = low; p <= row; ++p) add_recent(p);
  return seen;
}

// As AttendHead(). A mass needs the finished softmax, so there are two passes. `mass_weight`:
// StepView::mass_decay to the power of the rows of the step behind this one.
inline void AttendAsked(const LayerView& view, uint64_t row, double mass_weight,
                        const HeadShape& shape, std::span<const float> q, std::span<float> out) {
  const std::vector<SeenRow> seen = SeenRows(view, row, shape);
  const float scale = 1.0F / std::sqrt(static_cast<float>(shape.k_dim));
  std::vector<float> query(q.size()), key(q.size()), weights;
  float top = -std::numeric_limits<float>::infinity(), sum = 0;
  for (const SeenRow& one : seen) {
    Rotate(q, one.query_position, shape.rope_theta, query);
    std::copy_n(one.key, key.size(), key.begin());
    if (view.unrotated) Rotate(key, one.key_position, shape.rope_theta, key);
    weights.push_back(Dot(query, key.data()) * scale);
    top = std::max(top, weights.back());
  }
  for (float& weight : weights) sum += weight = std::exp(weight - top);
  std::fill(out.begin(), out.end(), 0.0F);
  for (size_t i = 0; i < seen.size(); ++i) {
    const float probability = weights[i] / sum;
    for (size_t e = 0; e < out.size(); ++e) out[e] += probability * seen[i].value[e];
    if (seen[i].mass == nullptr) continue;
    *seen[i].mass += static_cast<float>(mass_weight) * probability;
  }
}

}  // namespace kvasir::examples

#endif  // KVASIR_CLIENT_EXAMPLES_ASKED_ATTENTION_H_
