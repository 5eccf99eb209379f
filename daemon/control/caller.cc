#include "daemon/control/caller.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/posix.h"
#include "base/status_macros.h"

#include <sodium.h>

namespace kvasir {

namespace {

// What gRPC calls a connection is its descriptor: "fd:7". -1 for anything else.
int NumberOf(std::string_view connection) {
  constexpr std::string_view kPrefix = "fd:";
  if (!connection.starts_with(kPrefix)) return -1;
  int fd = -1;
  const char* const end = connection.data() + connection.size();
  const auto [stop, error] = std::from_chars(connection.data() + kPrefix.size(), end, fd);
  return error == std::errc() && stop == end ? fd : -1;
}

}  // namespace

CallerRegistry::CallerRegistry(std::vector<uint32_t> admin_uids, uint32_t connections_max)
    : admin_uids_(std::move(admin_uids)), connections_max_(connections_max) {}

void CallerRegistry::ForgetClosed() {
  std::erase_if(peers_, [this](const auto& entry) {
    mutex_.AssertHeld();
    const absl::StatusOr<uint64_t> now = SocketCookieOf(entry.first);
    if (now.ok() && *now == entry.second.cookie) return false;
    --connections_[entry.second.caller.slot];
    return true;
  });
  forget_at_ = std::max<size_t>(64, 2 * peers_.size());
}

absl::Status CallerRegistry::Register(int fd, const core::Peer& peer, size_t slot, Instant now) {
  KVASIR_ASSIGN_OR_RETURN(const uint64_t cookie, SocketCookieOf(fd));
  MutexLock lock(mutex_);
  const auto bar = bars_.find(slot);
  if (bar != bars_.end() && now < bar->second.until) {
    return ResourceExhausted(
        "a connection with too many calls under way was closed, others are taken after a while: "
        "uid={} wait_ms={}",
        peer.uid, std::chrono::ceil<std::chrono::milliseconds>(bar->second.until - now).count());
  }
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

const CallerRegistry::Entry* CallerRegistry::Find(const std::string& connection) const {
  const absl::StatusOr<uint64_t> cookie = SocketCookieOf(NumberOf(connection));
  const auto found = peers_.find(NumberOf(connection));
  return found != peers_.end() && cookie.ok() && *cookie == found->second.cookie ? &found->second
                                                                                 : nullptr;
}

absl::StatusOr<CallerRegistry::Caller> CallerRegistry::CallerOf(
    const std::string& connection) const {
  MutexLock lock(mutex_);
  if (const Entry* const entry = Find(connection)) return entry->caller;
  return Unauthenticated("the connection has no credentials: peer={}", connection);
}

void CallerRegistry::Close(const std::string& connection, Instant now) {
  MutexLock lock(mutex_);
  const Entry* const entry = Find(connection);
  if (entry == nullptr) return;
  Bar& bar = bars_[entry->caller.slot];
  const bool again = bar.time.count() > 0 && now < bar.until + 2 * kBarTimeMax;
  if (!again) bar.time = kBarTime;
  // What was begun before the bar is closed as well, and is no other time.
  if (again && now >= bar.until) bar.time = std::min(2 * bar.time, kBarTimeMax);
  bar.until = std::max(bar.until, now + bar.time);
  const int fd = NumberOf(connection);
  (void)::shutdown(fd, SHUT_RDWR);
  // What it has sent and gRPC has not read yet would be calls, too. A Unix socket holds some 200
  // KiB.
  std::array<std::byte, 64 << 10> ignored;
  for (int i = 0; i < 8 && ::recv(fd, ignored.data(), ignored.size(), MSG_DONTWAIT) > 0; ++i) {
  }
}

bool CallerRegistry::IsAdmin(const core::Peer& peer) const {
  if (std::find(admin_uids_.begin(), admin_uids_.end(), peer.uid) != admin_uids_.end()) return true;
  return !peer.contained && (peer.uid == 0 || peer.uid == ::geteuid());
}

size_t CallerRegistry::size_for_test() const {
  MutexLock lock(mutex_);
  return peers_.size();
}

absl::StatusOr<core::SessionToken> TokenOf(const CallMetadata& metadata) {
  const auto range = metadata.equal_range(kTokenKey);
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
