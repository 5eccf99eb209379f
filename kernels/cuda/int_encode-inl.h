// What a block of EncodeRecords() does: one record in four phases, with all threads of the block at
// the end of each before the next begins.
#ifndef KVASIR_KERNELS_CUDA_INT_ENCODE_INL_H_
#define KVASIR_KERNELS_CUDA_INT_ENCODE_INL_H_

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/element-inl.h"
#include "kernels/cuda/grid.h"
#include "kernels/cuda/int_records.h"
#include "kernels/cuda/rope_turn-inl.h"
#include "kernels/encoding/block_rows.h"
#include "kernels/encoding/int_layout.h"

namespace kvasir::kernels::cuda {

KVASIR_HOST_DEVICE inline uint64_t EncodeBlocks(const RecordEncoding& encoding) {
  return encoding.blocks * encoding.kv_heads;
}

// Shared memory of a block: floats. A row of the tile is one float longer than dims, so that the
// same element of neighbouring rows lies in different banks.
KVASIR_HOST_DEVICE inline uint32_t TileStride(const RecordShape& shape) { return shape.dims + 1; }
KVASIR_HOST_DEVICE inline uint32_t TileFloats(const RecordShape& shape) {
  return shape.rows * TileStride(shape);
}
KVASIR_HOST_DEVICE inline uint32_t EncodeSharedFloats(const RecordShape& shape) {
  return TileFloats(shape) + 2 * static_cast<uint32_t>(IntLayout(shape).scales);
}
// 64 rows of 256 dims and their scales take 66 KiB. CheckRecordEncoding() holds to it.
inline constexpr int kEncodeSharedBytesMax = 72 << 10;

KVASIR_HOST_DEVICE inline float Clean(float value) {
  if (!(value == value)) {
    return 0.0F;
  }
  const float below = value < kTileMax ? value : kTileMax;
  return below > -kTileMax ? below : -kTileMax;
}

// What the phases share.
struct EncodeBlock {
  KVASIR_HOST_DEVICE EncodeBlock(const RecordEncoding& encoding, uint64_t index, float* shared)
      : of(encoding),
        layout(encoding.shape),
        block(index / encoding.kv_heads),
        head(static_cast<uint32_t>(index - block * encoding.kv_heads)),
        count(encoding.counts != nullptr && encoding.counts[block] < encoding.shape.rows
                  ? encoding.counts[block]
                  : encoding.shape.rows),
        stride(TileStride(encoding.shape)),
        tile(shared),
        least(shared + TileFloats(encoding.shape)),
        inverse(least + layout.scales),
        record(encoding.to.At(block, head)) {}

