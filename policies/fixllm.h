// FixLLM: the first rows, a window, and between them one row of every `delta`, wherever it falls.
// The baseline of SepLLM that keeps as many tokens but does not look at them.
//
// Key j is visible to query i iff j <= i and (j < init, or i - j < local, or
// (j - init) mod delta == delta - 1). Source: SepLLM (arXiv 2412.12094), table 17.
#ifndef KVASIR_POLICIES_FIXLLM_H_
#define KVASIR_POLICIES_FIXLLM_H_

#include "policies/policy_definition.h"

namespace kvasir {

PolicyDefinition FixLlmDefinition();

}  // namespace kvasir

#endif  // KVASIR_POLICIES_FIXLLM_H_
