#include "daemon/core/tenant_rules.h"

#include <algorithm>

#include "base/error.h"

namespace kvasir::core {
namespace {

// The first component, which goes from the path. REQUIRES: the path begins with '/'.
std::string_view TakePart(std::string_view* path) {
  path->remove_prefix(1);
  const size_t end = std::min(path->find('/'), path->size());
  const std::string_view part = path->substr(0, end);
  path->remove_prefix(end);
  return part;
}

}  // namespace

absl::Status CheckCgroupPattern(std::string_view pattern) {
  if (pattern.size() > kCgroupPatternBytesMax) {
    return InvalidArgument("too long: bytes={} max={}", pattern.size(), kCgroupPatternBytesMax);
  }
  if (pattern.empty() || pattern.front() != '/') return InvalidArgument("does not begin with /");
  size_t parts = 0;
  while (!pattern.empty()) {
    const std::string_view part = TakePart(&pattern);
    ++parts;
    if (part.empty()) return InvalidArgument("has an empty component: component={}", parts);
    if (part == "." || part == "..") {
      return InvalidArgument("has a component that is no name: component={} given={}", parts, part);
    }
    if (part != "*" && part.find('*') != std::string_view::npos) {
      return InvalidArgument("has a * that is no whole component: component={} given={}", parts,
                             part);
    }
  }
  if (parts > kCgroupPatternPartsMax) {
    return InvalidArgument("has too many components: count={} max={}", parts,
                           kCgroupPatternPartsMax);
  }
  return absl::OkStatus();
}

size_t TenantRules::AddNode() {
  nodes_.emplace_back();
  return nodes_.size() - 1;
}

void TenantRules::AddCgroup(std::string_view pattern, size_t tenant) {
  size_t at = 0;
  while (!pattern.empty()) {
    const std::string_view part = TakePart(&pattern);
    std::optional<size_t> next = nodes_[at].any;
    if (part != "*") {
      const auto found = nodes_[at].named.find(part);
      next = found != nodes_[at].named.end() ? std::optional(found->second) : std::nullopt;
    }
    if (!next) {
      next = AddNode();
      if (part == "*") {
        nodes_[at].any = next;
      } else {
        nodes_[at].named.emplace(part, *next);
      }
    }
    at = *next;
  }
  nodes_[at].tenant = tenant;
}

// Names first: of two patterns with equally many components the one that is met first stays.
void TenantRules::FindBelow(size_t node, size_t depth, std::string_view rest, Match* best) const {
  const Node& at = nodes_[node];
  if (at.tenant && depth > best->depth) *best = {depth, at.tenant};
  if (rest.empty() || rest.front() != '/') return;
  const std::string_view part = TakePart(&rest);
  if (part.empty()) return;
  const auto found = at.named.find(part);
  if (found != at.named.end()) FindBelow(found->second, depth + 1, rest, best);
  if (at.any) FindBelow(*at.any, depth + 1, rest, best);
}

std::optional<size_t> TenantRules::Find(uint32_t uid, uint32_t gid, std::string_view cgroup) const {
  Match best;
  FindBelow(0, 0, cgroup, &best);
  if (best.tenant) return best.tenant;
  if (const auto found = uids_.find(uid); found != uids_.end()) return found->second;
  if (const auto found = gids_.find(gid); found != gids_.end()) return found->second;
  return default_;
}

}  // namespace kvasir::core
