// KeyDiff: the rows whose keys differ most from the mean direction of all keys. No query is looked
// at. Score: -cos(key, mean of the normalised keys). Source: KeyDiff (arXiv 2504.15364).
#ifndef KVASIR_POLICIES_KEYDIFF_H_
#define KVASIR_POLICIES_KEYDIFF_H_

#include "policies/policy_definition.h"

namespace kvasir {

PolicyDefinition KeyDiffDefinition();

}  // namespace kvasir

#endif  // KVASIR_POLICIES_KEYDIFF_H_
