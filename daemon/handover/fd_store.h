// FdStore: descriptors that the service manager keeps while this process is not there.
#ifndef KVASIR_DAEMON_HANDOVER_FD_STORE_H_
#define KVASIR_DAEMON_HANDOVER_FD_STORE_H_

#include <string>

#include <absl/status/status.h>

#include "base/posix.h"

namespace kvasir {

// A descriptor that was handed back, by the name under which it was kept.
struct NamedFd {
  std::string name;
  UniqueFd fd;
};

// systemd's (FDSTORE, sd_notify(3)), or whatever listens on NOTIFY_SOCKET. Thread-safe. Each call
// is a message, and an error after a second where nobody reads it.
class FdStore {
 public:
  // Whether there is a manager to ask. Whether it keeps anything only the next start shows.
  static bool IsThere();

  // It gets a duplicate of `fd`. Errors: the kernel's.
  absl::Status Keep(const std::string& name, const UniqueFd& fd);
  // Everything of this name is closed. Errors: the kernel's.
  absl::Status Forget(const std::string& name);
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_HANDOVER_FD_STORE_H_
