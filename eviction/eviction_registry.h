// The eviction policies of this build, by name: `return-hazard`, `return-hazard:ghost_factor=4`.
// Pure functions; thread-safe. Errors: kInvalidArgument naming what is wrong and what is known.
#ifndef KVASIR_EVICTION_EVICTION_REGISTRY_H_
#define KVASIR_EVICTION_EVICTION_REGISTRY_H_

#include <memory>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

#include "eviction/eviction_policy.h"

namespace kvasir::eviction {

inline constexpr char kDefaultEviction[] = "return-hazard";
inline constexpr char kBelady[] = "belady";

// Names of the policies that need no future, the default first.
const std::vector<std::string_view>& EvictionNames();

// `pin` as in blockwise_policy.h; return-hazard always pins. Only return-hazard has parameters.
absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakeEviction(std::string_view spec,
                                                             uint32_t capacity, bool pin = true);

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_EVICTION_REGISTRY_H_
