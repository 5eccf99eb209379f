// What encoder and readers of the token-mixed code share: its layout and its constants.
//
// Bytes and reasons: docs/encodings.md. Levels are those of Max (1960) and Lloyd (1982) for a
// normal distribution. Pure functions; nothing here reads more than a record's descriptors.
#ifndef KVASIR_KERNELS_ENCODING_TM_FORMAT_H_
#define KVASIR_KERNELS_ENCODING_TM_FORMAT_H_

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/encoding/record.h"
#include "kernels/row_convert.h"

namespace kvasir::kernels::tm {

// Byte offsets of a record; the scale lies at 0.
inline constexpr size_t kMeanScaleAt = 2;  // values: zero
inline constexpr size_t kDescriptorsAt = 4;
constexpr size_t SideAt(const RecordShape& shape) { return kDescriptorsAt + shape.dims; }
constexpr size_t PlanesAt(const RecordShape& shape) {
  return SideAt(shape) + (shape.plane == RecordPlane::kKey ? shape.dims : shape.rows);
}

// A descriptor: planes of the channel below, steps of 2^(-1/4) of its scale above.
inline constexpr uint32_t kPlanesMask = 7;
inline constexpr uint32_t kScaleShift = 3;
inline constexpr uint32_t kScaleStepsMax = 31;

// Positive levels of 1 to 6 planes, ascending, one code book behind the other; the negative ones
// mirror them.
inline constexpr float kLevels[] = {
    // 1
    0.797885F,
    // 2
    0.452780F, 1.510418F,
    // 3
    0.245094F, 0.756005F, 1.343909F, 2.151946F,
    // 4
    0.128395F, 0.388048F, 0.656759F, 0.942340F, 1.256231F, 1.618046F, 2.069017F, 2.732589F,
    // 5
    0.065890F, 0.198052F, 0.331378F, 0.466700F, 0.604934F, 0.747136F, 0.894565F, 1.048783F,
    1.211804F, 1.386340F, 1.576228F, 1.787233F, 2.028728F, 2.317739F, 2.691120F, 3.260732F,
    // 6
    0.033410F, 0.100281F, 0.167301F, 0.234572F, 0.302199F, 0.370291F, 0.438959F, 0.508325F,
    0.578515F, 0.649669F, 0.721936F, 0.795483F, 0.870493F, 0.947172F, 1.025755F, 1.106507F,
    1.189740F, 1.275815F, 1.365162F, 1.458297F, 1.555853F, 1.658610F, 1.767563F, 1.883999F,
    2.009632F, 2.146831F, 2.299002F, 2.471325F, 2.672293F, 2.917425F, 3.240454F, 3.744117F};
constexpr size_t Levels(uint32_t planes) { return size_t{1} << (planes - 1); }  // positive ones
constexpr const float* LevelsOf(uint32_t planes) { return kLevels + Levels(planes) - 1; }

// Levels by code, ascending, for tables in registers. [planes][code]
struct CodeBooks {
  alignas(64) float levels[kCodePlanesMax + 1][size_t{1} << kCodePlanesMax];
};
constexpr CodeBooks MakeCodeBooks() {
  CodeBooks books = {};
  for (uint32_t planes = 1; planes <= kCodePlanesMax; ++planes) {
    for (size_t i = 0; i < Levels(planes); ++i) {
      books.levels[planes][Levels(planes) + i] = LevelsOf(planes)[i];
      books.levels[planes][Levels(planes) - 1 - i] = -LevelsOf(planes)[i];
    }
  }
  return books;
}
inline constexpr CodeBooks kCodeBooks = MakeCodeBooks();

// The codes of a few channels of 1 or 2 planes as one code of four bits, the first channel's
// lowest: the level of each channel by that code. [planes][channel][code]
inline constexpr uint32_t kJoinedBits = 4;
struct JoinedBooks {
  alignas(64) float levels[3][kJoinedBits][size_t{1} << kJoinedBits];
};
constexpr JoinedBooks MakeJoinedBooks() {
  JoinedBooks books = {};
  for (uint32_t planes = 1; planes <= 2; ++planes) {
    for (uint32_t channel = 0; channel < kJoinedBits / planes; ++channel) {
      for (uint32_t code = 0; code < uint32_t{1} << kJoinedBits; ++code) {
        const uint32_t own = (code >> (channel * planes)) & ((uint32_t{1} << planes) - 1);
        books.levels[planes][channel][code] = kCodeBooks.levels[planes][own];
      }
    }
  }
  return books;
}
inline constexpr JoinedBooks kJoinedBooks = MakeJoinedBooks();

// Borders between neighbouring positive levels as a search by halves meets them: the children of
// node i, from 1 on, are 2i below the border and 2i + 1 above it.
struct Boundaries {
  float of[kCodePlanesMax + 1][32];  // [planes][node]
  // The nodes of the third to the fifth step, for tables in registers. [planes][step - 3][node]
  alignas(64) float tables[kCodePlanesMax + 1][3][16];
};
constexpr Boundaries MakeBoundaries() {
  Boundaries all = {};
  for (uint32_t planes = 2; planes <= kCodePlanesMax; ++planes) {
    for (size_t node = 1; node < Levels(planes); ++node) {
      const size_t nodes = std::bit_floor(node);  // of the step
      const size_t width = Levels(planes) / nodes;
      const float* above = LevelsOf(planes) + (node - nodes) * width + width / 2;
      all.of[planes][node] = static_cast<float>(0.5 * (double{above[-1]} + double{above[0]}));
      if (nodes >= 4) {
        all.tables[planes][std::countr_zero(nodes) - 2][node - nodes] = all.of[planes][node];
      }
    }
  }
  return all;
}
inline constexpr Boundaries kBoundaries = MakeBoundaries();

// By how much one plane more lowers the mean square error of a channel of scale 1 that has 0 to 5.
inline constexpr float kGains[] = {0.6366F, 0.2459F, 0.08296F, 0.025043F, 0.006998F, 0.001859F};

// How the rows of a block are signed before they are mixed, bit set: +1.
constexpr uint64_t SignsOf(uint32_t rows) { return rows == 32 ? 0x794C7D5DU : 0x4E833A1F794C7D5DU; }
inline float SignOf(uint32_t rows, uint32_t row) {
  return ((SignsOf(rows) >> row) & 1U) != 0 ? 1.0F : -1.0F;
}
constexpr float RootOf(uint32_t rows) { return rows == 32 ? 5.656854249F : 8.0F; }

// What undoes signs and transform, by row.
template <uint32_t kRows>
struct RowFactors {
  constexpr RowFactors() {
    for (uint32_t row = 0; row < kRows; ++row) {
      of[row] = ((SignsOf(kRows) >> row) & 1U) != 0 ? 1 / RootOf(kRows) : -1 / RootOf(kRows);
    }
  }
  alignas(64) float of[kRows] = {};
};
template <uint32_t kRows>
inline constexpr RowFactors<kRows> kRowFactors = {};

// 2^(-i/4) and 2^(i/16).
inline constexpr float kQuarters[4] = {1.0F, 0.8408964153F, 0.7071067812F, 0.5946035575F};
alignas(64) inline constexpr float kSixteenths[16] = {
    1.0F,          1.0442737824F, 1.0905077327F, 1.1387886348F, 1.1892071150F, 1.2418578121F,
    1.2968395547F, 1.3542555469F, 1.4142135624F, 1.4768261459F, 1.5422108254F, 1.6104903319F,
    1.6817928305F, 1.7562521604F, 1.8340080864F, 1.9152065614F};

// 2^(-steps/4), steps < 32.
inline float ScaleFactor(uint32_t steps) {
  return std::bit_cast<float>(std::bit_cast<uint32_t>(kQuarters[steps & 3U]) -
                              ((steps >> 2U) << 23U));
}

// 2^((code - 128) / 16), code <= 256.
inline float NormFactor(uint32_t code) {
  return std::bit_cast<float>(std::bit_cast<uint32_t>(kSixteenths[code & 15U]) +
                              ((code >> 4U) << 23U) - (uint32_t{8} << 23U));
}

inline constexpr uint32_t kMantissaMask = 0x7FFFFFU;
// Between steps of 2^(1/8) and of 2^(1/2), which are those of the squares of norms and scales.
inline constexpr float kNormBorders[8] = {1.0442737824F, 1.1387886348F, 1.2418578121F,
                                          1.3542555469F, 1.4768261459F, 1.6104903319F,
                                          1.7562521604F, 1.9152065614F};
inline constexpr float kStepBorders[2] = {1.1892071150F, 1.6817928305F};

inline float LoadHalf(const std::byte* at) {
  uint16_t bits = 0;
  std::memcpy(&bits, at, sizeof bits);
  return F16ToFloat(bits);
}

inline void StoreHalf(float value, std::byte* at) {
  const uint16_t bits = FloatToF16(value);
  std::memcpy(at, &bits, sizeof bits);
}

// The code of a norm by its square: half a step to either side goes to the nearest.
inline uint32_t NormCodeOf(float square) {
  const uint32_t bits = std::bit_cast<uint32_t>(square);
  auto code = static_cast<int32_t>(bits >> 23U) * 8 - 127 * 8 + 128;
  for (const float border : kNormBorders) {
    code += (bits & kMantissaMask) >= (std::bit_cast<uint32_t>(border) & kMantissaMask) ? 1 : 0;
  }
  return static_cast<uint32_t>(std::clamp(code, 0, 255));
}

// Steps below the scale of a record by the square of the ratio; infinity and not-a-number, of
// channels that are constant, give the most.
inline uint32_t ScaleSteps(float square) {
  const uint32_t bits = std::bit_cast<uint32_t>(square) & 0x7FFFFFFFU;
  auto steps = static_cast<int32_t>(bits >> 23U) * 2 - 127 * 2;
  for (const float border : kStepBorders) {
    steps += (bits & kMantissaMask) >= (std::bit_cast<uint32_t>(border) & kMantissaMask) ? 1 : 0;
  }
  return static_cast<uint32_t>(std::clamp(steps, 0, static_cast<int32_t>(kScaleStepsMax)));
}

// Writes the scale of a record, given the largest variance of its channels; what a reader makes of
// it.
inline float EncodeScale(float variance, std::byte* record) {
  StoreHalf(std::min(std::sqrt(variance), 65504.0F), record);
  return LoadHalf(record);
}

// Bounded, so that no product with a scale overflows.
inline float CleanWeight(float weight) { return weight > 0 ? std::min(weight, 0x1p60F) : 0.0F; }

// Where the planes of each channel lie.
struct Channels {
  // Planes of a channel, zeros behind the last channel.
  std::array<uint8_t, kRecordDimsMax> planes;
  // Words before those of the channel: base of its eight channels, and behind that.
  std::array<uint16_t, kRecordDimsMax / 8> base;
  std::array<uint8_t, kRecordDimsMax> behind;
  uint32_t total = 0;     // of all channels
  bool too_many = false;  // in one of the channels

