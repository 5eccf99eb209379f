// DaemonProcess: the real kvasird, with a configuration in a file, started and ended by signals.
#ifndef KVASIR_TESTS_SUPPORT_DAEMON_PROCESS_H_
#define KVASIR_TESTS_SUPPORT_DAEMON_PROCESS_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/posix.h"
#include "daemon/config.h"
#include "tests/support/child_process.h"
#include "tests/support/fd_keeper.h"

namespace kvasir::testing {

// Not thread-safe.
class DaemonProcess {
 public:
  // Files (configuration, notification socket) go into `folder`, which must outlive it. One at a
  // time in a folder: a second one fails the test, and its Start().
  explicit DaemonProcess(std::string folder);
  ~DaemonProcess();
  DaemonProcess(const DaemonProcess&) = delete;
  DaemonProcess& operator=(const DaemonProcess&) = delete;

  // Starts kvasird and waits until it says READY=1; false if it ends before that, or has nowhere to
  // say it. `prefix` is put before the command line, e.g. {"/usr/bin/prlimit", "--memlock=0"}.
  bool Start(const Config& config, const std::vector<std::string>& prefix = {});

  // Next message of the daemon to the service manager, but those about descriptors; "" when it has
  // ended without one.
  std::string NextNotification();

  // Plays the service manager that keeps descriptors over the daemon's lives, from now on.
  FdKeeper& KeepDescriptors();

  // For the environment of kvasird, beside this process's.
  void set_environment(std::vector<std::string> environment) {
    environment_ = std::move(environment);
  }
  // Runs this file instead of the kvasird beside the test.
  void set_program(const std::string& path) { program_ = path; }

  // The one that Start() started last, whether it came up or not.
  bool has_process() const { return process_ != nullptr; }
  ChildProcess& process() { return *process_; }  // REQUIRES: has_process()

 private:
  const std::string folder_;
  const std::string notify_path_ = folder_ + "/notify.sock";
  std::string program_ = SiblingProgram("kvasird");
  std::vector<std::string> environment_;
  UniqueFd notify_;                   // empty: another one has the folder
  std::unique_ptr<FdKeeper> keeper_;  // null: nobody keeps anything
  std::unique_ptr<ChildProcess> process_;
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_SUPPORT_DAEMON_PROCESS_H_
