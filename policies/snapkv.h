// SnapKV: once, at the end of the prompt, the rows to which the last queries of the prompt attend.
//
// Score of a row: softmax probability summed over the last window_size queries, pooled over
// neighbours, then averaged over the query heads of a kv head. max_capacity_prompt counts the
// window. A prompt that is not longer stays whole, and rows of the answer all stay.
// Source: SnapKV (arXiv 2404.14469), snapkv_utils.py; the mean over the group is kvpress'.
#ifndef KVASIR_POLICIES_SNAPKV_H_
#define KVASIR_POLICIES_SNAPKV_H_

#include "policies/policy_definition.h"

namespace kvasir {

PolicyDefinition SnapKvDefinition();

}  // namespace kvasir

#endif  // KVASIR_POLICIES_SNAPKV_H_
