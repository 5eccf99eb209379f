// Random keys in runs of rows, at any alignment, for tests of scores and masses.
#ifndef KVASIR_TESTS_KERNELS_KEYS_H_
#define KVASIR_TESTS_KERNELS_KEYS_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/row_convert.h"
#include "kernels/scores.h"
#include "targets.h"

namespace kvasir::kernels {

inline uint32_t Pick(std::mt19937& random, uint32_t low, uint32_t high) {
  return std::uniform_int_distribution<uint32_t>(low, high)(random);
}

inline std::vector<float> RandomFloats(std::mt19937& random, size_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> made(count);
  std::generate(made.begin(), made.end(), [&] { return normal(random); });
  return made;
}

struct Keys {
  std::vector<std::byte> bytes;
  std::vector<KeyRun> runs;
  uint32_t rows = 0;
  std::byte* Row(size_t row) {
    for (const KeyRun& run : runs) {
      if (row < run.rows) {
        return bytes.data() + (run.k - bytes.data()) + row * run.stride;
      }
      row -= run.rows;
    }
    return nullptr;
  }
};

// Runs of 0 to 90 rows with odd strides and starts; the buffer ends with the last row, so that the
// address sanitizer sees a read behind it.
inline Keys MakeKeys(const KeyShape& shape, uint32_t run_count, std::mt19937& random) {
  Keys made;
  const size_t dims = size_t{shape.kv_heads} * shape.dim;
  const size_t row_bytes = dims * ElementBytes(shape.type);
  std::vector<size_t> starts;
  size_t end = Pick(random, 0, 3);
  for (uint32_t i = 0; i < run_count; ++i) {
    KeyRun run;
    run.rows = Pick(random, 0, 90);
    run.stride = static_cast<uint32_t>(row_bytes) + Pick(random, 0, 9);
    starts.push_back(end);
    end += run.rows == 0 ? 0 : (run.rows - 1) * size_t{run.stride} + row_bytes;
    made.rows += run.rows;
    made.runs.push_back(run);
  }
  made.bytes.resize(end);
  std::normal_distribution<float> normal;
  for (uint32_t i = 0; i < run_count; ++i) {
    made.runs[i].k = made.bytes.data() + starts[i];
    for (size_t row = 0; row < made.runs[i].rows; ++row) {
      for (size_t dim = 0; dim < dims; ++dim) {
        StoreElement(shape.type, made.bytes.data() + starts[i] + row * made.runs[i].stride, dim,
                     normal(random));
      }
    }
  }
  return made;
}

inline KeyShape RandomKeyShape(std::mt19937& random, uint32_t kv_heads_max) {
  const RowType types[] = {RowType::kF16, RowType::kBF16, RowType::kF32, RowType::kE4M3};
  const uint32_t dims[] = {1, 7, 8, 16, 33, 64, 72, 80, 96, 127, 128};
  KeyShape shape;
  shape.type = types[Pick(random, 0, 3)];
  shape.kv_heads = Pick(random, 1, kv_heads_max);
  shape.dim = dims[Pick(random, 0, 10)];
  return shape;
}

inline void ExpectClose(const std::vector<float>& got, const std::vector<float>& want,
                        float bound) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], bound * std::max(1.0F, std::abs(want[i]))) << "element " << i;
  }
}

}  // namespace kvasir::kernels

#endif  // KVASIR_TESTS_KERNELS_KEYS_H_
