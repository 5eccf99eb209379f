// Knorm: the rows whose keys have the smallest norms. No query is looked at.
//
// Source: "A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression" (arXiv
// 2406.11430); KnormPress of kvpress.
#ifndef KVASIR_POLICIES_KNORM_H_
#define KVASIR_POLICIES_KNORM_H_

#include "policies/policy_definition.h"

namespace kvasir {

PolicyDefinition KnormDefinition();

}  // namespace kvasir

#endif  // KVASIR_POLICIES_KNORM_H_
