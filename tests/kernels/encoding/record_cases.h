// Random shapes of records, and rows to make them of.
#ifndef KVASIR_TESTS_KERNELS_ENCODING_RECORD_CASES_H_
#define KVASIR_TESTS_KERNELS_ENCODING_RECORD_CASES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "kernels/encoding/record.h"
#include "kernels/row_convert.h"
#include "tests/kernels/encoding/guarded.h"

namespace kvasir::kernels::test {

inline uint32_t Pick(std::mt19937& random, uint32_t low, uint32_t high) {
  return std::uniform_int_distribution<uint32_t>(low, high)(random);
}

inline std::vector<float> Randoms(size_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> made(count);
  std::generate(made.begin(), made.end(), [&] { return normal(random); });
  return made;
}

inline constexpr uint32_t kCodecs = 4;

inline RecordShape RandomShape(std::mt19937& random) {
  RecordShape shape;
  shape.codec = static_cast<Codec>(Pick(random, 0, kCodecs - 1));
  shape.plane = static_cast<RecordPlane>(Pick(random, 0, 1));
  shape.type = static_cast<RowType>(Pick(random, 0, 3));
  shape.rows = Pick(random, 0, 1) == 0 ? 32 : 64;
  // Small ones and those of models more often than others.
  shape.dims = 8 * (Pick(random, 0, 1) == 0 ? Pick(random, 1, 10) : Pick(random, 1, 32));
  shape.code_planes = shape.codec == Codec::kTokenMixed
                          ? Pick(random, shape.dims / 2, shape.dims * kCodePlanesMax)
                          : 0;
  return shape;
}

// Normal rows at odd addresses of memory that ends with the last one; keys are turned now and then.
struct RecordCase {
  RecordCase(const RecordShape& wanted, std::mt19937& random) : shape(wanted) {
    const uint32_t count = Pick(random, 0, 3) == 0 ? Pick(random, 1, shape.rows) : shape.rows;
    const size_t row_bytes = shape.dims * ElementBytes(shape.type);
    const size_t stride = row_bytes + Pick(random, 0, 3);
    memory = std::make_unique<Guarded>((count - 1) * stride + row_bytes);
    for (uint32_t row = 0; row < count; ++row) {
      rows.push_back(memory->data() + row * stride);
    }
    std::shuffle(rows.begin(), rows.end(), random);
    sources.assign(rows.begin(), rows.end());
    const std::vector<float> numbers = Randoms(size_t{count} * shape.dims, random);
    for (uint32_t i = 0; i < numbers.size(); ++i) {
      Store(i / shape.dims, i % shape.dims, numbers[i]);
    }
    if (shape.plane == RecordPlane::kKey && Pick(random, 0, 1) == 0) {
      turn.rope.pairing =
          Pick(random, 0, 1) == 0 ? RopePairing::kInterleaved : RopePairing::kHalfSplit;
      turn.rope.rotated_dims = 2 * Pick(random, 1, shape.dims / 2);
      for (uint32_t row = 0; row < count; ++row) {
        deltas.push_back(static_cast<int64_t>(Pick(random, 0, 200)) - 100);
      }
      turn.deltas = deltas;
    }
    if (shape.plane == RecordPlane::kKey && Pick(random, 0, 1) == 0) {
      weights = Randoms(shape.dims, random);
      std::transform(weights.begin(), weights.end(), weights.begin(),
                     [](float x) { return x * x; });
    }
  }
  RecordCase(const RecordCase&) = delete;
  RecordCase& operator=(const RecordCase&) = delete;

  uint32_t Count() const { return static_cast<uint32_t>(rows.size()); }
  void Store(uint32_t row, uint32_t dim, float value) {
    StoreElement(shape.type, rows[row], dim, value);
  }

  RecordShape shape;
  std::unique_ptr<Guarded> memory;
  std::vector<std::byte*> rows;
  std::vector<const std::byte*> sources;
  std::vector<int64_t> deltas;
  RecordTurn turn;
  std::vector<float> weights;
};

}  // namespace kvasir::kernels::test

#endif  // KVASIR_TESTS_KERNELS_ENCODING_RECORD_CASES_H_
