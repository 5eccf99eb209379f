// Process: a program that is started, spoken to by lines, and never outlives this one.
#ifndef KVASIR_CLIENT_CONFORMANCE_PROCESS_H_
#define KVASIR_CLIENT_CONFORMANCE_PROCESS_H_

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/posix.h"

namespace kvasir::conformance {

using Milliseconds = std::chrono::milliseconds;

// Not thread-safe. Kills its process group and reaps the process when destroyed; the kernel kills
// the process when the thread that started it ends.
class Process {
 public:
  // Starts argv[0] with `environment` before this process's own. Its standard error goes to the
  // end of the file `log`. Errors: ErrnoStatus() of pipe2 and fork; a program that cannot be run
  // ends with exit status 127.
  static absl::StatusOr<Process> Start(const std::vector<std::string>& argv,
                                       const std::vector<std::string>& environment,
                                       const std::string& log);
  Process(Process&& other) noexcept;
  Process& operator=(Process&&) = delete;
  ~Process();

  pid_t pid() const { return pid_; }

  // Errors: kUnavailable where nobody reads, kDeadlineExceeded where nobody has for `patience`.
  absl::Status WriteLine(const std::string& line, Milliseconds patience);
  void CloseInput() { in_.reset(); }
  // The next line of its standard output, without its end. Errors: kDeadlineExceeded, kUnavailable
  // (the output has ended), kInvalidArgument (over 64 MiB).
  absl::StatusOr<std::string> ReadLine(Milliseconds patience);

  // To its whole process group.
  void Signal(int number) const;
  // SIGSTOP to it, and waits until none of its threads runs: the signal alone returns before.
  // Errors: kDeadlineExceeded.
  absl::Status Stop(Milliseconds patience);
  // Exit status, or minus the signal that ended it; nothing while it runs.
  std::optional<int> Poll();
  // Errors: kDeadlineExceeded.
  absl::StatusOr<int> Wait(Milliseconds patience);

 private:
  Process() = default;
  pid_t pid_ = -1;
  std::optional<int> status_;
  UniqueFd in_, out_;
  std::string rest_;  // read, and behind the last line that was handed out
};

// "exit status 3" or "signal 11 (Segmentation fault)", of what Poll() and Wait() return.
std::string DescribeEnd(int status);

}  // namespace kvasir::conformance

#endif  // KVASIR_CLIENT_CONFORMANCE_PROCESS_H_
