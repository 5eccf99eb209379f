#include "daemon/control/caller.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"

#include <sodium.h>

namespace kvasir {

CallerRegistry::CallerRegistry(std::vector<uint32_t> admin_uids)
    : admin_uids_([&] {
        admin_uids.push_back(0);
        admin_uids.push_back(::geteuid());
        return std::move(admin_uids);
      }()) {}

void CallerRegistry::Register(int fd, const PeerCredentials& peer) {
  MutexLock lock(mutex_);
  peers_[fd] = peer;
}

absl::StatusOr<PeerCredentials> CallerRegistry::PeerOf(const grpc::ServerContext& context) const {
  const std::string name = context.peer();  // "fd:N"
  const auto colon = name.rfind(':');
  if (colon != std::string::npos) {
    char* end = nullptr;
    const long fd = std::strtol(name.c_str() + colon + 1, &end, 10);
    MutexLock lock(mutex_);
    const auto found = peers_.find(static_cast<int>(fd));
    if (*end == '\0' && found != peers_.end()) return found->second;
  }
  return Unauthenticated("the connection has no credentials: peer={}", name);
}

bool CallerRegistry::IsAdmin(const PeerCredentials& peer) const {
  return std::find(admin_uids_.begin(), admin_uids_.end(), peer.uid) != admin_uids_.end();
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
                                         const PeerCredentials& peer) {
  KVASIR_ASSIGN_OR_RETURN(core::Session * session, core.FindSession(token));
  const absl::StatusOr<core::Tenant*> tenant = core.TenantOf(peer.uid);
  if (!tenant.ok() || *tenant != &session->tenant) {
    core.CountRejected(session->tenant);
    return Unauthenticated("the session token belongs to another tenant: uid={}", peer.uid);
  }
  return session;
}

}  // namespace kvasir
