#include "client/conformance/own_daemon.h"

#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "base/clock.h"
#include "base/error.h"
#include "base/small_file.h"
#include "base/status_macros.h"
#include "base/unix_socket.h"

#include <stdlib.h>

namespace kvasir::conformance {
namespace {

constexpr Milliseconds kBetweenLooks{5};
constexpr uint64_t kLogBytesMax = 1 << 20;
constexpr char kPool[] = "conformance";

// The tables of `options.device`.
std::string PoolTables(const DaemonOptions& options, uint64_t limit_bytes) {
  if (options.device.empty()) return "";
  std::string extents;
  if (options.extent_bytes != 0) {
    extents = fmt::format("extent_bytes = {0}\nrecent_extent_bytes = {0}\n", options.extent_bytes);
  }
  return fmt::format(
      "[[tenant.gpu]]\nname = \"{0}\"\nlimit_bytes = {1}\n"
      "[[gpu]]\nname = \"{0}\"\ndevice = \"{2}\"\npool_bytes = {3}\n{4}",
      kPool, limit_bytes, options.device, options.pool_bytes, extents);
}

uint64_t HeldBytes(const v1::TenantStats& stats) {
  uint64_t bytes = stats.host().held_bytes();
  for (const v1::TenantDeviceStats& device : stats.devices()) bytes += device.held_bytes();
  return bytes;
}

uint64_t ChargedBytes(const v1::TenantStats& stats) {
  uint64_t bytes = stats.host().charged_bytes();
  for (const v1::TenantDeviceStats& device : stats.devices()) bytes += device.charged_bytes();
  return bytes;
}

// Calls `look` until it has nothing to say, and returns what it said last after `patience`.
absl::Status WaitFor(const std::function<absl::Status()>& look, Milliseconds patience) {
  const Instant deadline = SystemClock().Now() + patience;
  for (;;) {
    const absl::Status status = look();
    if (status.ok() || SystemClock().Now() > deadline) return status;
    std::this_thread::sleep_for(kBetweenLooks);
  }
}

}  // namespace

TemporaryFolder::TemporaryFolder() {
  std::error_code error;
  path_ = (std::filesystem::temp_directory_path(error) / "kvasir-conformance-XXXXXX").string();
  if (::mkdtemp(path_.data()) == nullptr) path_.clear();
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;  // a leftover folder harms nothing
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

absl::StatusOr<std::unique_ptr<OwnDaemon>> OwnDaemon::Start(const DaemonOptions& options,
                                                            Milliseconds patience) {
  std::unique_ptr<OwnDaemon> daemon(new OwnDaemon);
  if (daemon->folder_.path().empty()) return Unavailable("no temporary folder can be made");
  daemon->options_ = options;
  daemon->patience_ = patience;
  const uint64_t limit = options.limit_bytes == 0 ? options.pool_bytes : options.limit_bytes;
  std::string extents;
  if (options.extent_bytes != 0 && options.device.empty()) {
    extents = fmt::format("extent_bytes = {0}\nrecent_extent_bytes = {0}\n", options.extent_bytes);
  }
  const uint64_t host_limit = options.device.empty() ? limit : options.pool_bytes;
  // Nothing of the host's plays a part: no locked or huge pages, no pressure, no service manager.
  std::ofstream(daemon->FileIn("kvasird.toml")) << fmt::format(
      "[server]\ncontrol_socket = \"{0}/control.sock\"\ndata_socket = \"{0}/data.sock\"\n"
      "[memory]\npool_bytes = {1}\n{2}ready_bytes = 0\nlock = \"off\"\npressure = \"off\"\n"
      "handover = \"off\"\n"
      "[limits]\nrows_max = 262144\n"
      "[retention]\ndefault = \"full\"\n"
      "[[tenant]]\nname = \"conformance\"\nuids = [{3}]\nlimit_bytes = {4}\n{5}",
      daemon->folder_.path(), options.pool_bytes, extents, ::geteuid(), host_limit,
      PoolTables(options, limit));
  KVASIR_RETURN_IF_ERROR(daemon->StartAgain());
  return daemon;
}

absl::Status OwnDaemon::StartAgain() {
  KVASIR_ASSIGN_OR_RETURN(
      Process process, Process::Start({options_.program, "--config=" + FileIn("kvasird.toml")}, {},
                                      FileIn("kvasird.log")));
  process_.reset();
  process_.emplace(std::move(process));
  admin_ = ctl::NewAdminClient(FileIn("control.sock"), patience_);
  const Instant deadline = SystemClock().Now() + patience_;
  // A gRPC channel that finds nobody waits a second before it looks again: knock first.
  while (!ConnectUnix(FileIn("control.sock"), SocketType::kStream).ok() || !Stats().ok()) {
    if (process_->Poll() || SystemClock().Now() > deadline) {
      const absl::StatusOr<std::string> log = ReadSmallFile(FileIn("kvasird.log"), kLogBytesMax);
      return Unavailable("kvasird does not serve: program={}\n{}", options_.program,
                         log.ok() ? *log : "");
    }
    std::this_thread::sleep_for(kBetweenLooks);
  }
  return absl::OkStatus();
}

std::vector<std::string> OwnDaemon::EngineEnvironment() const {
  std::vector<std::string> environment{"KVASIR_CONTROL_SOCKET=" + FileIn("control.sock"),
                                       "KVASIR_DATA_SOCKET=" + FileIn("data.sock")};
  if (!options_.device.empty()) {
    environment.push_back(std::string("KVASIR_POOL=") + kPool);
    environment.push_back("KVASIR_DEVICE=" + (options_.device == "host"
                                                  ? std::string("host-") + kPool
                                                  : options_.device));
  }
  return environment;
}

absl::Status OwnDaemon::Signal(int number) {
  if (number == SIGSTOP) return process_->Stop(patience_);
  process_->Signal(number);
  if (number == SIGCONT) return absl::OkStatus();
  return process_->Wait(patience_).status();
}

absl::StatusOr<v1::TenantStats> OwnDaemon::Stats() {
  KVASIR_ASSIGN_OR_RETURN(const v1::GetStatsResponse stats, admin_->GetStats());
  if (stats.tenants_size() != 1) return Internal("not one tenant: count={}", stats.tenants_size());
  return stats.tenants(0);
}

absl::StatusOr<std::vector<v1::SequenceInfo>> OwnDaemon::Sequences() {
  KVASIR_ASSIGN_OR_RETURN(const v1::ListSequencesResponse list, admin_->ListSequences({}));
  return std::vector<v1::SequenceInfo>(list.sequences().begin(), list.sequences().end());
}

absl::StatusOr<std::vector<std::optional<uint32_t>>> OwnDaemon::Tokens(uint64_t sequence_id,
                                                                       uint32_t count) {
  v1::InspectSequenceRequest request;
  request.set_sequence_id(sequence_id);
  request.set_max_rows(count);
  KVASIR_ASSIGN_OR_RETURN(const v1::InspectSequenceResponse answer,
                          admin_->InspectSequence(request));
  std::vector<std::optional<uint32_t>> tokens(count);
  for (const v1::InspectedRow& row : answer.rows()) {
    if (row.row() < count && row.token_known()) tokens[row.row()] = row.token();
  }
  return tokens;
}

absl::StatusOr<uint64_t> OwnDaemon::RowBytes() {
  KVASIR_ASSIGN_OR_RETURN(const v1::TenantStats stats, Stats());
  if (options_.device.empty()) return stats.host().held_bytes();
  for (const v1::TenantDeviceStats& device : stats.devices()) {
    if (device.pool() == kPool) return device.held_bytes();
  }
  return 0;
}

absl::Status OwnDaemon::WaitUntilEmpty(Milliseconds patience) {
  return WaitFor(
      [this]() -> absl::Status {
        KVASIR_ASSIGN_OR_RETURN(const v1::TenantStats stats, Stats());
        if (stats.sessions() == 0 && ChargedBytes(stats) == 0) return absl::OkStatus();
        return Internal("the daemon still has of it: sessions={} sequences={} charged_bytes={}",
                        stats.sessions(), stats.sequences(), ChargedBytes(stats));
      },
      patience);
}

absl::Status OwnDaemon::WaitUntilClosed(Milliseconds patience) {
  return WaitFor(
      [this]() -> absl::Status {
        KVASIR_ASSIGN_OR_RETURN(const v1::TenantStats stats, Stats());
        if (stats.sequences() == 0 && HeldBytes(stats) == 0) return absl::OkStatus();
        return Internal(
            "every text is closed, and the daemon still has of them: sequences={} held_bytes={}",
            stats.sequences(), HeldBytes(stats));
      },
      patience);
}

}  // namespace kvasir::conformance
