#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "kernels/attention.h"

namespace kvasir::kernels {

void AttentionState::Reset(uint32_t queries, uint32_t v_dim) {
  // The lowest finite value, not -infinity: differences of maxima then never become NaN.
  max.assign(queries, std::numeric_limits<float>::lowest());
  sum.assign(queries, 0.0F);
  acc.assign(size_t{queries} * v_dim, 0.0F);
}

void MergeStates(AttentionState& into, const AttentionState& from, uint32_t v_dim) {
  KVASIR_CHECK(into.max.size() == from.max.size() && into.acc.size() == from.acc.size() &&
                   into.acc.size() == into.max.size() * v_dim,
               "merging states of {} and {} queries", into.max.size(), from.max.size());
  for (size_t query = 0; query < into.max.size(); ++query) {
    const float max = std::max(into.max[query], from.max[query]);
    const float keep = std::exp(into.max[query] - max);
    const float add = std::exp(from.max[query] - max);
    into.max[query] = max;
    into.sum[query] = into.sum[query] * keep + from.sum[query] * add;
    float* acc = into.acc.data() + query * v_dim;
    const float* other = from.acc.data() + query * v_dim;
    for (uint32_t dim = 0; dim < v_dim; ++dim) {
      acc[dim] = acc[dim] * keep + other[dim] * add;
    }
  }
}

void FinishState(const AttentionState& state, uint32_t v_dim, float* out) {
  for (size_t query = 0; query < state.max.size(); ++query) {
    const float inverse = state.sum[query] > 0 ? 1.0F / state.sum[query] : 0.0F;
    const float* acc = state.acc.data() + query * v_dim;
    for (uint32_t dim = 0; dim < v_dim; ++dim) {
      out[query * v_dim + dim] = acc[dim] * inverse;
    }
  }
}

}  // namespace kvasir::kernels
