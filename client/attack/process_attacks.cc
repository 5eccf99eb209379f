// The victim's and the daemon's processes, from outside.
#include <errno.h>
#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <utility>

#include "base/posix.h"
#include "client/attack/attacks.h"

#include <dirent.h>
#include <fmt/format.h>

namespace kvasir::attack {
namespace {

constexpr int kDescriptors = 64;

void AttackProcess(const char* whose, pid_t pid, Attempts& attempts) {
  if (pid == 0)
    return attempts.Add(fmt::format("{} process", whose), Verdict::kNotTried,
                        "its number is not known");
  const std::string folder = fmt::format("/proc/{}", pid);
  DIR* const listed = ::opendir((folder + "/fd").c_str());
  attempts.AddCall(fmt::format("list {} descriptors in /proc", whose), listed == nullptr,
                   {EACCES, EPERM});
  if (listed != nullptr) ::closedir(listed);
  for (int fd = 0; fd < kDescriptors; ++fd) {
    const UniqueFd opened(
        ::open(fmt::format("{}/fd/{}", folder, fd).c_str(), O_RDONLY | O_CLOEXEC));
    attempts.AddCall(fmt::format("open {} descriptors through /proc", whose), !opened,
                     {EACCES, EPERM});
  }
  for (const char* name : {"mem", "maps", "environ"}) {
    // It may be opened where reading is what the kernel refuses.
    const UniqueFd opened(::open((folder + "/" + name).c_str(), O_RDONLY | O_CLOEXEC));
    char byte = 0;
    const bool failed = !opened || ::pread(opened.get(), &byte, 1, 0) < 0;
    attempts.AddCall(fmt::format("read {} /proc/PID/{}", whose, name), failed, {EACCES, EPERM});
  }
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  for (int fd = 3; pidfd && fd < kDescriptors; ++fd) {
    const UniqueFd stolen(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), fd, 0)));
    attempts.AddCall(fmt::format("take {} descriptors by pidfd_getfd", whose), !stolen,
                     {EPERM, EACCES});
  }
  char bytes[16];
  const iovec here{bytes, sizeof(bytes)};
  const iovec there{reinterpret_cast<void*>(0x10000), sizeof(bytes)};
  attempts.AddCall(fmt::format("read {} memory by process_vm_readv", whose),
                   ::process_vm_readv(pid, &here, 1, &there, 1, 0) < 0, {EPERM});
  attempts.AddCall(fmt::format("trace {} process", whose),
                   ::ptrace(PTRACE_SEIZE, pid, nullptr, nullptr) < 0, {EPERM});
}

}  // namespace

void AttackProcesses(const Target& target, Attempts& attempts) {
  AttackProcess("the other's", target.victim_pid, attempts);
  AttackProcess("the daemon's", target.daemon_pid, attempts);
}

}  // namespace kvasir::attack
