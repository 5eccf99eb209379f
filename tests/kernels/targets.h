// Runs a check once for the fallback and for each Highway target of this machine.
#ifndef KVASIR_TESTS_KERNELS_TARGETS_H_
#define KVASIR_TESTS_KERNELS_TARGETS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/row_convert.h"

#include <hwy/targets.h>

namespace kvasir::kernels {

inline void ForEachTarget(const std::function<void()>& check) {
  hwy::SetSupportedTargetsForTest(0);
  // The scalar bit is the fallback entry of every dispatch table; those not compiled lead there
  // too.
  constexpr int64_t kNotCompiled = HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_EMU128 | HWY_SCALAR;
  std::vector<int64_t> targets = {HWY_SCALAR};
  for (int64_t left = hwy::SupportedTargets() & ~kNotCompiled; left != 0; left &= left - 1) {
    targets.push_back(left & -left);
  }
  for (const int64_t target : targets) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    check();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

// `count` normal values of the type, as bytes, behind `offset` unused ones.
inline std::vector<std::byte> RandomRows(RowType type, size_t offset, size_t count,
                                         std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<std::byte> bytes(offset + count * ElementBytes(type));
  for (size_t i = 0; i < count; ++i) {
    StoreElement(type, bytes.data() + offset, i, normal(random));
  }
  return bytes;
}

}  // namespace kvasir::kernels

#endif  // KVASIR_TESTS_KERNELS_TARGETS_H_
