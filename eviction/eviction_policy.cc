#include "eviction/eviction_policy.h"

#include "base/error.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace kvasir::eviction {

absl::Status EvictionPolicy::RestoreLearned(std::string_view bytes) {
  if (bytes.empty()) return absl::OkStatus();
  return InvalidArgument("this policy learns nothing: eviction={} bytes={} max=0", name(),
                         bytes.size());
}

std::string Explain(const Eviction& eviction) {
  const EvictionReason& reason = eviction.reason;
  std::string text = fmt::format("victim={} list={}", eviction.key.ToHex(), reason.list);
  if (reason.scored) {
    text += fmt::format(" level={} bucket={} index={:.3g} features={}", reason.level, reason.bucket,
                        reason.index, fmt::join(reason.features, ","));
  }
  return text;
}

absl::Status CheckStart(const SequenceStart& start) {
  if (start.chain.empty() || start.chain.size() > kChainBlocksMax) {
    return InvalidArgument("block count of a chain out of bounds: blocks={} min=1 max={}",
                           start.chain.size(), kChainBlocksMax);
  }
  return absl::OkStatus();
}

}  // namespace kvasir::eviction
