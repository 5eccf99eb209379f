// DaemonProcess: a kvasird of the bench's own, in a temporary folder, so that its memory can be
// measured from outside.
#ifndef KVASIR_BENCH_DAEMON_PROCESS_H_
#define KVASIR_BENCH_DAEMON_PROCESS_H_

#include <cstdint>
#include <memory>
#include <string>

#include <absl/status/statusor.h>

#include "client/session.h"

namespace kvasir::bench {

// Not thread-safe. Stops the daemon (SIGTERM) and removes the folder when destroyed.
class DaemonProcess {
 public:
  // Starts `kvasird` from the folder of this program, with one tenant for this user.
  // profile_dir, disk_path, huge_pages: of the configuration; "": no profiles, no disk tier.
  // Errors: kUnavailable when it does not serve within ten seconds; its log is in the text.
  static absl::StatusOr<std::unique_ptr<DaemonProcess>> Start(
      uint64_t pool_bytes, uint64_t ready_bytes, const std::string& profile_dir = "",
      const std::string& disk_path = "", const std::string& huge_pages = "off");
  ~DaemonProcess();
  DaemonProcess(const DaemonProcess&) = delete;
  DaemonProcess& operator=(const DaemonProcess&) = delete;

  ConnectOptions connect_options() const;
  // VmRSS of the daemon.
  uint64_t ResidentBytes() const;
  int pid() const { return pid_; }

 private:
  DaemonProcess() = default;

  std::string folder_;
  int pid_ = -1;
};

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_DAEMON_PROCESS_H_
