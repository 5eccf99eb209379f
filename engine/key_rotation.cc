#include "engine/key_rotation.h"

#include <algorithm>
#include <cstring>

#include <ggml-cpu.h>

namespace kvasir::engine {
namespace {

constexpr uint64_t kEntries = 256;

}  // namespace

void KeyRotation::Cover(uint64_t end) {
  end_ = std::max(end_, end);
  const size_t pairs = rope_.pairs();
  const size_t entry = 2 * pairs;
  if (low_.empty()) {
    low_.resize(kEntries * entry);
    for (uint64_t i = 0; i < kEntries; ++i) {
      rope_.Angles(i, low_.data() + i * entry, low_.data() + i * entry + pairs);
    }
  }
  const uint64_t wanted = (end_ + kEntries - 1) / kEntries;
  const uint64_t known = entry == 0 ? wanted : high_.size() / entry;
  if (wanted <= known) return;
  high_.resize(wanted * entry);
  for (uint64_t i = known; i < wanted; ++i) {
    rope_.Angles(i * kEntries, high_.data() + i * entry, high_.data() + i * entry + pairs);
  }
}

void KeyRotation::TurnTo(uint64_t position, float* cosine, float* sine) const {
  const size_t pairs = rope_.pairs();
  // Positions are read from memory that another process writes.
  const uint64_t at = std::min(position, end_ - 1);
  const float* high = high_.data() + at / kEntries * 2 * pairs;
  const float* low = low_.data() + at % kEntries * 2 * pairs;
  for (size_t j = 0; j < pairs; ++j) {
    cosine[j] = high[j] * low[j] - high[pairs + j] * low[pairs + j];
    sine[j] = high[j] * low[pairs + j] + high[pairs + j] * low[j];
  }
}

void KeyRotation::Rotate(const PlannedRun& planned, SlotRange slots, uint32_t head, uint32_t heads,
                         std::span<float> scratch, std::byte* into) const {
  const size_t width = size_t{heads} * head_dim_;
  const size_t element = type_ == kernels::RowType::kF32 ? sizeof(float) : sizeof(ggml_fp16_t);
  const uint32_t pairs = rope_.pairs();
  float* row = scratch.data();
  float* cosine = row + width;
  float* sine = cosine + pairs;
  for (uint32_t slot = slots.first; slot < slots.last; ++slot, into += width * element) {
    const std::byte* key =
        planned.run.k + size_t{slot} * planned.run.k_stride + size_t{head} * head_dim_ * element;
    if (type_ == kernels::RowType::kF32) {
      std::memcpy(row, key, width * element);
    } else {
      ggml_cpu_fp16_to_fp32(reinterpret_cast<const ggml_fp16_t*>(key), row,
                            static_cast<int64_t>(width));
    }
    uint64_t known = 0;
    for (uint32_t h = 0; h < heads; ++h) {
      const uint64_t position = planned.PositionOf(slot, head + h);
      if (h == 0 || position != known) TurnTo(position, cosine, sine);
      known = position;
      engine::Rotate(cosine, sine, pairs, row + size_t{h} * head_dim_);
    }
    if (type_ == kernels::RowType::kF32) {
      std::memcpy(into, row, width * element);
    } else {
      ggml_cpu_fp32_to_fp16(row, reinterpret_cast<ggml_fp16_t*>(into), static_cast<int64_t>(width));
    }
  }
}

}  // namespace kvasir::engine
