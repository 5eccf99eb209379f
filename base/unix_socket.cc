#include "base/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir {
namespace {

constexpr size_t kFdsMax = 8;

absl::StatusOr<sockaddr_un> AddressOf(const std::string& path) {
  sockaddr_un address{};
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return InvalidArgument("socket path is empty or too long: path={} bytes={} max={}", path,
                           path.size(), sizeof(address.sun_path) - 1);
  }
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

int KernelType(SocketType type) {
  return type == SocketType::kStream ? SOCK_STREAM : SOCK_SEQPACKET;
}

}  // namespace

absl::StatusOr<UniqueFd> ListenUnix(const std::string& path, SocketType type, uint32_t mode) {
  KVASIR_ASSIGN_OR_RETURN(const sockaddr_un address, AddressOf(path));
  absl::StatusOr<UniqueFd> other = ConnectUnix(path, type);
  // A full backlog is somebody's, too.
  if (other.ok() || other.status().code() == absl::StatusCode::kDeadlineExceeded)
    return AlreadyExists("another process listens on the socket: path={}", path);
  struct stat info {};
  if (::lstat(path.c_str(), &info) == 0) {
    if (!S_ISSOCK(info.st_mode)) {
      return AlreadyExists("the socket's path is another kind of file: path={}", path);
    }
    if (other.status().code() != absl::StatusCode::kUnavailable) return other.status();
    if (::unlink(path.c_str()) != 0) return ErrnoStatus(errno, "unlink " + path);
  }
  UniqueFd fd(::socket(AF_UNIX, KernelType(type) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return ErrnoStatus(errno, "socket");
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return ErrnoStatus(errno, "bind " + path);
  }
  if (::chmod(path.c_str(), mode) != 0) return ErrnoStatus(errno, "chmod " + path);
  if (::listen(fd.get(), 128) != 0) return ErrnoStatus(errno, "listen " + path);
  return fd;
}

absl::StatusOr<UniqueFd> ConnectUnix(const std::string& path, SocketType type) {
  KVASIR_ASSIGN_OR_RETURN(const sockaddr_un address, AddressOf(path));
  UniqueFd fd(::socket(AF_UNIX, KernelType(type) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return ErrnoStatus(errno, "socket");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return ErrnoStatus(errno, "connect " + path);
  }
  return fd;
}

absl::StatusOr<PeerCredentials> GetPeerCredentials(const UniqueFd& socket) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return ErrnoStatus(errno, "getsockopt SO_PEERCRED");
  }
  return PeerCredentials{static_cast<uint32_t>(credentials.pid), credentials.uid, credentials.gid};
}

absl::StatusOr<uint64_t> SocketCookieOf(int fd) {
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (::getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) != 0) {
    return ErrnoStatus(errno, "getsockopt SO_COOKIE");
  }
  return cookie;
}

absl::Status SendMessage(const UniqueFd& socket, std::span<const std::byte> message,
                         std::span<const int> fds) {
  if (fds.size() > kFdsMax) return InvalidArgument("too many descriptors: count={}", fds.size());
  iovec part{const_cast<std::byte*>(message.data()), message.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kFdsMax)] = {};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (!fds.empty()) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(rights), fds.data(), sizeof(int) * fds.size());
  }
  if (::sendmsg(socket.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
    return ErrnoStatus(errno, "sendmsg");
  }
  return absl::OkStatus();
}

absl::StatusOr<ReceivedMessage> ReceiveMessage(const UniqueFd& socket,
                                               std::span<std::byte> buffer) {
  iovec part{buffer.data(), buffer.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kFdsMax)] = {};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  const ssize_t got = ::recvmsg(socket.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0) return ErrnoStatus(errno, "recvmsg");
  ReceivedMessage message;
  message.bytes = static_cast<uint64_t>(got);
  message.truncated = (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
  for (cmsghdr* part_header = CMSG_FIRSTHDR(&header); part_header != nullptr;
       part_header = CMSG_NXTHDR(&header, part_header)) {
    if (part_header->cmsg_level != SOL_SOCKET || part_header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part_header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part_header) + i * sizeof(int), sizeof(int));
      message.fds.emplace_back(fd);
    }
  }
  return message;
}

}  // namespace kvasir
