// What the plain and the vector code of row_code.h share.
#ifndef KVASIR_KERNELS_ENCODING_ROW_CODE_PARTS_H_
#define KVASIR_KERNELS_ENCODING_ROW_CODE_PARTS_H_

#include <cstddef>

#include "kernels/encoding/row_code.h"

namespace kvasir::kernels {

inline constexpr size_t kRotatedDimsMax = 256;

// The value of each code, ascending, 1 << shape.bits of them.
const float* RotatedLevels(const RotatedRow& shape);

// The norm in the first byte of a row; 0 is a row of zeros.
float RotatedNorm(const std::byte* code);

// Adds a sum of rows in the turned space to one of plain rows. `turned` is used up.
void AddTurnedBack(float* turned, size_t dims, float* sum);

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_ENCODING_ROW_CODE_PARTS_H_
