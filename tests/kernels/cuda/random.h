// Random bytes and rows for tests of kernels. Not thread-safe.
#ifndef KVASIR_TESTS_KERNELS_CUDA_RANDOM_H_
#define KVASIR_TESTS_KERNELS_CUDA_RANDOM_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/row_convert.h"

namespace kvasir::kernels::cuda {

inline std::vector<std::byte> RandomBytes(size_t size, std::mt19937& random) {
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) {
    byte = static_cast<std::byte>(random());
  }
  return bytes;
}

// So many elements of the type, normally distributed.
inline std::vector<std::byte> RandomElements(RowType type, size_t count, std::mt19937& random) {
  std::vector<std::byte> bytes(count * ElementBytes(type));
  std::normal_distribution<float> normal;
  for (size_t i = 0; i < count; ++i) {
    StoreElement(type, bytes.data(), i, normal(random));
  }
  return bytes;
}

inline std::vector<uint32_t> RandomIndices(size_t count, uint32_t below, std::mt19937& random) {
  std::vector<uint32_t> indices(count);
  for (uint32_t& index : indices) {
    index = static_cast<uint32_t>(random() % below);
  }
  return indices;
}

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_TESTS_KERNELS_CUDA_RANDOM_H_
