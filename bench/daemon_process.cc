#include "bench/daemon_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "base/error.h"
#include "base/posix.h"

#include <spawn.h>
#include <stdlib.h>

extern char** environ;

namespace kvasir::bench {
namespace {

std::string ReadAll(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace

absl::StatusOr<std::unique_ptr<DaemonProcess>> DaemonProcess::Start(uint64_t pool_bytes,
                                                                    uint64_t ready_bytes,
                                                                    const std::string& profile_dir,
                                                                    const std::string& disk_path,
                                                                    const std::string& huge_pages) {
  std::unique_ptr<DaemonProcess> daemon(new DaemonProcess);
  std::string folder = (std::filesystem::temp_directory_path() / "kvasir-bench-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) return ErrnoStatus(errno, "mkdtemp");
  daemon->folder_ = folder;
  const std::string config = folder + "/kvasird.toml", log = folder + "/kvasird.log";
  // All of the pool is the tenant's: where root runs a bench, it could borrow nothing. And the pool
  // stays as large as it is, however much memory the others of a bench take.
  std::ofstream(config) << fmt::format(
      "[server]\ncontrol_socket = \"{0}/control.sock\"\ndata_socket = \"{0}/data.sock\"\n"
      "[memory]\npool_bytes = {1}\nready_bytes = {2}\nhuge_pages = \"{6}\"\n"
      "pressure = \"off\"\n"
      "[limits]\nrows_max = 262144\n"
      "[retention]\nprofile_dir = \"{4}\"\n"
      "[tier]\ndisk_path = \"{5}\"\ndisk_bytes = \"1GiB\"\n"
      "[[tenant]]\nname = \"bench\"\nuids = [{3}]\nreserved_bytes = {1}\n",
      folder, pool_bytes, ready_bytes, ::geteuid(), profile_dir, disk_path, huge_pages);
  const std::string program =
      (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "kvasird").string();
  std::string option = "--config=" + config;
  char* const arguments[] = {const_cast<char*>(program.c_str()), option.data(), nullptr};
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log.c_str(),
                                     O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const int error =
      ::posix_spawn(&daemon->pid_, program.c_str(), &actions, nullptr, arguments, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return ErrnoStatus(error, "posix_spawn " + program);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!Session::Connect(daemon->connect_options()).ok()) {
    int status = 0;
    if (std::chrono::steady_clock::now() > deadline ||
        ::waitpid(daemon->pid_, &status, WNOHANG) == daemon->pid_) {
      return Unavailable("kvasird does not serve: program={}\n{}", program, ReadAll(log));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return daemon;
}

DaemonProcess::~DaemonProcess() {
  if (pid_ > 0) {
    ::kill(pid_, SIGTERM);
    ::waitpid(pid_, nullptr, 0);
  }
  std::error_code ignored;  // a leftover folder harms nothing
  if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
}

ConnectOptions DaemonProcess::connect_options() const {
  ConnectOptions options;
  options.control_socket = folder_ + "/control.sock";
  options.data_socket = folder_ + "/data.sock";
  return options;
}

uint64_t DaemonProcess::ResidentBytes() const {
  const std::string text = ReadAll(fmt::format("/proc/{}/status", pid_));
  const auto at = text.find("VmRSS:");
  return at == std::string::npos ? 0 : std::strtoull(text.c_str() + at + 6, nullptr, 10) * 1024;
}

}  // namespace kvasir::bench
