// OwnDaemon: a kvasird for one check, with one tenant: this user.
#ifndef KVASIR_CLIENT_CONFORMANCE_OWN_DAEMON_H_
#define KVASIR_CLIENT_CONFORMANCE_OWN_DAEMON_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "client/conformance/process.h"
#include "client/ctl/admin_client.h"

namespace kvasir::conformance {

// A folder below the temporary one, removed with everything in it.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }  // "": it could not be made

 private:
  std::string path_;
};

struct DaemonOptions {
  std::string program;  // kvasird
  uint64_t pool_bytes = 0;
  uint64_t limit_bytes = 0;   // of the tenant; 0: the pool
  uint64_t extent_bytes = 0;  // 0: as kvasird likes
  // As [[gpu]] names one: rows lie in a pool of it, and pool, limit and extents are those of that
  // pool. "": in host memory.
  std::string device = {};
};

// Not thread-safe. Kills the daemon when destroyed.
class OwnDaemon {
 public:
  // Errors: kUnavailable where it does not serve within `patience`, with the end of its log.
  static absl::StatusOr<std::unique_ptr<OwnDaemon>> Start(const DaemonOptions& options,
                                                          Milliseconds patience);

  // What an engine finds in its environment.
  std::vector<std::string> EngineEnvironment() const;
  std::string FileIn(const std::string& name) const { return folder_.path() + "/" + name; }

  // SIGSTOP, SIGCONT, SIGKILL, SIGTERM; waits until it stands still or has ended. Errors:
  // kDeadlineExceeded.
  absl::Status Signal(int number);
  // Once more, on the same sockets, after its end. Errors: as Start().
  absl::Status StartAgain();

  // The tenant's figures. Errors: as AdminClient's.
  absl::StatusOr<v1::TenantStats> Stats();
  // The tenant's open sequences. Errors: likewise.
  absl::StatusOr<std::vector<v1::SequenceInfo>> Sequences();
  // Ids of the first `count` rows; nothing for those that the daemon does not know any more.
  absl::StatusOr<std::vector<std::optional<uint32_t>>> Tokens(uint64_t sequence_id, uint32_t count);
  // Bytes of rows, where they lie: on the device, if there is one.
  absl::StatusOr<uint64_t> RowBytes();
  // Waits until no session, sequence or byte is left. Errors: kInternal, with what is.
  absl::Status WaitUntilEmpty(Milliseconds patience);
  // Likewise no sequence and no block, while the engine is still connected.
  absl::Status WaitUntilClosed(Milliseconds patience);

 private:
  OwnDaemon() = default;

  TemporaryFolder folder_;
  DaemonOptions options_;
  Milliseconds patience_{0};
  std::optional<Process> process_;
  std::unique_ptr<ctl::AdminClient> admin_;
};

}  // namespace kvasir::conformance

#endif  // KVASIR_CLIENT_CONFORMANCE_OWN_DAEMON_H_
