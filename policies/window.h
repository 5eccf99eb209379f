// A window of the most recent rows, for rules to stand before: "sinks:size=4|separators|window".
#ifndef KVASIR_POLICIES_WINDOW_H_
#define KVASIR_POLICIES_WINDOW_H_

#include "policies/policy_definition.h"

namespace kvasir {

PolicyDefinition WindowDefinition();

}  // namespace kvasir

#endif  // KVASIR_POLICIES_WINDOW_H_
