#include "base/posix.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <cstring>

#include "base/error.h"

#include <fmt/format.h>
#include <poll.h>

namespace kvasir {

void UniqueFd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);  // EINTR: the descriptor is gone all the same on Linux
  fd_ = fd;
}

absl::Status ErrnoStatus(int errno_value, const std::string& call) {
  absl::StatusCode code = absl::StatusCode::kInternal;
  switch (errno_value) {
    case ENOMEM:
    case ENOSPC:
    case EMFILE:
    case ENFILE:
    case EDQUOT:
      code = absl::StatusCode::kResourceExhausted;
      break;
    case EACCES:
    case EPERM:
      code = absl::StatusCode::kPermissionDenied;
      break;
    case ENOENT:
      code = absl::StatusCode::kNotFound;
      break;
    case EEXIST:
    case EADDRINUSE:
      code = absl::StatusCode::kAlreadyExists;
      break;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
      code = absl::StatusCode::kUnavailable;
      break;
    case EAGAIN:
    case ETIMEDOUT:
      code = absl::StatusCode::kDeadlineExceeded;
      break;
    default:
      break;
  }
  return MakeError(code, fmt::format("{} failed: errno={} text={}", call, errno_value,
                                     std::strerror(errno_value)));
}

absl::StatusOr<UniqueFd> Reopen(const UniqueFd& fd, int flags) {
  const std::string path = fmt::format("/proc/self/fd/{}", fd.get());
  UniqueFd fresh(::open(path.c_str(), flags | O_CLOEXEC));
  if (!fresh) return ErrnoStatus(errno, fmt::format("open {}", path));
  return fresh;
}

absl::StatusOr<bool> WaitReadable(int fd, int timeout_ms) {
  pollfd entry{fd, POLLIN, 0};
  for (int attempt = 0; attempt < 5; ++attempt) {
    const int ready = ::poll(&entry, 1, timeout_ms);
    if (ready >= 0) return ready > 0;
    if (errno != EINTR) return ErrnoStatus(errno, "poll");
  }
  return false;
}

absl::Status FillRandom(void* data, uint64_t bytes) {
  auto* at = static_cast<unsigned char*>(data);
  while (bytes > 0) {
    const ssize_t got = ::getrandom(at, bytes, 0);
    if (got < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, "getrandom");
    }
    at += got;
    bytes -= static_cast<uint64_t>(got);
  }
  return absl::OkStatus();
}

}  // namespace kvasir
