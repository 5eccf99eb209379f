// TenantRules: which tenant a peer is of, by what the operator wrote. Pure.
//
// The most telling rule decides: a cgroup before a uid, a uid before a gid, and last the default.
// Of several cgroup patterns that match it is the one with most components; of equally many the one
// that, from the left, first says a name where the other says "*".
#ifndef KVASIR_DAEMON_CORE_TENANT_RULES_H_
#define KVASIR_DAEMON_CORE_TENANT_RULES_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/status.h>

namespace kvasir::core {

inline constexpr size_t kCgroupPatternBytesMax = 512;
inline constexpr size_t kCgroupPatternPartsMax = 32;

// A pattern is a path of cgroup v2, such as "/system.slice/llm-a.service". It matches that cgroup
// and all below it; a component "*" matches any one. Errors: kInvalidArgument saying what is wrong.
absl::Status CheckCgroupPattern(std::string_view pattern);

// Thread-safe once all rules are in: Find() changes nothing.
class TenantRules {
 public:
  // `tenant` is the caller's number. Of two rules with the same uid, gid or pattern the later one
  // stays; the configuration has none. REQUIRES: CheckCgroupPattern() took the pattern.
  void AddUid(uint32_t uid, size_t tenant) { uids_[uid] = tenant; }
  void AddGid(uint32_t gid, size_t tenant) { gids_[gid] = tenant; }
  void AddCgroup(std::string_view pattern, size_t tenant);
  // Of whom no rule names.
  void set_default(size_t tenant) { default_ = tenant; }

  // `cgroup` is a path, or "" for none that is known; any bytes are safe. Nothing: it has no
  // tenant.
  // Cost: a map look-up for each component, and for each that a "*" of the rules doubles.
  std::optional<size_t> Find(uint32_t uid, uint32_t gid, std::string_view cgroup) const;

 private:
  struct Node {
    std::map<std::string, size_t, std::less<>> named;  // numbers of nodes
    std::optional<size_t> any;                         // of "*"
    std::optional<size_t> tenant;
  };
  struct Match {
    size_t depth = 0;
    std::optional<size_t> tenant = {};
  };
  size_t AddNode();
  void FindBelow(size_t node, size_t depth, std::string_view rest, Match* best) const;

  std::map<uint32_t, size_t> uids_, gids_;
  std::optional<size_t> default_;
  std::vector<Node> nodes_ = std::vector<Node>(1);  // the first one is the root
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_TENANT_RULES_H_
