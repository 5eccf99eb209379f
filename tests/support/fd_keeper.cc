#include "tests/support/fd_keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include <gtest/gtest.h>

#include <poll.h>

namespace kvasir::testing {
namespace {

constexpr int kFirstDuplicate = 1000;

std::string ValueOf(const std::string& text, const std::string& key) {
  const size_t at = text.find(key + "=");
  if (at == std::string::npos) return {};
  const size_t begin = at + key.size() + 1;
  return text.substr(begin, text.find('\n', begin) - begin);
}

}  // namespace

Notification ReceiveNotification(const UniqueFd& socket) {
  Notification message;
  std::array<char, 4096> text{};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * 64)> control{};
  iovec part{text.data(), text.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const ssize_t got = ::recvmsg(socket.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got <= 0) return message;
  message.text.assign(text.data(), static_cast<size_t>(got));
  for (cmsghdr* each = CMSG_FIRSTHDR(&header); each != nullptr; each = CMSG_NXTHDR(&header, each)) {
    if (each->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (each->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(each) + i * sizeof(int), sizeof(int));
      message.fds.emplace_back(fd);
    }
  }
  return message;
}

FdKeeper::FdKeeper(const UniqueFd& socket)
    : socket_(socket), stop_(::eventfd(0, EFD_CLOEXEC)), thread_([this] { Loop(); }) {}

FdKeeper::~FdKeeper() {
  (void)::eventfd_write(stop_.get(), 1);
  thread_.join();
}

void FdKeeper::Loop() {
  std::array<pollfd, 2> entries{pollfd{socket_.get(), POLLIN, 0}, pollfd{stop_.get(), POLLIN, 0}};
  for (;;) {
    if (::poll(entries.data(), entries.size(), -1) < 0) continue;
    if ((entries[1].revents & POLLIN) != 0) return;
    const std::lock_guard lock(mutex_);
    for (;;) {
      Notification message = ReceiveNotification(socket_);
      if (message.text.empty()) break;
      Take(std::move(message));
    }
    came_.notify_all();
  }
}

void FdKeeper::Take(Notification message) {
  const std::string name = ValueOf(message.text, "FDNAME");
  if (message.text.starts_with("FDSTORE=1")) {
    EXPECT_FALSE(name.empty());
    for (UniqueFd& fd : message.fds) kept_.emplace_back(name, std::move(fd));
  } else if (message.text.starts_with("FDSTOREREMOVE=1")) {
    EXPECT_FALSE(name.empty());
    std::erase_if(kept_, [&](const auto& one) { return one.first == name; });
  } else {
    others_.push_back(std::move(message.text));
  }
}

std::string FdKeeper::Next(const UniqueFd& life) {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (!others_.empty()) {
      std::string text = std::move(others_.front());
      others_.pop_front();
      return text;
    }
    pollfd entry{life.get(), POLLIN, 0};
    if (::poll(&entry, 1, 0) == 1) {
      lock.unlock();
      Catch();
      lock.lock();
      if (others_.empty()) return {};
      continue;
    }
    came_.wait_for(lock, std::chrono::milliseconds(20));
  }
}

void FdKeeper::Catch() {
  const std::lock_guard lock(mutex_);
  for (;;) {
    Notification message = ReceiveNotification(socket_);
    if (message.text.empty()) return;
    Take(std::move(message));
  }
}

std::vector<std::string> FdKeeper::Names() {
  Catch();
  const std::lock_guard lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [name, fd] : kept_) names.push_back(name);
  return names;
}

size_t FdKeeper::Count(const std::string& prefix) {
  const std::vector<std::string> names = Names();
  return static_cast<size_t>(std::count_if(
      names.begin(), names.end(), [&](const auto& name) { return name.starts_with(prefix); }));
}

std::vector<std::pair<std::string, UniqueFd>> FdKeeper::Duplicates() {
  Catch();
  const std::lock_guard lock(mutex_);
  std::vector<std::pair<std::string, UniqueFd>> copies;
  for (const auto& [name, fd] : kept_) {
    copies.emplace_back(name, UniqueFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, kFirstDuplicate)));
    EXPECT_GE(copies.back().second.get(), kFirstDuplicate);
  }
  return copies;
}

void FdKeeper::Lose(const std::string& name) {
  Catch();
  const std::lock_guard lock(mutex_);
  EXPECT_GT(std::erase_if(kept_, [&](const auto& one) { return one.first == name; }), 0U) << name;
}

void FdKeeper::Replace(const std::string& name, UniqueFd fd) {
  Lose(name);
  Add(name, std::move(fd));
}

void FdKeeper::Add(const std::string& name, UniqueFd fd) {
  const std::lock_guard lock(mutex_);
  kept_.emplace_back(name, std::move(fd));
}

}  // namespace kvasir::testing
