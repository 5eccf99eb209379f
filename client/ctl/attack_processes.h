// The two processes of `doctor --attack`: a victim and its attacker, each under a user of its own,
// without a capability. They speak by pipes, in text, and end with the process that started them.
#ifndef KVASIR_CLIENT_CTL_ATTACK_PROCESSES_H_
#define KVASIR_CLIENT_CTL_ATTACK_PROCESSES_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>

#include <absl/status/statusor.h>

#include "base/clock.h"
#include "base/posix.h"

namespace kvasir::ctl {

// What a process of a user is given: `in` is at its end when it is to go on or to finish.
using Role = std::function<void(int in, int out)>;

// Not thread-safe.
class UserProcess {
 public:
  // Forks; the child becomes `uid` with the group of that name (its own number where it has none),
  // no others and no capabilities, and runs `role`. What it could not become comes as a line
  // `error=...`. REQUIRES: this process is root, and has neither threads nor gRPC yet.
  static absl::StatusOr<UserProcess> Start(uint32_t uid, const Role& role);
  UserProcess(UserProcess&&) noexcept = default;
  UserProcess& operator=(UserProcess&&) = delete;
  // Kills it.
  ~UserProcess();

  // Sends the text and closes its input. Errors: kUnavailable.
  absl::Status Tell(const std::string& text);
  void CloseInput() { in_.reset(); }
  // All that it says up to an empty line, or to its end. Errors: kDeadlineExceeded, kUnavailable
  // (ended before a word).
  absl::StatusOr<std::string> Hear(Instant deadline);

 private:
  UserProcess() = default;
  pid_t pid_ = 0;
  UniqueFd in_, out_;
  std::string rest_;
};

// All of a descriptor, up to its end.
std::string ReadAll(int fd);
// All of the text; gives up where nobody reads.
void WriteAll(int fd, const std::string& text);

}  // namespace kvasir::ctl

#endif  // KVASIR_CLIENT_CTL_ATTACK_PROCESSES_H_
