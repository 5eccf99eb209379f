// Server: the composition root. Builds every object of the daemon and owns every thread.
//
// Start-up: lock file, listening sockets, pool (touched, with progress in the log), core, workers,
// data server, gRPC, metrics, ready. Stop is the reverse: gRPC first, so that no call meets a
// closed session.
#ifndef KVASIR_DAEMON_SERVER_H_
#define KVASIR_DAEMON_SERVER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include <absl/status/statusor.h>
#include <grpcpp/server.h>

#include "allocator/device_memory.h"
#include "allocator/host_pool.h"
#include "base/clock.h"
#include "daemon/config.h"
#include "daemon/control/admin_service.h"
#include "daemon/control/call_bound.h"
#include "daemon/control/call_executor.h"
#include "daemon/control/caller.h"
#include "daemon/control/endpoints.h"
#include "daemon/control/kv_cache_service.h"
#include "daemon/control/read_gate.h"
#include "daemon/handover/handover_worker.h"
#include "daemon/learned_files.h"
#include "daemon/memory_pressure.h"
#include "daemon/metrics.h"
#include "daemon/offload/offload_workers.h"
#include "daemon/pool_size.h"
#include "daemon/shared_core.h"
#include "daemon/shm/data_server.h"
#include "daemon/shm/ring_servers.h"
#include "daemon/store/tier_workers.h"
#include "daemon/time_shares.h"
#include "daemon/workers.h"

namespace kvasir {

// What the service manager has handed over. Sockets that are empty are made from the configuration.
struct Inherited {
  UniqueFd control, data;
  std::vector<NamedFd> kept;  // everything else: of the process before
};

class Server {
 public:
  // Errors: kAlreadyExists when another daemon has the sockets; the pool's errors.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const Config& config, Inherited inherited);
  // Ends calls and sessions, joins threads, removes socket files that it made.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Takes over what may change while it runs (config_schema.h, needs_restart), all or nothing.
  // Errors: kFailedPrecondition naming a key that may not, SetBudgets()'s. One thread at a time.
  absl::Status Reload(const Config& config);

  StatsSnapshot Snapshot();
  uint64_t boot_epoch() const { return boot_epoch_; }
  SharedCore& shared_for_test() { return *shared_; }
  DeviceMemory& device_for_test(size_t pool) { return *devices_[pool]; }

 private:
  size_t SlotOf(const core::Peer& peer) const;  // in calls_
  explicit Server(const Config& config) : config_(config) {}

  absl::Status ClaimSockets(Inherited& inherited);
  absl::Status TakeOverFrom(std::vector<NamedFd> kept);
  absl::Status MakePool();
  absl::Status StartHandover();
  bool HandsOver() const;
  absl::Status StartThreads();
  absl::Status StartGrpc();

  const Config config_;
  uint64_t boot_epoch_ = 0;
  Instant started_{};
  UniqueFd lock_file_;
  UniqueFd wake_;  // eventfd: wakes the data server's thread
  UniqueFd control_listener_, data_listener_;
  std::atomic<uint64_t> unidentified_peers_{0};
  bool remove_control_ = false, remove_data_ = false;
  std::vector<TierPlace> tiers_;  // until their workers have them
  TakenOver taken_;               // until the core and the worker have it
  ChainHasher::Secret secret_{};
  std::vector<std::unique_ptr<DeviceMemory>> devices_;  // by `gpus` of the configuration
  std::unique_ptr<HostPool> pool_;                      // whose extents they may have registered
  std::unique_ptr<SharedCore> shared_;
  std::unique_ptr<LearnedFiles> learned_;
  AuditLog audit_;  // before all who write to it
  std::unique_ptr<CallerRegistry> callers_;
  // By slot: tenants by place, then strangers, then administrators.
  std::unique_ptr<TimeShares> shares_;
  std::unique_ptr<ReadGate> read_gate_;
  std::unique_ptr<CallExecutor> calls_;
  std::unique_ptr<CallBound> call_bound_;
  std::unique_ptr<Workers> workers_;
  std::unique_ptr<OffloadWorkers> offload_workers_;
  std::unique_ptr<TierWorkers> tier_workers_;
  std::unique_ptr<HandoverWorker> handover_;  // null: nothing is handed over
  std::unique_ptr<PoolSize> pool_size_;
  std::unique_ptr<MemoryPressure> pressure_;
  std::unique_ptr<RingServers> rings_;
  std::unique_ptr<DataServer> data_server_;
  std::unique_ptr<KvCacheService> kv_cache_;
  std::unique_ptr<AdminService> admin_;
  std::vector<std::unique_ptr<grpc::Service>> endpoints_;
  std::unique_ptr<grpc::Server> grpc_;
  std::unique_ptr<MetricsEndpoint> metrics_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_SERVER_H_
