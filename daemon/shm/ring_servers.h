// RingServers: the threads that serve command rings. All rings of a tenant are one thread's, so
// that each thread gives its tenants their turns, and calls of one tenant do not wait for each
// other's share of the core on two processors.
#ifndef KVASIR_DAEMON_SHM_RING_SERVERS_H_
#define KVASIR_DAEMON_SHM_RING_SERVERS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "daemon/shm/ring_server.h"

namespace kvasir {

// Thread-safe. Joins its threads when destroyed.
class RingServers {
 public:
  // A thread for at most so many processors' worth of rings; 0: half of the processors, at most
  // four. The engines need the others, and a thread serves some hundred thousand commands a second.
  static size_t ThreadsFor(uint32_t configured);

  // REQUIRES: threads > 0. As RingServer::Start().
  static absl::StatusOr<std::unique_ptr<RingServers>> Start(SharedCore& shared,
                                                            const RingServer::Options& options,
                                                            size_t threads);

  // As RingServer's; `place` is the same in both.
  absl::Status Add(uint32_t session_id, size_t place, const core::SessionToken& token, int doorbell,
                   RingEnds& ends) {
    return ServerOf(place).Add(session_id, place, token, doorbell, ends);
  }
  void Remove(uint32_t session_id, size_t place) { ServerOf(place).Remove(session_id); }

 private:
  RingServers() = default;
  RingServer& ServerOf(size_t place) { return *servers_[place % servers_.size()]; }

  std::vector<std::unique_ptr<RingServer>> servers_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_SHM_RING_SERVERS_H_
