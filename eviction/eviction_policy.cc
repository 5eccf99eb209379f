#include "eviction/eviction_policy.h"

#include "base/error.h"
#include "base/status_macros.h"
#include "eviction/learned_state.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace kvasir::eviction {

std::string EvictionPolicy::SaveLearned() const {
  const std::optional<std::string> body = SaveBody();
  return body ? SealLearned(name(), *body) : std::string();
}

absl::Status EvictionPolicy::RestoreLearned(std::string_view bytes) {
  if (bytes.empty()) return absl::OkStatus();
  KVASIR_ASSIGN_OR_RETURN(const std::string_view body, OpenLearned(name(), bytes));
  return RestoreBody(body);
}

absl::Status EvictionPolicy::RestoreBody(std::string_view body) {
  return InvalidArgument("this policy learns nothing: eviction={} bytes={} max=0", name(),
                         body.size());
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
