#include "daemon/config_forms.h"

#include "base/error.h"
#include "daemon/config_checks.h"
#include "daemon/core/tenant_rules.h"

namespace kvasir {

std::optional<std::pair<std::string, std::string>> FormProblem(ConfigKind kind,
                                                               const std::string& text,
                                                               const PolicyChecks& checks) {
  constexpr std::string_view kNameBytes = "abcdefghijklmnopqrstuvwxyz0123456789_.-";
  switch (kind) {
    case ConfigKind::kSocket:
      if (text.front() == '/' && text.back() != '/') return std::nullopt;
      return std::pair("not an absolute path of a file", "bound=starts with / and ends in a name");
    case ConfigKind::kFolder:
      if (text.empty() || text.front() == '/') return std::nullopt;
      return std::pair("not an absolute path", "bound=empty, or starts with /");
    case ConfigKind::kName:
      if (text.find_first_not_of(kNameBytes) == std::string::npos) return std::nullopt;
      return std::pair("character out of bounds", "bound=a-z 0-9 _ . -");
    case ConfigKind::kDevice:
      if (text == "host" || (text.starts_with("GPU-") && text.size() > 4) ||
          (text.starts_with("cuda:") && text.size() > 5 && text.size() < 9 &&
           text.find_first_not_of("0123456789", 5) == std::string::npos)) {
        return std::nullopt;
      }
      return std::pair("not a device", "expected=cuda:0, GPU-<uuid> or host");
    case ConfigKind::kListen:
      if (text.empty() || ParseListenAddress(text).has_value()) return std::nullopt;
      return std::pair("not a numeric address and port", "expected=127.0.0.1:9464 or [::1]:9464");
    case ConfigKind::kRetention:
    case ConfigKind::kLadder: {
      const absl::Status status = checks.retention ? checks.retention(text) : absl::OkStatus();
      if (status.ok()) return std::nullopt;
      return std::pair("bad retention", "reason=" + MessageOf(status));
    }
    case ConfigKind::kCgroups: {
      const absl::Status status = core::CheckCgroupPattern(text);
      if (status.ok()) return std::nullopt;
      return std::pair("bad cgroup pattern", "reason=" + MessageOf(status));
    }
    default:
      return std::nullopt;
  }
}

}  // namespace kvasir
