// GemFilter: the last query of the prompt chooses tokens in one early layer; the engine prefills
// again with those alone. What is retained of that short prompt: everything.
//
// The selection itself is policies/selection/gemfilter.h. Source: GemFilter (arXiv 2409.17422).
#ifndef KVASIR_POLICIES_GEMFILTER_H_
#define KVASIR_POLICIES_GEMFILTER_H_

#include "policies/policy_definition.h"

namespace kvasir {

PolicyDefinition GemFilterDefinition();

}  // namespace kvasir

#endif  // KVASIR_POLICIES_GEMFILTER_H_
