#include "daemon/server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>
#include <utility>

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_posix.h>

#include "allocator/numa_node.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "daemon/control/grpc_sleep.h"
#include "daemon/core_config.h"
#include "daemon/gpus.h"
#include "daemon/profiles.h"

#include <grpc/support/time.h>

namespace kvasir {
namespace {

constexpr int kMessageBytesMax = 5 << 20;  // 2^20 tokens of a prompt take 4 MiB
constexpr int kLookaheadBytes = 1 << 20;
// How long a connection may be still before the daemon asks whether somebody reads it, and how long
// the answer may take.
constexpr int kKeepaliveMs = 5000;
constexpr int kShutdownSeconds = 2;  // for calls that are under way
constexpr int kStreamThreadsMax = 256;

// Of one processor.
double ShareOf(uint32_t percent) {
  if (percent > 0) return percent / 100.0;
  return std::max(1U, std::thread::hardware_concurrency()) / 8.0;
}

Demand ToDemand(Config::Memory::Lock lock) {
  switch (lock) {
    case Config::Memory::Lock::kOff:
      return Demand::kOff;
    case Config::Memory::Lock::kTry:
      return Demand::kTry;
    default:
      return Demand::kRequire;
  }
}

Demand ToDemand(Config::Memory::HugePages pages) {
  switch (pages) {
    case Config::Memory::HugePages::kOff:
      return Demand::kOff;
    case Config::Memory::HugePages::kTry:
      return Demand::kTry;
    default:
      return Demand::kRequire;
  }
}

std::string NameOf(Demand demand) {
  switch (demand) {
    case Demand::kOff:
      return "off";
    case Demand::kTry:
      return "try";
    default:
      return "require";
  }
}

// Held until the daemon ends, so that two daemons never race for a stale socket file.
absl::StatusOr<UniqueFd> TakeLock(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return ErrnoStatus(errno, "open " + path);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return AlreadyExists("another kvasird is running: lock={}", path);
    return ErrnoStatus(errno, "flock " + path);
  }
  return fd;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const Config& config, Inherited inherited) {
  std::unique_ptr<Server> server(new Server(config));
  server->started_ = SystemClock().Now();
  KVASIR_RETURN_IF_ERROR(FillRandom(&server->boot_epoch_, sizeof(server->boot_epoch_)));
  KVASIR_RETURN_IF_ERROR(server->ClaimSockets(inherited));
  KVASIR_ASSIGN_OR_RETURN(server->tiers_, OpenTiers(config.tier));
  KVASIR_RETURN_IF_ERROR(server->TakeOverFrom(std::move(inherited.kept)));
  KVASIR_RETURN_IF_ERROR(server->MakePool());
  if (config.memory.numa_node >= 0) {
    // Before the threads, which take it over. A node of memory alone has no processors.
    const absl::Status near = RunOnNumaNode(config.memory.numa_node);
    if (!near.ok()) spdlog::warn("threads run on any node: {}", MessageOf(near));
  }
  KVASIR_RETURN_IF_ERROR(server->StartThreads());
  KVASIR_RETURN_IF_ERROR(server->StartGrpc());
  if (!config.server.metrics_listen.empty()) {
    KVASIR_ASSIGN_OR_RETURN(server->metrics_,
                            OpenMetricsEndpoint(config.server.metrics_listen,
                                                [raw = server.get()] { return raw->Snapshot(); }));
  }
  return server;
}

absl::Status Server::ClaimSockets(Inherited& inherited) {
  // A conflicting open while an extent is probed would raise SIGIO (allocator/extent.h).
  ::signal(SIGIO, SIG_IGN);
  KVASIR_ASSIGN_OR_RETURN(lock_file_, TakeLock(config_.server.control_socket + ".lock"));
  control_listener_ = std::move(inherited.control);
  data_listener_ = std::move(inherited.data);
  if (!control_listener_) {
    KVASIR_ASSIGN_OR_RETURN(
        control_listener_,
        ListenUnix(config_.server.control_socket, SocketType::kStream, config_.server.socket_mode));
    remove_control_ = true;
  }
  if (!data_listener_) {
    KVASIR_ASSIGN_OR_RETURN(
        data_listener_,
        ListenUnix(config_.server.data_socket, SocketType::kSeqPacket, config_.server.socket_mode));
    remove_data_ = true;
  }
  return absl::OkStatus();
}

bool Server::HandsOver() const {
  return config_.memory.handover == Config::Memory::Handover::kTry && FdStore::IsThere();
}

absl::Status Server::TakeOverFrom(std::vector<NamedFd> kept) {
  FdStore store;
  std::optional<ChainHasher::Secret> fixed;  // by a file
  KVASIR_ASSIGN_OR_RETURN(fixed, PrefixSecretOfFile(config_.tier));
  if (!HandsOver()) {
    for (const NamedFd& one : kept) (void)store.Forget(one.name);
  } else if (!kept.empty()) {
    taken_ = TakeOver(std::move(kept), fixed, store);
  }
  if (fixed) {
    secret_ = *fixed;
  } else if (taken_.index != nullptr) {
    secret_ = taken_.index->secret();
  } else {
    KVASIR_RETURN_IF_ERROR(FillRandom(secret_.data(), secret_.size()));
  }
  return absl::OkStatus();
}

absl::Status Server::MakePool() {
  HostPoolOptions options;
  options.pool_bytes = config_.memory.pool_bytes;
  options.extent_bytes = config_.memory.extent_bytes;
  options.small_extent_bytes = config_.memory.recent_extent_bytes;
  options.ready_bytes = config_.memory.prefault ? config_.memory.ready_bytes : 0;
  options.lock = ToDemand(config_.memory.lock);
  options.huge_pages = ToDemand(config_.memory.huge_pages);
  options.numa_node = config_.memory.numa_node;
  options.adopted_bytes = taken_.extent_bytes;
  options.first_id = taken_.next_extent_id;
  // What has been taken over is to be served soon; the rest is touched meanwhile.
  if (options.adopted_bytes > 0) options.ready_at_start_bytes = 2 * options.extent_bytes;
  uint64_t reported = 0;
  const auto progress = [&reported](uint64_t done, uint64_t wanted) {
    if (done * 10 / wanted == reported * 10 / wanted && done < wanted) return;  // every tenth
    reported = done;
    spdlog::info("touching the pool: done_bytes={} wanted_bytes={}", done, wanted);
  };
  KVASIR_ASSIGN_OR_RETURN(pool_, HostPool::Create(options, progress));
  const HostPoolCounts counts = pool_->counts();
  spdlog::info("pool is ready: pool_bytes={} ready_bytes={} locked={}", counts.pool_bytes,
               counts.ready_bytes, counts.locked);
  return absl::OkStatus();
}

absl::Status Server::StartThreads() {
  core::CoreConfig core = CoreConfigOf(config_);
  KVASIR_ASSIGN_OR_RETURN(core.profiles, LoadProfiles(config_.retention.profile_dir));
  for (const TierPlace& tier : tiers_) core.tiers.push_back(tier.config);
  const bool adopts = taken_.index != nullptr;
  if (adopts) {
    core::TierConfig adopted;
    adopted.name = "handover";
    adopted.adopted = true;
    core.tiers.push_back(adopted);
  }
  core.prefix_secret = secret_;
  KVASIR_ASSIGN_OR_RETURN(devices_, OpenGpus(config_.gpus));
  for (const auto& device : devices_) core.devices.push_back(device.get());
  shared_ = std::make_unique<SharedCore>(std::move(core), *pool_);
  core::Adoption adoption = std::move(taken_.adoption);
  KVASIR_RETURN_IF_ERROR(StartHandover());
  if (adopts) {
    MutexLock lock(shared_->mutex);
    shared_->core.set_now(SystemClock().Now());
    const core::AdoptionCounts counts = shared_->core.Adopt(std::move(adoption));
    spdlog::info("memory of the process before is taken over: prefixes={} dropped={} bytes={}",
                 counts.prefixes, counts.dropped, counts.bytes);
    shared_->tier_work.NotifyAll();
  }
  if (!config_.prefix.state_dir.empty()) {
    LearnedFiles::Options learned;
    learned.folder = config_.prefix.state_dir;
    for (const Config::Tenant& tenant : config_.tenants) learned.tenants.push_back(tenant.name);
    KVASIR_ASSIGN_OR_RETURN(learned_, LearnedFiles::Open(std::move(learned), *shared_));
  }
  callers_ = std::make_unique<CallerRegistry>(config_.admin.uids,
                                              config_.limits.connections_per_tenant_max);
  const size_t slots = config_.tenants.size() + 2;
  shares_ = std::make_unique<TimeShares>(slots, ShareOf(config_.limits.tenant_cpu_percent));
  calls_ = std::make_unique<CallExecutor>(
      CallExecutor::Options{slots, config_.limits.calls_per_tenant_max, config_.server.rpc_threads},
      shared_->progress, *shares_);
  read_gate_ = std::make_unique<ReadGate>(*shares_);
  wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_) return ErrnoStatus(errno, "eventfd");
  shared_->wake_data_server = [fd = wake_.get()] { (void)::eventfd_write(fd, 1); };
  {
    MutexLock lock(shared_->mutex);
    shared_->core.set_memory_wanted(shared_->wake_data_server);
  }
  workers_ = std::make_unique<Workers>(*shared_, *pool_, config_.server.worker_threads);
  KVASIR_ASSIGN_OR_RETURN(offload_workers_, OffloadWorkers::Start(*shared_, devices_));
  tier_workers_ = std::make_unique<TierWorkers>(
      *shared_, std::move(tiers_),
      TierWorkers::Options{secret_, std::chrono::milliseconds(config_.tier.redis_refresh_ms)});
  pool_size_ = std::make_unique<PoolSize>(*pool_, *shared_, [this] { workers_->WakeRefill(); });
  if (config_.memory.pressure == Config::Memory::Pressure::kTry) {
    pressure_ = MemoryPressure::Start(
        {config_.memory.pressure_dir, std::chrono::milliseconds(config_.memory.pressure_quiet_ms)},
        *pool_size_);
  }
  return absl::OkStatus();
}

