#include "engine/rope.h"

#include <cmath>

namespace kvasir::engine {

Rope::Rope(const GgufModel& model) {
  const HyperParameters& p = model.parameters();
  frequencies_.resize(p.rotated_dims / 2);
  for (size_t j = 0; j < frequencies_.size(); ++j) {
    const double power = -2.0 * static_cast<double>(j) / static_cast<double>(p.rotated_dims);
    frequencies_[j] = p.rope_scale * std::pow(p.rope_theta, power);
    if (!model.rope_factors().empty()) {
      frequencies_[j] /= static_cast<double>(model.rope_factors()[j]);
    }
  }
}

void Rope::Angles(uint64_t position, float* cosine, float* sine) const {
  for (size_t j = 0; j < frequencies_.size(); ++j) {
    const double angle = static_cast<double>(position) * frequencies_[j];
    cosine[j] = static_cast<float>(std::cos(angle));
    sine[j] = static_cast<float>(std::sin(angle));
  }
}

void Rotate(const float* cosine, const float* sine, uint32_t pairs, float* head) {
  for (uint32_t j = 0; j < pairs; ++j) {
    const float a = head[2 * j];
    const float b = head[2 * j + 1];
    head[2 * j] = a * cosine[j] - b * sine[j];
    head[2 * j + 1] = a * sine[j] + b * cosine[j];
  }
}

}  // namespace kvasir::engine