  explicit Channels(const RecordShape& shape, const std::byte* record) {
    constexpr uint64_t kOnes = 0x0101010101010101U;
    planes.fill(0);
    uint64_t excess = 0;
    for (uint32_t c = 0; c < shape.dims; c += 8) {
      uint64_t eight = 0;
      std::memcpy(&eight, record + kDescriptorsAt + c, sizeof eight);
      eight &= kOnes * kPlanesMask;
      excess |= eight & (eight >> 1U) & (eight >> 2U);
      // Byte i of the product is the sum of bytes 0 to i, at most 56.
      const uint64_t sums = eight * kOnes;
      const uint64_t before = sums - eight;
      std::memcpy(planes.data() + c, &eight, sizeof eight);
      std::memcpy(behind.data() + c, &before, sizeof before);
      base[c / 8] = static_cast<uint16_t>(total);
      total += static_cast<uint32_t>(sums >> 56U);
    }
    too_many = (excess & kOnes) != 0;
  }

  uint32_t WordOf(uint32_t channel) const { return base[channel / 8] + uint32_t{behind[channel]}; }
  // Whether the words of all channels lie within the record.
  bool Fits(const RecordShape& shape) const { return !too_many && total == shape.code_planes; }
};

}  // namespace kvasir::kernels::tm

#endif  // KVASIR_KERNELS_ENCODING_TM_FORMAT_H_
