#include "tests/support/daemon_process.h"

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
  notify_ = UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = folder_ + "/notify.sock";
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  EXPECT_EQ(::bind(notify_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
}

bool DaemonProcess::Start(const Config& config, const std::vector<std::string>& prefix) {
  const std::string path = folder_ + "/kvasird.toml";
  std::ofstream(path) << EffectiveConfigToml(config);
  std::vector<std::string> argv = prefix;
  argv.insert(argv.end(), {program_, "--config=" + path});
  process_ = std::make_unique<ChildProcess>(
      argv, std::vector<std::string>{"NOTIFY_SOCKET=" + folder_ + "/notify.sock"});
  return NextNotification().starts_with("READY=1");
}

std::string DaemonProcess::NextNotification() {
  const UniqueFd life(static_cast<int>(::syscall(SYS_pidfd_open, process_->pid(), 0)));
  std::array<pollfd, 2> entries{pollfd{notify_.get(), POLLIN, 0}, pollfd{life.get(), POLLIN, 0}};
  while (::poll(entries.data(), entries.size(), -1) < 0) {
  }
  std::array<char, 512> text{};
  const ssize_t got = ::recv(notify_.get(), text.data(), text.size(), MSG_DONTWAIT);
  return got > 0 ? std::string(text.data(), static_cast<size_t>(got)) : std::string();
}

}  // namespace kvasir::testing
