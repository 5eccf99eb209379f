// ChildProcess: another program, started with posix_spawn, so that a test with threads may start
// it.
#ifndef KVASIR_TESTS_SUPPORT_CHILD_PROCESS_H_
#define KVASIR_TESTS_SUPPORT_CHILD_PROCESS_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/posix.h"

namespace kvasir::testing {

// Path of a program that is built beside this test.
std::string SiblingProgram(const std::string& name);

// Not thread-safe. Kills and reaps the process when destroyed.
class ChildProcess {
 public:
  // Starts argv[0] with `environment` added to this process's; its standard output and standard
  // error come through two pipes. `inherited`: its descriptors from 3 on; each above all of those.
  ChildProcess(const std::vector<std::string>& argv, const std::vector<std::string>& environment,
               const std::vector<int>& inherited = {});
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  // Reads one byte of its standard output; nothing at its end.
  std::optional<char> ReadByte();
  // Reads a line without its end; nothing at the end of the output.
  std::optional<std::string> ReadLine();
  // Everything that is left on its standard error; waits for its end.
  std::string ReadErrors();

  void Signal(int number) const;
  // Waits for it. Exit code, or minus the signal that ended it.
  int Wait();

 private:
  pid_t pid_ = -1;
  std::optional<int> status_;
  UniqueFd output_, errors_;
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_SUPPORT_CHILD_PROCESS_H_
