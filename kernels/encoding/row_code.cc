#include "kernels/encoding/row_code.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "kernels/encoding/row_code_parts.h"

namespace kvasir::kernels {
namespace {

constexpr size_t kDimsMin = 16;
constexpr float kElementMax = 65504.0F;

// Lloyd-Max levels of a standard normal variable, ascending, of 2 and of 3 bits.
constexpr float kLevels[2][8] = {{-1.510418F, -0.4527800F, 0.4527800F, 1.510418F},
                                 {-2.151946F, -1.343909F, -0.7560053F, -0.2450942F, 0.2450942F,
                                  0.7560053F, 1.343909F, 2.151946F}};

// Channel c has sign -1 where bit c is set: the first outputs of SplitMix64 from 0.
constexpr uint64_t kSigns[kRotatedDimsMax / 64] = {0xE220A8397B1DCDAFU, 0x6E789E6AA1B965F4U,
                                                   0x06C45D188009454FU, 0xF88BB8A8724C81ECU};

// Rows to sums in the turned space, and back: the matrix is orthogonal and symmetric but for the
// signs.
void Transform(float* row, size_t dims) {
  for (size_t half = 1; half < dims; half *= 2) {
    for (size_t begin = 0; begin < dims; begin += 2 * half) {
      for (size_t i = begin; i < begin + half; ++i) {
        const float a = row[i];
        const float b = row[i + half];
        row[i] = a + b;
        row[i + half] = a - b;
      }
    }
  }
  const float factor = 1.0F / std::sqrt(static_cast<float>(dims));
  for (size_t dim = 0; dim < dims; ++dim) {
    row[dim] *= factor;
  }
}

void FlipSigns(float* row, size_t dims) {
  for (size_t dim = 0; dim < dims; ++dim) {
    row[dim] = (kSigns[dim / 64] >> (dim % 64) & 1U) != 0 ? -row[dim] : row[dim];
  }
}

unsigned CodeAt(const RotatedRow& shape, const std::byte* code, size_t dim) {
  unsigned value = 0;
  for (size_t plane = 0; plane < shape.bits; ++plane) {
    const auto byte = std::to_integer<unsigned>(code[1 + (plane * shape.dims + dim) / 8]);
    value |= (byte >> (dim % 8) & 1U) << plane;
  }
  return value;
}

}  // namespace

const float* RotatedLevels(const RotatedRow& shape) { return kLevels[shape.bits - 2]; }

float RotatedNorm(const std::byte* code) {
  // Attention asks once for each row and pass.
  static const std::array<float, 256> norms = [] {
    std::array<float, 256> table{};
    for (size_t norm = 1; norm < table.size(); ++norm) {
      table[norm] = std::exp2((static_cast<float>(norm) - 128.0F) / 16.0F);
    }
    return table;
  }();
  return norms[std::to_integer<size_t>(*code)];
}

void AddTurnedBack(float* turned, size_t dims, float* sum) {
  Transform(turned, dims);
  FlipSigns(turned, dims);
  for (size_t dim = 0; dim < dims; ++dim) {
    sum[dim] += turned[dim];
  }
}

absl::Status CheckRotatedRow(const RotatedRow& shape) {
  if (!std::has_single_bit(shape.dims) || shape.dims < kDimsMin || shape.dims > kRotatedDimsMax) {
    return InvalidArgument(
        "dims of a coded row are no power of two in bounds: dims={} min={} max={}", shape.dims,
        kDimsMin, kRotatedDimsMax);
  }
  if (shape.bits != 2 && shape.bits != 3) {
    return InvalidArgument("bits of a coded row out of bounds: bits={} min=2 max=3", shape.bits);
  }
  return absl::OkStatus();
}

void EncodeRotatedRow(const RotatedRow& shape, const float* row, std::byte* code) {
  float turned[kRotatedDimsMax];
  double squares = 0;
  for (size_t dim = 0; dim < shape.dims; ++dim) {
    const float x = std::isnan(row[dim]) ? 0.0F : std::clamp(row[dim], -kElementMax, kElementMax);
    turned[dim] = x;
    squares += double{x} * double{x};
  }
  FlipSigns(turned, shape.dims);
  Transform(turned, shape.dims);
  const double rms = std::sqrt(squares / shape.dims);
  const double position = rms > 0 ? std::round(16 * std::log2(rms)) + 128 : 0;
  const auto norm = static_cast<unsigned>(std::clamp(position, 0.0, 255.0));
  const float* levels = RotatedLevels(shape);
  const size_t count = size_t{1} << shape.bits;
  std::memset(code, 0, RotatedRowBytes(shape));
  code[0] = static_cast<std::byte>(norm);
  const float inverse = norm == 0 ? 0.0F : 1.0F / RotatedNorm(code);
  for (size_t dim = 0; dim < shape.dims; ++dim) {
    const float x = turned[dim] * inverse;
    unsigned value = 0;
    for (size_t level = 0; level + 1 < count; ++level) {
      value += x > (levels[level] + levels[level + 1]) / 2 ? 1 : 0;
    }
    for (size_t plane = 0; plane < shape.bits; ++plane) {
      code[1 + (plane * shape.dims + dim) / 8] |=
          static_cast<std::byte>((value >> plane & 1U) << (dim % 8));
    }
  }
}

void DecodeRotatedRow(const RotatedRow& shape, const std::byte* code, float* row) {
  const float weight = 1;
  std::fill(row, row + shape.dims, 0.0F);
  AddRotatedRows(shape, {&code, 1}, &weight, 1, row);
}

namespace scalar {

void AddRotatedRows(const RotatedRow& shape, std::span<const std::byte* const> rows,
                    const float* weights, uint32_t queries, float* sums) {
  for (size_t query = 0; query < queries; ++query) {
    float turned[kRotatedDimsMax] = {};
    for (size_t row = 0; row < rows.size(); ++row) {
      const float weight = weights[query * rows.size() + row] * RotatedNorm(rows[row]);
      for (size_t dim = 0; dim < shape.dims; ++dim) {
        turned[dim] += weight * RotatedLevels(shape)[CodeAt(shape, rows[row], dim)];
      }
    }
    AddTurnedBack(turned, shape.dims, sums + query * shape.dims);
  }
}

}  // namespace scalar
}  // namespace kvasir::kernels
