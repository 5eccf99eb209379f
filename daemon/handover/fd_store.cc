#include "daemon/handover/fd_store.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "base/error.h"

#include <fmt/format.h>
#include <stdlib.h>

namespace kvasir {
namespace {

constexpr timeval kPatience{1, 0};  // with a manager that does not read

// What sd_pid_notify_with_fds() does, which would wait for ever.
absl::Status Send(const std::string& state, const UniqueFd* fd) {
  const char* const path = ::getenv("NOTIFY_SOCKET");
  if (path == nullptr) return FailedPrecondition("there is no service manager: NOTIFY_SOCKET");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string_view name = path;
  if (name.size() < 2 || name.size() >= sizeof(address.sun_path)) {
    return InvalidArgument("NOTIFY_SOCKET has no usable length: bytes={} max={}", name.size(),
                           sizeof(address.sun_path) - 1);
  }
  std::copy(name.begin(), name.end(), address.sun_path);
  if (name.front() == '@') address.sun_path[0] = '\0';  // an abstract name
  const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return ErrnoStatus(errno, "socket");
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof(kPatience));
  iovec text{const_cast<char*>(state.data()), state.size()};
  msghdr message{};
  message.msg_name = &address;
  message.msg_namelen = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
  message.msg_iov = &text;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  if (fd != nullptr) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int raw = fd->get();
    std::memcpy(CMSG_DATA(header), &raw, sizeof(raw));
  }
  if (::sendmsg(socket.get(), &message, MSG_NOSIGNAL) < 0) {
    return ErrnoStatus(errno, "sendmsg to NOTIFY_SOCKET");
  }
  return absl::OkStatus();
}

}  // namespace

bool FdStore::IsThere() { return ::getenv("NOTIFY_SOCKET") != nullptr; }

absl::Status FdStore::Keep(const std::string& name, const UniqueFd& fd) {
  // A memfd never hangs up: the manager need not watch it.
  return Send(fmt::format("FDSTORE=1\nFDPOLL=0\nFDNAME={}", name), &fd);
}

absl::Status FdStore::Forget(const std::string& name) {
  return Send(fmt::format("FDSTOREREMOVE=1\nFDNAME={}", name), nullptr);
}

}  // namespace kvasir
