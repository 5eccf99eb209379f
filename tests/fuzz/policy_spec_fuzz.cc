// The policy grammar: any bytes give lanes or an error; the full spec of what is accepted resolves
// to itself.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "policies/policy_registry.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kvasir::PolicyContext context;
  context.layers = 3;
  context.separators = {1, 2};
  context.prompt_rows = size % 7;
  const absl::StatusOr<kvasir::PolicyLanes> lanes =
      kvasir::MakeLanes(std::string_view(reinterpret_cast<const char*>(data), size), context);
  if (!lanes.ok()) return 0;
  const absl::StatusOr<kvasir::PolicyLanes> again = kvasir::MakeLanes(lanes->spec, context);
  if (!again.ok() || again->spec != lanes->spec) std::abort();
  return 0;
}
