// What a sequence may ask for whose rows lie in the memory of a device.
#include "allocator/device_memory.h"
#include "base/error.h"
#include "daemon/core/sequence.h"

namespace kvasir::core {

absl::Status Sequence::CheckDevice(const PolicyLanes& lanes) const {
  if (context_.device == nullptr) return absl::OkStatus();
  const auto refuse = [&](const char* what) {
    return FailedPrecondition(
        "not possible where rows lie in the memory of a device: {}: device={} retention={}", what,
        context_.device->name(), lanes.spec);
  };
  if (lanes.encoding) return refuse("encoded rows");
  if (lanes.selection) return refuse("a selection of prompt rows by their keys");
  if (lanes.retrieval) return refuse("retrieval of blocks");
  for (const std::unique_ptr<RetentionPolicy>& policy : lanes.lanes) {
    if (policy->Needs().source != ScoreSource::kNone) return refuse("a decision by scores");
  }
  return absl::OkStatus();
}

}  // namespace kvasir::core
