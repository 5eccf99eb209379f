// H2O: the heavy hitters, rows with the largest attention mass so far, and the most recent rows.
//
// The mass of a row is summed over all queries since it was written, and over the query heads of a
// kv head. The paper decides at each step; evict_interval trades that for fewer decisions.
// Source: H2O (arXiv 2306.14048), h2o_hf/utils_real_drop.
#ifndef KVASIR_POLICIES_H2O_H_
#define KVASIR_POLICIES_H2O_H_

#include "policies/policy_definition.h"

namespace kvasir {

PolicyDefinition H2oDefinition();

}  // namespace kvasir

#endif  // KVASIR_POLICIES_H2O_H_
