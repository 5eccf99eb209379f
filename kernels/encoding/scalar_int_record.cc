// The plain form of int_record.h, and what needs no other.
#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "kernels/encoding/int_layout.h"
#include "kernels/encoding/int_record.h"

namespace kvasir::kernels::ints {
namespace {

constexpr uint16_t kHalfSign = 0x8000;
constexpr uint16_t kHalfLargest = 0x7BFF;

// The largest f16 that is not above `value`.
uint16_t HalfBelow(float value) {
  const uint16_t half = FloatToF16(value);
  if (F16ToFloat(half) <= value) {
    return half;
  }
  return static_cast<uint16_t>((half & kHalfSign) != 0 ? half + 1 : half - 1);
}

// The smallest f16 that is not below `value`, which is not negative.
uint16_t HalfAbove(float value) {
  const uint16_t half = FloatToF16(value);
  return static_cast<uint16_t>(F16ToFloat(half) < value ? half + 1 : half);
}

float Scale(const std::byte* record, const IntLayout& at, size_t row, size_t dim) {
  return F16ToFloat(LoadHalf(record, at.ScaleOf(row, dim)));
}

float Zero(const std::byte* record, const IntLayout& at, size_t row, size_t dim) {
  return F16ToFloat(LoadHalf(record + at.ZerosAt(), at.ScaleOf(row, dim)));
}

float Code(const std::byte* record, const IntLayout& at, size_t row, size_t dim) {
  uint32_t word = 0;
  std::memcpy(&word, record + at.CodesAt() + at.WordOf(row, dim) * sizeof word, sizeof word);
  return static_cast<float>(word >> at.ShiftOf(row, dim) & at.levels);
}

}  // namespace

uint64_t Bytes(const RecordShape& shape) { return IntLayout(shape).Bytes(); }

absl::Status Check(const RecordShape& shape, const std::byte* record) {
  const IntLayout at(shape);
  for (size_t i = 0; i < at.scales; ++i) {
    const unsigned scale = LoadHalf(record, i);
    if (scale > kHalfLargest) {
      return DataLoss("scale of a record out of bounds: scale[{}]={:#06x} min=0 max={:#06x}", i,
                      scale, kHalfLargest);
    }
    const unsigned zero = LoadHalf(record + at.ZerosAt(), i);
    if ((zero & ~unsigned{kHalfSign}) > kHalfLargest) {
      return DataLoss("zero of a record is not finite: zero[{}]={:#06x} max_magnitude={:#06x}", i,
                      zero, kHalfLargest);
    }
  }
  return absl::OkStatus();
}

namespace scalar {

void Encode(const RecordShape& shape, float* tile, size_t count, std::byte* record) {
  const IntLayout at(shape);
  std::vector<float> least(at.scales, 0.0F);
  std::vector<float> most(at.scales, 0.0F);
  std::vector<bool> seen(at.scales, false);
  for (size_t row = 0; row < count; ++row) {
    for (size_t dim = 0; dim < at.dims; ++dim) {
      const size_t i = at.ScaleOf(row, dim);
      const float x = tile[row * at.dims + dim];
      least[i] = seen[i] ? std::min(least[i], x) : x;
      most[i] = seen[i] ? std::max(most[i], x) : x;
      seen[i] = true;
    }
  }
  std::vector<float> inverse(at.scales);
  for (size_t i = 0; i < at.scales; ++i) {
    // Adding 0 makes 0 of -0, which of several zeros is least or largest depends on the order.
    const uint16_t zero = HalfBelow(least[i] + 0.0F);
    least[i] = F16ToFloat(zero);
    const uint16_t scale = HalfAbove((most[i] - least[i] + 0.0F) / static_cast<float>(at.levels));
    inverse[i] = scale == 0 ? 0.0F : 1.0F / F16ToFloat(scale);
    std::memcpy(record + i * 2, &scale, sizeof scale);
    std::memcpy(record + at.ZerosAt() + i * 2, &zero, sizeof zero);
  }
  std::vector<uint32_t> words(at.rows * at.dims / at.per_word, 0);
  for (size_t row = 0; row < at.rows; ++row) {
    for (size_t dim = 0; dim < at.dims; ++dim) {
      const size_t i = at.ScaleOf(row, dim);
      float& x = tile[row * at.dims + dim];
      x = row < count ? x : least[i];
      const double product = double{x - least[i]} * double{inverse[i]};
      const auto code = static_cast<uint32_t>(std::lrint(product));
      words[at.WordOf(row, dim)] |= code << at.ShiftOf(row, dim);
    }
  }
  std::memcpy(record + at.CodesAt(), words.data(), words.size() * sizeof words[0]);
}

void Scores(const RecordShape& shape, const std::byte* record, const float* q, uint32_t queries,
            float* scores) {
  const IntLayout at(shape);
  for (size_t query = 0; query < queries; ++query) {
    for (size_t row = 0; row < at.rows; ++row) {
      float score = 0;
      for (size_t dim = 0; dim < at.dims; ++dim) {
        const float x =
            Zero(record, at, row, dim) + Scale(record, at, row, dim) * Code(record, at, row, dim);
        score += q[query * at.dims + dim] * x;
      }
      scores[query * at.rows + row] = score;
    }
  }
}

void AddValues(const RecordShape& shape, const std::byte* record, const float* weights,
               uint32_t queries, float* sums) {
  const IntLayout at(shape);
  for (size_t row = 0; row < at.rows; ++row) {
    for (size_t dim = 0; dim < at.dims; ++dim) {
      const float x =
          Zero(record, at, row, dim) + Scale(record, at, row, dim) * Code(record, at, row, dim);
      for (size_t query = 0; query < queries; ++query) {
        sums[query * at.dims + dim] += weights[query * at.rows + row] * x;
      }
    }
  }
}

void Decode(const RecordShape& shape, const std::byte* record, float* rows) {
  const IntLayout at(shape);
  for (size_t row = 0; row < at.rows; ++row) {
    for (size_t dim = 0; dim < at.dims; ++dim) {
      rows[row * at.dims + dim] =
          Zero(record, at, row, dim) + Scale(record, at, row, dim) * Code(record, at, row, dim);
    }
  }
}

}  // namespace scalar
}  // namespace kvasir::kernels::ints
