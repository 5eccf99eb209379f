#include "eviction/learned_state.h"

#include "base/state_codec.h"

namespace kvasir::eviction {
namespace {

constexpr StateFormat kFormat{"KVLEARND", 1, kLearnedBytesMax, "learned state", "eviction"};

}  // namespace

std::string SealLearned(std::string_view policy, std::string_view body) {
  return SealState(kFormat, policy, body);
}

absl::StatusOr<std::string_view> OpenLearned(std::string_view policy, std::string_view bytes) {
  return OpenState(kFormat, policy, bytes);
}

}  // namespace kvasir::eviction
