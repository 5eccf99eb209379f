// Callers: who makes a gRPC call. That is who the connection was of when it was accepted; engines
// also show the token that their data socket was given, and both must be the same tenant's.
#ifndef KVASIR_DAEMON_CONTROL_CALLER_H_
#define KVASIR_DAEMON_CONTROL_CALLER_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <absl/status/statusor.h>
#include <grpcpp/support/string_ref.h>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/unix_socket.h"
#include "daemon/core/kv_core.h"

namespace kvasir {

inline constexpr char kTokenKey[] = "kvasir-session-token";

// Thread-safe. gRPC names a call's connection by its descriptor number alone, and a number is used
// again. That it never brings somebody else's credentials rests on three things: gRPC keeps the
// descriptor open until the last call of its connection has returned; a connection is registered
// before gRPC has it; and an entry counts only while its number is the same socket (SO_COOKIE).
class CallerRegistry {
 public:
  // For so long no connection of a slot is taken once Close() had to end one: to begin calls and to
  // cancel them costs the daemon far more than the peer, who would come back at once. Twice as long
  // each time that it happens again, up to a bound; forgotten after twice the bound without.
  static constexpr std::chrono::milliseconds kBarTime{1000}, kBarTimeMax{32'000};

  // At most so many connections of one slot at a time.
  CallerRegistry(std::vector<uint32_t> admin_uids, uint32_t connections_max);

  // Before gRPC is given the connection. Also forgets connections that are closed. `slot` is the
  // peer's in CallSlots. Errors: ErrnoStatus() for what is no socket, kResourceExhausted
  // (limits.connections_per_tenant_max, or barred).
  absl::Status Register(int fd, const core::Peer& peer, size_t slot, Instant now);

  struct Caller {
    core::Peer peer;
    size_t slot = 0;
  };
  // `connection` is what gRPC calls a call's peer. Errors: kUnauthenticated when it is not one that
  // was accepted here.
  absl::StatusOr<Caller> CallerOf(const std::string& connection) const;
  // Hangs up, and bars the slot. Only while a call of it is there, so that its descriptor is open.
  void Close(const std::string& connection, Instant now);
  // Whom the configuration names (admin.uids); and root and the daemon's own user, but not those of
  // a container: whoever may start one is its root.
  bool IsAdmin(const core::Peer& peer) const;
  size_t size_for_test() const;

 private:
  struct Entry {
    uint64_t cookie = 0;  // of the socket; the kernel gives none twice
    Caller caller;
  };
  // The entry of a connection that is still the one it was, or null.
  const Entry* Find(const std::string& connection) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetClosed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::vector<uint32_t> admin_uids_;
  const uint32_t connections_max_;
  mutable Mutex mutex_;
  std::map<int, Entry> peers_ ABSL_GUARDED_BY(mutex_);              // by descriptor number
  size_t forget_at_ ABSL_GUARDED_BY(mutex_) = 64;                   // so many entries
  std::map<size_t, uint32_t> connections_ ABSL_GUARDED_BY(mutex_);  // by slot
  struct Bar {
    Instant until{};
    std::chrono::milliseconds time{};
  };
  std::map<size_t, Bar> bars_ ABSL_GUARDED_BY(mutex_);  // likewise
};

inline PeerCredentials CredentialsOf(const core::Peer& peer) {
  return {peer.pid, peer.uid, peer.gid};
}

// The token that a call carries. Errors: kUnauthenticated when it is missing or not 32 hex digits.
using CallMetadata = std::multimap<grpc::string_ref, grpc::string_ref>;
absl::StatusOr<core::SessionToken> TokenOf(const CallMetadata& metadata);

// The session of the call's token, if the connection belongs to the same tenant.
// REQUIRES: the core's lock is held. Errors: kUnauthenticated.
absl::StatusOr<core::Session*> SessionOf(core::KvCore& core, const core::SessionToken& token,
                                         const core::Peer& peer);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_CALLER_H_
