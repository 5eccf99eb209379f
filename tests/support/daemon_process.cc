#include "tests/support/daemon_process.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <utility>

#include <gtest/gtest.h>

#include <poll.h>

namespace kvasir::testing {

DaemonProcess::DaemonProcess(std::string folder) : folder_(std::move(folder)) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, notify_path_.c_str(), notify_path_.size() + 1);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    notify_ = std::move(socket);
    return;
  }
  // What its daemon says would go to the other one, and this one would wait for it for ever.
  ADD_FAILURE() << "another DaemonProcess has this folder, or something is in its way: socket="
                << notify_path_ << " error=" << std::strerror(errno);
}

DaemonProcess::~DaemonProcess() {
  if (notify_) (void)::unlink(notify_path_.c_str());
}

bool DaemonProcess::Start(const Config& config, const std::vector<std::string>& prefix) {
  if (!notify_) return false;
  const std::string path = folder_ + "/kvasird.toml";
  std::ofstream(path) << EffectiveConfigToml(config);
  std::vector<std::string> argv = prefix;
  argv.insert(argv.end(), {program_, "--config=" + path});
  std::vector<std::string> environment = environment_;
  environment.push_back("NOTIFY_SOCKET=" + notify_path_);
  std::vector<std::pair<std::string, UniqueFd>> kept;
  if (keeper_ != nullptr) kept = keeper_->Duplicates();
  std::vector<int> inherited;
  if (!kept.empty()) {
    std::string names;
    for (const auto& [name, fd] : kept) {
      names += (names.empty() ? "" : ":") + name;
      inherited.push_back(fd.get());
    }
    environment.push_back("LISTEN_FDS=" + std::to_string(kept.size()));
    environment.push_back("LISTEN_FDNAMES=" + names);
    // Whose they are is told by a number that only the child itself knows before it runs.
    argv.insert(argv.begin(), {"/bin/sh", "-c", "LISTEN_PID=$$ exec \"$@\"", "sh"});
  }
  process_ = std::make_unique<ChildProcess>(argv, environment, inherited);
  return NextNotification().starts_with("READY=1");
}

std::string DaemonProcess::NextNotification() {
  const UniqueFd life(static_cast<int>(::syscall(SYS_pidfd_open, process_->pid(), 0)));
  if (keeper_ != nullptr) return keeper_->Next(life);
  for (;;) {
    std::array<pollfd, 2> entries{pollfd{notify_.get(), POLLIN, 0}, pollfd{life.get(), POLLIN, 0}};
    while (::poll(entries.data(), entries.size(), -1) < 0) {
    }
    std::string text = ReceiveNotification(notify_).text;
    if (!text.starts_with("FDSTORE")) return text;
  }
}

FdKeeper& DaemonProcess::KeepDescriptors() {
  if (keeper_ == nullptr) keeper_ = std::make_unique<FdKeeper>(notify_);
  return *keeper_;
}

}  // namespace kvasir::testing
