// How many queries go through a pass over rows together.
#ifndef KVASIR_KERNELS_QUERY_GROUPS_H_
#define KVASIR_KERNELS_QUERY_GROUPS_H_

#include <cstddef>

namespace kvasir::kernels {

// Of the queries left: at most `most`, and all groups as nearly alike as can be. REQUIRES: neither
// is 0.
constexpr size_t GroupSize(size_t queries, size_t most) {
  const size_t groups = (queries + most - 1) / most;
  return (queries + groups - 1) / groups;
}

}  // namespace kvasir::kernels

#endif  // KVASIR_KERNELS_QUERY_GROUPS_H_
