// DaemonProcess: the real kvasird, with a configuration in a file, started and ended by signals.
#ifndef KVASIR_TESTS_SUPPORT_DAEMON_PROCESS_H_
#define KVASIR_TESTS_SUPPORT_DAEMON_PROCESS_H_

#include <memory>
#include <string>
#include <vector>

#include "base/posix.h"
#include "daemon/config.h"
#include "tests/support/child_process.h"
#include "tests/support/fd_keeper.h"

namespace kvasir::testing {

// Not thread-safe.
class DaemonProcess {
 public:
  // Files (configuration, notification socket) go into `folder`, which must outlive it.
  explicit DaemonProcess(std::string folder);

  // Starts kvasird and waits until it says READY=1; false if it ends before that. `prefix` is put
  // before the command line, e.g. {"/usr/bin/prlimit", "--memlock=0"}.
  bool Start(const Config& config, const std::vector<std::string>& prefix = {});

  // Next message of the daemon to the service manager, but those about descriptors; "" when it has
  // ended without one.
  std::string NextNotification();

  // Plays the service manager that keeps descriptors over the daemon's lives, from now on.
  FdKeeper& KeepDescriptors();

  // Runs this file instead of the kvasird beside the test.
  void set_program(const std::string& path) { program_ = path; }

  ChildProcess& process() { return *process_; }

 private:
  const std::string folder_;
  std::string program_ = SiblingProgram("kvasird");
  UniqueFd notify_;
  std::unique_ptr<FdKeeper> keeper_;  // null: nobody keeps anything
  std::unique_ptr<ChildProcess> process_;
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_SUPPORT_DAEMON_PROCESS_H_
