// Cosines and sines of position deltas for encoding on the device: the tables of
// kernels/rope_angles.h, all of them, made once a model and copied there.
//
// A delta is 8192 * high + 32 * middle + low; the turn by it is that of the three, one after the
// other. Entries are computed in double on the host, products are rounded to float one by one: the
// same bits as on the CPU (BlockTurn). A `high` outside the table is computed in double on the
// device, by its own cos and sin: the same but for a last bit now and then.
#ifndef KVASIR_KERNELS_CUDA_ROPE_TABLE_H_
#define KVASIR_KERNELS_CUDA_ROPE_TABLE_H_

#include <cstdint>
#include <vector>

#include <absl/status/statusor.h>

#include "kernels/host_device.h"

namespace kvasir::kernels::cuda {

inline constexpr uint32_t kRopeLowBits = 5;
inline constexpr uint32_t kRopeMiddleBits = 8;
inline constexpr uint32_t kRopeHighsMax = 4096;  // 32 million positions each way

// What the kernels take; pointers of the device.
struct RopeTable {
  const float* entries = nullptr;       // [32 + 256 + 2 * highs][2][pairs]: low, middle, high
  const double* frequencies = nullptr;  // [pairs], radians a position
  uint32_t pairs = 0;
  int64_t highs = 0;  // of the table: -highs <= high < highs
};

// The same before it is copied.
struct RopeNumbers {
  std::vector<float> entries;
  std::vector<double> frequencies;
  uint32_t pairs = 0;
  int64_t highs = 0;
};

// For deltas of up to +-`highs` * 8192. Memory: 8 bytes a pair and entry, 289 entries and two more
// a high: 150 KiB for 128 rotated dimensions and one. Errors: kInvalidArgument naming theta (> 0),
// rotated_dims (even, <= 2^16) or highs (<= kRopeHighsMax).
absl::StatusOr<RopeNumbers> MakeRopeNumbers(double theta, uint32_t rotated_dims, uint32_t highs);

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_ROPE_TABLE_H_
