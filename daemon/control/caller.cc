#include "daemon/control/caller.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/posix.h"
#include "base/status_macros.h"

#include <sodium.h>

namespace kvasir {

namespace {

absl::StatusOr<uint64_t> CookieOf(int fd) {
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (::getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) != 0) {
    return ErrnoStatus(errno, "getsockopt SO_COOKIE");
  }
  return cookie;
}

}  // namespace

CallerRegistry::CallerRegistry(std::vector<uint32_t> admin_uids, uint32_t connections_max)
    : admin_uids_(std::move(admin_uids)), connections_max_(connections_max) {}

void CallerRegistry::ForgetClosed() {
  std::erase_if(peers_, [this](const auto& entry) {
    mutex_.AssertHeld();
    const absl::StatusOr<uint64_t> now = CookieOf(entry.first);
    if (now.ok() && *now == entry.second.cookie) return false;
    --connections_[entry.second.caller.slot];
    return true;
  });
  forget_at_ = std::max<size_t>(64, 2 * peers_.size());
}

absl::Status CallerRegistry::Register(int fd, const core::Peer& peer, size_t slot) {
  KVASIR_ASSIGN_OR_RETURN(const uint64_t cookie, CookieOf(fd));
  MutexLock lock(mutex_);
  const auto before = peers_.find(fd);  // of a connection that is closed
  if (before != peers_.end()) {
    --connections_[before->second.caller.slot];
    peers_.erase(before);
  }
  if (peers_.size() >= forget_at_ || connections_[slot] >= connections_max_) ForgetClosed();
  if (connections_[slot] >= connections_max_) {
    return ResourceExhausted("too many connections: uid={} limits.connections_per_tenant_max={}",
                             peer.uid, connections_max_);
  }
  ++connections_[slot];
  peers_[fd] = {cookie, {peer, slot}};
  return absl::OkStatus();
}

absl::StatusOr<core::Peer> CallerRegistry::PeerOf(const grpc::ServerContext& context) const {
  KVASIR_ASSIGN_OR_RETURN(Caller caller, CallerOf(context));
  return std::move(caller.peer);
}

absl::StatusOr<CallerRegistry::Caller> CallerRegistry::CallerOf(
    const grpc::ServerContext& context) const {
  const std::string name = context.peer();
  constexpr std::string_view kPrefix = "fd:";
  int fd = -1;
  if (name.starts_with(kPrefix)) {
    const char* const end = name.data() + name.size();
    const auto [stop, error] = std::from_chars(name.data() + kPrefix.size(), end, fd);
    if (error != std::errc() || stop != end) fd = -1;
  }
  const absl::StatusOr<uint64_t> cookie = CookieOf(fd);
  MutexLock lock(mutex_);
  const auto found = peers_.find(fd);
  if (found != peers_.end() && cookie.ok() && *cookie == found->second.cookie) {
    return found->second.caller;
  }
  return Unauthenticated("the connection has no credentials: peer={}", name);
}

bool CallerRegistry::IsAdmin(const core::Peer& peer) const {
  if (std::find(admin_uids_.begin(), admin_uids_.end(), peer.uid) != admin_uids_.end()) return true;
  return !peer.contained && (peer.uid == 0 || peer.uid == ::geteuid());
}

size_t CallerRegistry::size_for_test() const {
  MutexLock lock(mutex_);
  return peers_.size();
}

absl::StatusOr<core::SessionToken> TokenOf(const grpc::ServerContext& context) {
  const auto range = context.client_metadata().equal_range(kTokenKey);
  if (range.first == range.second) return Unauthenticated("the call has no {}", kTokenKey);
  core::SessionToken token;
  size_t bytes = 0;
  const auto& text = range.first->second;
  if (text.size() != 2 * token.bytes.size() ||
      ::sodium_hex2bin(token.bytes.data(), token.bytes.size(), text.data(), text.size(), nullptr,
                       &bytes, nullptr) != 0 ||
      bytes != token.bytes.size()) {
    return Unauthenticated("{} is not 32 hex digits", kTokenKey);
  }
  return token;
}

absl::StatusOr<core::Session*> SessionOf(core::KvCore& core, const core::SessionToken& token,
                                         const core::Peer& peer) {
  KVASIR_ASSIGN_OR_RETURN(core::Session * session, core.FindSession(token));
  const core::Peer& owner = session->peer;
  if (peer.uid == owner.uid && peer.gid == owner.gid && peer.cgroup == owner.cgroup) return session;
  const absl::StatusOr<core::Tenant*> tenant = core.TenantOf(peer);
  if (!tenant.ok() || *tenant != &session->tenant) {
    core.CountRejected(session->tenant);
    return Unauthenticated("the session token belongs to another tenant: uid={} gid={} cgroup={}",
                           peer.uid, peer.gid, peer.cgroup);
  }
  return session;
}

}  // namespace kvasir
