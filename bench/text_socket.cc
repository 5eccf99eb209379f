#include "bench/text_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "base/unix_socket.h"

namespace kvasir::bench {

absl::StatusOr<TextSocket> TextSocket::Connect(const std::string& path) {
  KVASIR_ASSIGN_OR_RETURN(UniqueFd fd, ConnectUnix(path, SocketType::kStream));
  if (::fcntl(fd.get(), F_SETFL, 0) != 0) return ErrnoStatus(errno, "fcntl");  // blocking
  return TextSocket(std::move(fd));
}

absl::Status TextSocket::Send(std::string_view head, std::span<const std::byte> payload,
                              std::string_view tail) {
  iovec parts[] = {{const_cast<char*>(head.data()), head.size()},
                   {const_cast<std::byte*>(payload.data()), payload.size()},
                   {const_cast<char*>(tail.data()), tail.size()}};
  for (size_t first = 0; first < std::size(parts);) {
    if (parts[first].iov_len == 0) {
      ++first;
      continue;
    }
    msghdr message{};
    message.msg_iov = parts + first;
    message.msg_iovlen = std::size(parts) - first;
    ssize_t sent = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return ErrnoStatus(errno, "sendmsg");
    for (iovec& part : parts) {
      const size_t of_part = std::min(part.iov_len, static_cast<size_t>(sent));
      part.iov_base = static_cast<char*>(part.iov_base) + of_part;
      part.iov_len -= of_part;
      sent -= static_cast<ssize_t>(of_part);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<size_t> TextSocket::Receive(char* into, size_t bytes) {
  for (;;) {
    const ssize_t got = ::recv(fd_.get(), into, bytes, 0);
    if (got > 0) return static_cast<size_t>(got);
    if (got == 0) return Unavailable("the server has hung up");
    if (errno != EINTR) return ErrnoStatus(errno, "recv");
  }
}

absl::StatusOr<std::string_view> TextSocket::ReadLine() {
  for (;;) {
    const std::string_view there(buffer_.data() + begin_, end_ - begin_);
    const size_t length = there.find("\r\n");
    if (length != std::string_view::npos) {
      begin_ += length + 2;
      return there.substr(0, length);
    }
    if (there.size() == buffer_.size()) return DataLoss("a line is too long");
    std::memmove(buffer_.data(), there.data(), there.size());
    begin_ = 0;
    end_ = there.size();
    // A payload may follow: what comes with the line has to be copied, so little is asked for.
    const size_t wanted = std::min<size_t>(buffer_.size() - end_, 128);
    KVASIR_ASSIGN_OR_RETURN(const size_t got, Receive(buffer_.data() + end_, wanted));
    end_ += got;
  }
}

absl::Status TextSocket::ReadInto(std::span<std::byte> into) {
  const size_t there = std::min(into.size(), end_ - begin_);
  std::memcpy(into.data(), buffer_.data() + begin_, there);
  begin_ += there;
  for (size_t at = there; at < into.size();) {
    KVASIR_ASSIGN_OR_RETURN(const size_t got,
                            Receive(reinterpret_cast<char*>(into.data() + at), into.size() - at));
    at += got;
  }
  return absl::OkStatus();
}

absl::Status TextSocket::ReadLineEnd() {
  std::byte end[2];
  KVASIR_RETURN_IF_ERROR(ReadInto(end));
  return end[0] == std::byte{'\r'} && end[1] == std::byte{'\n'} ? absl::OkStatus()
                                                                : DataLoss("a payload has no end");
}

}  // namespace kvasir::bench