absl::Status Server::StartHandover() {
  if (!HandsOver()) return absl::OkStatus();
  HandoverWorker::Options options;
  options.index_bytes = RoundUp(
      std::clamp<uint64_t>(config_.memory.pool_bytes / 64, 16 * kMiB, 4 * kGiB), kPageBytes);
  options.secret = secret_;
  options.lock = config_.memory.lock != Config::Memory::Lock::kOff;
  absl::StatusOr<std::unique_ptr<HandoverWorker>> worker =
      HandoverWorker::Start(*shared_, FdStore(), std::move(taken_), options);
  KVASIR_RETURN_IF_ERROR(worker.status());
  handover_ = *std::move(worker);
  pool_->set_returned([raw = handover_.get()](uint64_t extent) { raw->Returned(extent); });
  return absl::OkStatus();
}

absl::Status Server::StartGrpc() {
  kv_cache_ = std::make_unique<KvCacheService>(
      *shared_, KvCacheServiceOptions{boot_epoch_, config_.limits.rpc_deadline_max_ms,
                                      [this] { workers_->WakeRefill(); }, config_.tier.load_wait_ms,
                                      &audit_});
  admin_ = std::make_unique<AdminService>(
      *shared_, *pool_size_, *callers_, audit_, tier_workers_->places(),
      [this] { return Snapshot(); },
      HostReport{NameOf(ToDemand(config_.memory.lock)), NameOf(ToDemand(config_.memory.huge_pages)),
                 config_.memory.numa_node},
      boot_epoch_);
  const CallGate gate{*calls_, *callers_, audit_};
  endpoints_.push_back(MakeKvCacheEndpoint(gate, *kv_cache_));
  endpoints_.push_back(MakeAdminEndpoint(gate, *admin_));
  endpoints_.push_back(MakeHealthEndpoint());
  BoundGrpcSleep();
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  for (const auto& endpoint : endpoints_) builder.RegisterService(endpoint.get());
  builder.SetMaxReceiveMessageSize(kMessageBytesMax);
  // A long prompt is one message of half a MiB: it is not to wait for windows of 64 KiB.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kLookaheadBytes);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kLookaheadBytes);
  // A call holds memory until its answer has gone: who never reads answers has few of them, and is
  // cut off.
  call_bound_ =
      std::make_unique<CallBound>(*callers_, audit_, 2 * config_.limits.calls_per_tenant_max);
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> bounds;
  bounds.push_back(call_bound_->MakeFactory());
  builder.experimental().SetInterceptorCreators(std::move(bounds));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                             static_cast<int>(config_.limits.calls_per_tenant_max));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveMs);
  // Of streams and reflection alone: all else is run by the executor.
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
  builder.SetResourceQuota(grpc::ResourceQuota("streams").SetMaxThreads(kStreamThreadsMax));
  grpc_ = builder.BuildAndStart();
  if (!grpc_) return Internal("gRPC could not be started");
  RingServer::Options rings;
  rings.wait_max = std::chrono::milliseconds(config_.limits.rpc_deadline_max_ms);
  rings.extents_taken = [this] { workers_->WakeRefill(); };
  rings.shares = shares_.get();
  KVASIR_ASSIGN_OR_RETURN(
      rings_,
      RingServers::Start(*shared_, rings, RingServers::ThreadsFor(config_.server.ring_threads)));
  DataServerOptions options;
  options.audit = &audit_;
  options.rings = rings_.get();
  options.shares = shares_.get();
  options.slot_of = [this](const core::Peer& peer) { return SlotOf(peer); };
  options.unidentified_peers = &unidentified_peers_;
  options.boot_epoch = boot_epoch_;
  options.hello_timeout_ms = config_.limits.hello_timeout_ms;
  options.session_limits = CoreConfigOf(config_).session_limits;
  options.extents_returned = [this] { workers_->WakeRefill(); };
  KVASIR_ASSIGN_OR_RETURN(
      data_server_,
      DataServer::Start(std::move(data_listener_), std::move(control_listener_), wake_.get(),
                        *shared_, options, [this](UniqueFd& socket, const core::Peer& peer) {
                          const size_t slot = SlotOf(peer);
                          absl::Status known =
                              callers_->Register(socket.get(), peer, slot, SystemClock().Now());
                          if (known.ok()) known = read_gate_->Add(socket.get(), slot);
                          if (!known.ok()) {
                            audit_.NoteRefusal({"connection", CredentialsOf(peer), "", {}}, known);
                            return;
                          }
                          grpc::AddInsecureChannelFromFd(grpc_.get(), socket.release());
                        }));
  return absl::OkStatus();
}

