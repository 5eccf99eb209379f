// Callers: who makes a gRPC call. The credentials are those of the connection (SO_PEERCRED at
// accept); engines also show the token that their data socket was given, and both must be the same
// tenant's.
#ifndef KVASIR_DAEMON_CONTROL_CALLER_H_
#define KVASIR_DAEMON_CONTROL_CALLER_H_

#include <map>
#include <string>
#include <vector>

#include <absl/status/statusor.h>
#include <grpcpp/server_context.h>

#include "base/mutex.h"
#include "base/unix_socket.h"
#include "daemon/core/kv_core.h"

namespace kvasir {

inline constexpr char kTokenKey[] = "kvasir-session-token";

// Thread-safe. Connections are known by their descriptor number, which gRPC reports as the peer's
// name; a number that is used again is registered again before its first call.
class CallerRegistry {
 public:
  explicit CallerRegistry(std::vector<uint32_t> admin_uids);

  void Register(int fd, const PeerCredentials& peer);

  // Errors: kUnauthenticated when the connection is not one that was accepted here.
  absl::StatusOr<PeerCredentials> PeerOf(const grpc::ServerContext& context) const;
  bool IsAdmin(const PeerCredentials& peer) const;

 private:
  const std::vector<uint32_t> admin_uids_;
  mutable Mutex mutex_;
  std::map<int, PeerCredentials> peers_ ABSL_GUARDED_BY(mutex_);
};

// The token that a call carries. Errors: kUnauthenticated when it is missing or not 32 hex digits.
absl::StatusOr<core::SessionToken> TokenOf(const grpc::ServerContext& context);

// The session of the call's token, if the connection belongs to the same tenant.
// REQUIRES: the core's lock is held. Errors: kUnauthenticated.
absl::StatusOr<core::Session*> SessionOf(core::KvCore& core, const core::SessionToken& token,
                                         const PeerCredentials& peer);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_CALLER_H_
