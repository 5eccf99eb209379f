// The plain form of tm_record.h. What decides bytes is computed in the order that docs/encodings.md
// gives, operation by operation: the vector code does the same.
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/encoding/tm_format.h"
#include "kernels/encoding/tm_record.h"

namespace kvasir::kernels::tm::scalar {
namespace {

using Column = std::array<float, kRecordRowsMax>;

// Hadamard transform of the first `rows`, natural order, without the factor.
void Mix(uint32_t rows, Column& x) {
  for (const uint32_t stride : {8U, 16U, 32U, 1U, 2U, 4U}) {
    for (uint32_t i = 0; i < rows && stride < rows; ++i) {
      if ((i & stride) == 0) {
        const float a = x[i], b = x[i + stride];
        x[i] = a + b;
        x[i + stride] = a - b;
      }
    }
  }
}

float MeanOfColumn(const float* column, uint32_t dims, uint32_t filled) {
  float sums[4] = {};
  for (uint32_t row = 0; row < filled; ++row) {
    sums[row % 4] += column[size_t{row} * dims];
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) / static_cast<float>(filled);
}

// Writes the means of keys and sets `means` to what a reader makes of them.
void EncodeMeans(const RecordShape& shape, const float* tile, uint32_t filled, std::byte* record,
                 float* means) {
  float most = 0;
  for (uint32_t c = 0; c < shape.dims; ++c) {
    means[c] = MeanOfColumn(tile + c, shape.dims, filled);
    most = std::max(most, std::abs(means[c]));
  }
  StoreHalf(most / 127.0F, record + kMeanScaleAt);
  const float scale = LoadHalf(record + kMeanScaleAt);
  for (uint32_t c = 0; c < shape.dims; ++c) {
    const float code =
        scale == 0 ? 0.0F : std::clamp(std::nearbyint(means[c] / scale), -127.0F, 127.0F);
    record[SideAt(shape) + c] = static_cast<std::byte>(static_cast<int8_t>(code));
    means[c] = scale * code;
  }
}

uint32_t NormCode(const float* row, uint32_t dims) {
  float sums[16] = {};
  for (uint32_t c = 0; c < dims; ++c) {
    sums[c % 16] += row[c] * row[c];
  }
  float four[4];
  for (size_t i = 0; i < 4; ++i) {
    four[i] = (sums[i] + sums[i + 8]) + (sums[i + 4] + sums[i + 12]);
  }
  const float sum = (four[0] + four[2]) + (four[1] + four[3]);
  return NormCodeOf(sum / static_cast<float>(dims));
}

// Greedy: one plane after the other to the channel that gains most by it.
void Allocate(const RecordShape& shape, const float* gains, uint32_t* planes) {
  std::fill_n(planes, shape.dims, 0U);
  for (uint32_t given = 0; given < shape.code_planes; ++given) {
    uint32_t best = shape.dims;
    for (uint32_t c = 0; c < shape.dims; ++c) {
      if (planes[c] < kCodePlanesMax &&
          (best == shape.dims ||
           gains[c] * kGains[planes[c]] > gains[best] * kGains[planes[best]])) {
        best = c;
      }
    }
    ++planes[best];
  }
}

// The code of the level nearest to y: by magnitude, mirrored for what is not above zero.
uint32_t CodeOf(float y, float scale, uint32_t planes) {
  uint32_t node = 1;
  for (uint32_t step = 1; step < planes; ++step) {
    node = 2 * node + (std::abs(y) > kBoundaries.of[planes][node] * scale ? 1 : 0);
  }
  const auto half = static_cast<uint32_t>(Levels(planes));
  return y > 0 ? node : 2 * half - 1 - node;
}

void EncodePlanes(const RecordShape& shape, const Column& y, float scale, uint32_t planes,
                  std::byte* words) {
  const size_t bytes = shape.rows / 8;
  std::fill_n(words, planes * bytes, std::byte{0});
  for (uint32_t row = 0; row < shape.rows && planes > 0; ++row) {
    const uint32_t code = CodeOf(y[row], scale, planes);
    for (uint32_t plane = 0; plane < planes; ++plane) {
      words[plane * bytes + row / 8] |=
          std::byte{static_cast<uint8_t>((code >> plane & 1U) << row % 8)};
    }
  }
}

float LevelAt(const std::byte* words, uint32_t rows, uint32_t planes, uint32_t row) {
  uint32_t code = 0;
  for (uint32_t plane = 0; plane < planes; ++plane) {
    const auto byte = std::to_integer<uint32_t>(words[plane * (rows / 8) + row / 8]);
    code |= (byte >> (row % 8) & 1U) << plane;
  }
  const auto half = static_cast<uint32_t>(Levels(planes));
  return code >= half ? LevelsOf(planes)[code - half] : -LevelsOf(planes)[half - 1 - code];
}

// A record's channels one by one: visit(c, scale, planes, words), in order; none of a damaged one.
template <class Visit>
void ForEachChannel(const RecordShape& shape, const std::byte* record, const Visit& visit) {
  const Channels channels(shape, record);
  if (!channels.Fits(shape)) {
    return;
  }
  const float scale = LoadHalf(record);
  for (uint32_t c = 0; c < shape.dims; ++c) {
    if (channels.planes[c] > 0) {
      const auto steps = std::to_integer<uint32_t>(record[kDescriptorsAt + c]) >> kScaleShift;
      visit(c, scale * ScaleFactor(steps), uint32_t{channels.planes[c]},
            record + PlanesAt(shape) + size_t{channels.WordOf(c)} * (shape.rows / 8));
    }
  }
}

float MeanOf(const RecordShape& shape, const std::byte* record, uint32_t c) {
  return LoadHalf(record + kMeanScaleAt) *
         static_cast<float>(static_cast<int8_t>(record[SideAt(shape) + c]));
}

// What undoes sign, transform and norm of a row.
float RowFactor(const RecordShape& shape, const std::byte* record, uint32_t row) {
  const float sign = SignOf(shape.rows, row) / RootOf(shape.rows);
  return shape.plane == RecordPlane::kKey
             ? sign
             : sign * NormFactor(std::to_integer<uint32_t>(record[SideAt(shape) + row]));
}

}  // namespace

void Encode(const RecordShape& shape, const float* tile, uint32_t filled,
            std::span<const float> weights, std::byte* record) {
  const uint32_t rows = shape.rows, dims = shape.dims;
  const bool keys = shape.plane == RecordPlane::kKey;
  std::vector<float> means(dims, 0.0F), factors(rows, 0.0F), gains(dims), scales(dims);
  StoreHalf(0, record + kMeanScaleAt);
  if (keys) {
    EncodeMeans(shape, tile, filled, record, means.data());
  }
  for (uint32_t row = 0; row < rows; ++row) {
    factors[row] = row < filled ? SignOf(rows, row) : 0.0F;
    if (!keys) {
      const uint32_t code = row < filled ? NormCode(tile + size_t{row} * dims, dims) : 0;
      record[SideAt(shape) + row] = static_cast<std::byte>(code);
      factors[row] *= NormFactor(256 - code);
    }
  }
  std::vector<Column> mixed(dims);
  std::vector<float> variances(dims);
  for (uint32_t c = 0; c < dims; ++c) {
    for (uint32_t row = 0; row < rows; ++row) {
      mixed[c][row] =
          row < filled ? (tile[size_t{row} * dims + c] - means[c]) * factors[row] : 0.0F;
    }
    Mix(rows, mixed[c]);
    float sum = 0;
    for (uint32_t i = 0; i < rows; i += 8) {
      float square[8];
      for (uint32_t j = 0; j < 8; ++j) {
        square[j] = mixed[c][i + j] * mixed[c][i + j];
      }
      sum += ((square[0] + square[1]) + (square[2] + square[3])) +
             ((square[4] + square[5]) + (square[6] + square[7]));
    }
    variances[c] = sum / static_cast<float>(rows * rows);
  }
  const float scale = EncodeScale(*std::max_element(variances.begin(), variances.end()), record);
  std::vector<uint32_t> steps(dims), planes(dims);
  for (uint32_t c = 0; c < dims; ++c) {
    steps[c] = ScaleSteps(scale * scale / variances[c]);
    scales[c] = scale * ScaleFactor(steps[c]);
    gains[c] = (weights.empty() ? 1.0F : CleanWeight(weights[c])) * (scales[c] * scales[c]);
  }
  Allocate(shape, gains.data(), planes.data());
  std::byte* words = record + PlanesAt(shape);
  for (uint32_t c = 0; c < dims; ++c) {
    record[kDescriptorsAt + c] = static_cast<std::byte>(planes[c] | steps[c] << kScaleShift);
    EncodePlanes(shape, mixed[c], scales[c] * RootOf(rows), planes[c], words);
    words += size_t{planes[c]} * (rows / 8);
  }
}

void Scores(const RecordShape& shape, const std::byte* record, const float* q, uint32_t queries,
            float* scores) {
  for (uint32_t query = 0; query < queries; ++query) {
    const float* of = q + size_t{query} * shape.dims;
    Column mixed = {};
    ForEachChannel(shape, record,
                   [&](uint32_t c, float scale, uint32_t planes, const std::byte* words) {
                     for (uint32_t row = 0; row < shape.rows; ++row) {
                       mixed[row] += of[c] * scale * LevelAt(words, shape.rows, planes, row);
                     }
                   });
    Mix(shape.rows, mixed);
    float mean = 0;
    for (uint32_t c = 0; c < shape.dims; ++c) {
      mean += of[c] * MeanOf(shape, record, c);
    }
    for (uint32_t row = 0; row < shape.rows; ++row) {
      scores[size_t{query} * shape.rows + row] = RowFactor(shape, record, row) * mixed[row] + mean;
    }
  }
}

void AddValues(const RecordShape& shape, const std::byte* record, const float* weights,
               uint32_t queries, float* sums) {
  for (uint32_t query = 0; query < queries; ++query) {
    Column mixed = {};
    for (uint32_t row = 0; row < shape.rows; ++row) {
      mixed[row] = weights[size_t{query} * shape.rows + row] * RowFactor(shape, record, row);
    }
    Mix(shape.rows, mixed);
    ForEachChannel(shape, record,
                   [&](uint32_t c, float scale, uint32_t planes, const std::byte* words) {
                     float sum = 0;
                     for (uint32_t row = 0; row < shape.rows; ++row) {
                       sum += mixed[row] * LevelAt(words, shape.rows, planes, row);
                     }
                     sums[size_t{query} * shape.dims + c] += scale * sum;
                   });
  }
}

void Decode(const RecordShape& shape, const std::byte* record, float* rows) {
  const bool keys = shape.plane == RecordPlane::kKey;
  for (uint32_t c = 0; c < shape.dims; ++c) {
    for (uint32_t row = 0; row < shape.rows; ++row) {
      rows[size_t{row} * shape.dims + c] = keys ? MeanOf(shape, record, c) : 0.0F;
    }
  }
  ForEachChannel(
      shape, record, [&](uint32_t c, float scale, uint32_t planes, const std::byte* words) {
        Column mixed = {};
        for (uint32_t row = 0; row < shape.rows; ++row) {
          mixed[row] = scale * LevelAt(words, shape.rows, planes, row);
        }
        Mix(shape.rows, mixed);
        for (uint32_t row = 0; row < shape.rows; ++row) {
          rows[size_t{row} * shape.dims + c] += RowFactor(shape, record, row) * mixed[row];
        }
      });
}

}  // namespace kvasir::kernels::tm::scalar
