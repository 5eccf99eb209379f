// The attention loop of an engine on Kvasir's views, in plain floats: what docs/engine_guide.md
// quotes.
//
// It is exact for every retention policy and for both kinds of positions, and has no policy code.
// Rows are f32, [kv_head][head_dim]; an engine replaces Dot, Rotate and OnlineSoftmax by its own
// kernels and keeps the shape of AttendHead. Thread-safe: plain functions and values.
#ifndef KVASIR_CLIENT_EXAMPLES_ATTENTION_LOOP_H_
#define KVASIR_CLIENT_EXAMPLES_ATTENTION_LOOP_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "client/view.h"

namespace kvasir::examples {

// Turns a head by the rotary angles of `position`; pairs (2i, 2i + 1). Angles in double: in float
// they are wrong by 0.2 rad at 4 million positions. `in` and `out` may be the same.
inline void Rotate(std::span<const float> in, uint64_t position, double theta,
                   std::span<float> out) {
  for (size_t i = 0; i + 1 < in.size(); i += 2) {
    const double exponent = static_cast<double>(i) / static_cast<double>(in.size());
    const double angle = static_cast<double>(position) / std::pow(theta, exponent);
    const double cosine = std::cos(angle), sine = std::sin(angle);
    const double a = in[i], b = in[i + 1];
    out[i] = static_cast<float>(a * cosine - b * sine);
    out[i + 1] = static_cast<float>(a * sine + b * cosine);
  }
}

inline float Dot(std::span<const float> a, const float* b) {
  float sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// Softmax over scores that come one by one, in any order.
class OnlineSoftmax {
 public:
  explicit OnlineSoftmax(size_t v_dim) : sum_of_values_(v_dim, 0.0F) {}

  void Add(float score, const float* value) {
    const float top = std::max(max_, score);
    const float old = std::exp(max_ - top), weight = std::exp(score - top);
    for (size_t i = 0; i < sum_of_values_.size(); ++i) {
      sum_of_values_[i] = sum_of_values_[i] * old + value[i] * weight;
    }
    sum_ = sum_ * old + weight;
    max_ = top;
  }

  void Finish(std::span<float> out) const {
    for (size_t i = 0; i < out.size(); ++i) out[i] = sum_of_values_[i] / sum_;
  }

 private:
  float max_ = -std::numeric_limits<float>::infinity();
  float sum_ = 0;
  std::vector<float> sum_of_values_;
};

// Shape of the heads of a layer, and which kv head the query head reads.
struct HeadShape {
  uint32_t kv_head = 0;
  uint32_t k_dim = 0;  // elements
  uint32_t v_dim = 0;
  double rope_theta = 10000.0;
};

// [attention loop]
// out = softmax(q . k / sqrt(k_dim)) v over the rows that the query of `row` may see. `q` is one
// head of the query, not rotated yet; its own row must be written already.
inline void AttendHead(const LayerView& view, uint64_t row, const HeadShape& shape,
                       std::span<const float> q, std::span<float> out) {
  std::vector<float> turned(q.size());
  OnlineSoftmax softmax(out.size());
  const float scale = 1.0F / std::sqrt(static_cast<float>(shape.k_dim));
  const auto attend = [&](const std::byte* k, const std::byte* v) {
    const auto* key = reinterpret_cast<const float*>(k) + size_t{shape.kv_head} * shape.k_dim;
    const auto* value = reinterpret_cast<const float*>(v) + size_t{shape.kv_head} * shape.v_dim;
    softmax.Add(Dot(turned, key) * scale, value);
  };
  // Kept rows: all of them are visible; each run says at which position the query meets its keys.
  for (const KeptRunView& run : view.kept) {
    Rotate(q, run.QueryPosition(row), shape.rope_theta, turned);
    for (uint32_t i = 0; i < run.rows; ++i) {
      attend(run.k + size_t{i} * run.k_stride, run.v + size_t{i} * run.v_stride);
    }
  }
  // Recent rows: the window up to the query's own row, and the sticky ones below the window.
  Rotate(q, row, shape.rope_theta, turned);
  const uint64_t low = view.WindowFirst(row);
  for (const uint64_t p : view.sticky) {
    if (p < low) attend(view.KeyOf(p), view.ValueOf(p));
  }
  for (uint64_t p = low; p <= row; ++p) attend(view.KeyOf(p), view.ValueOf(p));
  softmax.Finish(out);
}
// [end]

}  // namespace kvasir::examples

#endif  // KVASIR_CLIENT_EXAMPLES_ATTENTION_LOOP_H_