  const RecordEncoding& of;
  const IntLayout layout;
  const uint64_t block;
  const uint32_t head;
  const uint32_t count;  // rows
  const uint32_t stride;
  float* const tile;     // [rows][stride]
  float* const least;    // [scales]
  float* const inverse;  // [scales]
  std::byte* const record;
};

// Rows to clean floats, 16 bytes a load.
KVASIR_HOST_DEVICE inline void EncodeLoad(const EncodeBlock& in, RowType type, uint32_t thread) {
  const uint32_t dims = in.of.shape.dims;
  const uint32_t chunks = dims / 8;
  const auto element = static_cast<uint32_t>(ElementBytes(type));
  for (uint32_t item = thread; item < in.count * chunks; item += kThreads) {
    const uint32_t row = item / chunks;
    const uint32_t dim = (item - row * chunks) * 8;
    const std::byte* from = in.of.from.At(in.block * in.of.shape.rows + row);
    const Eight eight = LoadEight(type, from + (uint64_t{in.head} * dims + dim) * element, 8);
    for (uint32_t i = 0; i < 8; ++i) {
      in.tile[row * in.stride + dim + i] = Clean(eight.x[i]);
    }
  }
}

KVASIR_HOST_DEVICE inline void EncodeTurn(const EncodeBlock& in, uint32_t thread) {
  const uint32_t pairs = in.of.table.pairs;
  if (in.of.deltas == nullptr) {
    return;
  }
  const bool interleaved = in.of.pairing == RopePairing::kInterleaved;
  for (uint32_t item = thread; item < in.count * pairs; item += kThreads) {
    const uint32_t row = item / pairs;
    const uint32_t pair = item - row * pairs;
    const int64_t delta = in.of.deltas[in.block * in.of.shape.rows + row];
    if (delta == 0) {
      continue;
    }
    const Turn turn = TurnOf(in.of.table, delta, pair);
    float& a = in.tile[row * in.stride + (interleaved ? 2 * pair : pair)];
    float& b = in.tile[row * in.stride + (interleaved ? 2 * pair + 1 : pair + pairs)];
    const float x = a;
    const float y = b;
    a = Clean(x * turn.cosine - y * turn.sine);
    b = Clean(y * turn.cosine + x * turn.sine);
  }
}

// As scalar_int_record.cc has them.
KVASIR_HOST_DEVICE inline uint16_t HalfBelow(float value) {
  const uint16_t half = FloatToF16(value);
  if (F16ToFloat(half) <= value) {
    return half;
  }
  return static_cast<uint16_t>((half & 0x8000U) != 0 ? half + 1 : half - 1);
}
KVASIR_HOST_DEVICE inline uint16_t HalfAbove(float value) {
  const uint16_t half = FloatToF16(value);
  return static_cast<uint16_t>(F16ToFloat(half) < value ? half + 1 : half);
}

// Scale and zero of a channel (keys), or of a row's group of channels (values).
KVASIR_HOST_DEVICE inline void EncodeScale(const EncodeBlock& in, uint32_t thread) {
  const auto rows = static_cast<uint32_t>(in.layout.rows);
  const auto dims = static_cast<uint32_t>(in.layout.dims);
  for (uint32_t i = thread; i < in.layout.scales; i += kThreads) {
    const uint32_t row = in.layout.key ? 0 : i % rows;
    const uint32_t dim = in.layout.key ? i : i / rows * static_cast<uint32_t>(kIntGroupDims);
    const uint32_t left = dims - dim < kIntGroupDims ? dims - dim : uint32_t{kIntGroupDims};
    const uint32_t elements = in.layout.key ? in.count : left;
    float low = 0;
    float high = 0;
    for (uint32_t j = 0; j < elements && row < in.count; ++j) {
      // Each row begins elsewhere: threads that walk along rows would meet in one bank.
      const uint32_t at =
          in.layout.key ? j * in.stride + dim : row * in.stride + dim + (j + row) % elements;
      const float x = in.tile[at];
      low = j == 0 || x < low ? x : low;
      high = j == 0 || x > high ? x : high;
    }
    // Adding 0 makes 0 of -0, which of several zeros is least or largest depends on the order.
    const uint16_t zero = HalfBelow(low + 0.0F);
    const float least = F16ToFloat(zero);
    const uint16_t scale = HalfAbove((high - least + 0.0F) / static_cast<float>(in.layout.levels));
    in.least[i] = least;
    in.inverse[i] = scale == 0 ? 0.0F : 1.0F / F16ToFloat(scale);
    reinterpret_cast<uint16_t*>(in.record)[i] = scale;
    reinterpret_cast<uint16_t*>(in.record + in.layout.ZerosAt())[i] = zero;
  }
}

// The product rounded to an integer, halves to even, in one rounding: behind 1.5 * 2^23 floats are
// whole numbers. REQUIRES: 0 <= a * b < 2^22.
KVASIR_HOST_DEVICE inline uint32_t RoundProduct(float a, float b) {
  constexpr float kWhole = 12582912.0F;
  return std::bit_cast<uint32_t>(std::fma(a, b, kWhole)) - std::bit_cast<uint32_t>(kWhole);
}

// A thread makes whole words of codes: neighbours write neighbouring words.
KVASIR_HOST_DEVICE inline void EncodeCodes(const EncodeBlock& in, uint32_t thread) {
  const auto per_word = static_cast<uint32_t>(in.layout.per_word);
  const auto bits = static_cast<uint32_t>(in.layout.bits);
  const auto dims = static_cast<uint32_t>(in.layout.dims);
  const auto strips = static_cast<uint32_t>(in.layout.strips);
  const auto stretch = static_cast<uint32_t>(in.layout.stretch);
  const auto run = static_cast<uint32_t>(kIntRunRows);
  const uint32_t words = static_cast<uint32_t>(in.layout.rows) * dims / per_word;
  auto* to = reinterpret_cast<uint32_t*>(in.record + in.layout.CodesAt());
  for (uint32_t word = thread; word < words; word += kThreads) {
    uint32_t codes = 0;
    for (uint32_t i = 0; i < per_word; ++i) {
      const uint32_t row =
          in.layout.key ? word % run + run * (i % strips) : word / dims * per_word + i;
      const uint32_t dim = in.layout.key ? word / run + stretch * (i / strips) : word % dims;
      if (row < in.count) {
        const auto scale = static_cast<uint32_t>(in.layout.ScaleOf(row, dim));
        const float above = in.tile[row * in.stride + dim] - in.least[scale];
        codes |= RoundProduct(above, in.inverse[scale]) << (bits * i);
      }
    }
    to[word] = codes;
  }
}

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_INT_ENCODE_INL_H_
