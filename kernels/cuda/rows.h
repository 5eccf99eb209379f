// Where rows lie in device memory: a list of addresses, or a base, a stride and indices.
//
// All pointers are the device's; a host pointer that the device can reach (pinned, registered) is
// as good. Numbers of fp8 rows are as they stand: a scale that an engine keeps beside its rows goes
// into queries or into the scale of scores, and a turn need not know it. What a list holds is not
// checked: it is the caller's, and made by the daemon alone.
#ifndef KVASIR_KERNELS_CUDA_ROWS_H_
#define KVASIR_KERNELS_CUDA_ROWS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/host_device.h"

// The runtime's name of a stream: so headers need none of its own.
struct CUstream_st;

namespace kvasir::kernels::cuda {

template <class Byte>
struct BasicRows {
  Byte* const* addresses = nullptr;   // row i at addresses[i] + offset; or, where null,
  Byte* base = nullptr;               // at base + indices[i] * stride + offset,
  uint64_t stride = 0;                // bytes
  const uint32_t* indices = nullptr;  // null: i itself
  uint64_t offset = 0;                // bytes, e.g. of a head within its row

  KVASIR_HOST_DEVICE Byte* At(uint64_t row) const {
    if (addresses != nullptr) {
      return addresses[row] + offset;
    }
    return base + (indices != nullptr ? indices[row] : row) * stride + offset;
  }
  bool IsSet() const { return addresses != nullptr || base != nullptr; }
};
using RowSource = BasicRows<const std::byte>;
using RowTarget = BasicRows<std::byte>;

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_ROWS_H_
