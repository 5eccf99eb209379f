// TOVA: the rows to which the last query attends most, one set for all heads of a layer.
//
// Score: softmax probability of the last query alone, over all heads; the last row itself stays.
// The paper decides at each step. Source: TOVA (arXiv 2401.06104).
#ifndef KVASIR_POLICIES_TOVA_H_
#define KVASIR_POLICIES_TOVA_H_

#include "policies/policy_definition.h"

namespace kvasir {

PolicyDefinition TovaDefinition();

}  // namespace kvasir

#endif  // KVASIR_POLICIES_TOVA_H_
