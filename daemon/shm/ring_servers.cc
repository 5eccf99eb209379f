#include "daemon/shm/ring_servers.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "base/status_macros.h"

namespace kvasir {
namespace {

constexpr size_t kThreadsMax = 4;  // unless more are configured

}  // namespace

size_t RingServers::ThreadsFor(uint32_t configured) {
  if (configured > 0) return configured;
  return std::clamp<size_t>(std::thread::hardware_concurrency() / 2, 1, kThreadsMax);
}

absl::StatusOr<std::unique_ptr<RingServers>> RingServers::Start(SharedCore& shared,
                                                                const RingServer::Options& options,
                                                                size_t threads) {
  std::unique_ptr<RingServers> servers(new RingServers());
  for (size_t i = 0; i < threads; ++i) {
    KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<RingServer> server, RingServer::Start(shared, options));
    servers->servers_.push_back(std::move(server));
  }
  return servers;
}

}  // namespace kvasir