size_t Server::SlotOf(const core::Peer& peer) const {
  const size_t tenants = config_.tenants.size();
  const std::optional<size_t> place = shared_->PlaceOf(peer);
  return place ? *place : callers_->IsAdmin(peer) ? tenants + 1 : tenants;
}

Server::~Server() {
  metrics_.reset();
  if (shared_) {
    MutexLock lock(shared_->mutex);
    shared_->stopping = true;  // calls that wait give up
    shared_->progress.NotifyAll();
  }
  if (grpc_) {
    grpc_->Shutdown(::gpr_time_add(::gpr_now(GPR_CLOCK_MONOTONIC),
                                   ::gpr_time_from_seconds(kShutdownSeconds, GPR_TIMESPAN)));
    grpc_->Wait();
  }
  calls_.reset();  // no call is left
  pressure_.reset();
  if (workers_) workers_->Stop();
  data_server_.reset();
  rings_.reset();
  if (offload_workers_) offload_workers_->Stop();
  if (tier_workers_) {
    tier_workers_->Stop(std::chrono::milliseconds(config_.tier.stop_drain_ms));
  }
  if (pool_ != nullptr) pool_->set_returned(nullptr);  // no thread is left that would return any
  handover_.reset();
  learned_.reset();  // sessions have ended, so that nothing is learned any more
  if (remove_control_) (void)::unlink(config_.server.control_socket.c_str());
  if (remove_data_) (void)::unlink(config_.server.data_socket.c_str());
}

}  // namespace kvasir
