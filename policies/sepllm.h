// The definition of SepLLM in its three forms: a static rule (StayPolicy), and the two streaming
// caches (SepStreamPolicy). Source: SepLLM (arXiv 2412.12094); SepCache of transformers.
#ifndef KVASIR_POLICIES_SEPLLM_H_
#define KVASIR_POLICIES_SEPLLM_H_

#include "policies/policy_definition.h"

namespace kvasir {

PolicyDefinition SepLlmDefinition();

}  // namespace kvasir

#endif  // KVASIR_POLICIES_SEPLLM_H_
