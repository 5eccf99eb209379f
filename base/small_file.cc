#include "base/small_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>

#include "base/error.h"
#include "base/posix.h"
#include "base/status_macros.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

absl::Status WriteAll(const std::string& path, std::string_view bytes, mode_t mode) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!fd) return ErrnoStatus(errno, fmt::format("open {}", path));
  while (!bytes.empty()) {
    const ssize_t wrote = ::write(fd.get(), bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return ErrnoStatus(errno, fmt::format("write {}", path));
    bytes.remove_prefix(static_cast<size_t>(wrote));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, uint64_t bytes_max) {
  // O_NONBLOCK: a fifo must not hang the caller; regular files do not mind.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return ErrnoStatus(errno, fmt::format("open {}", path));
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, fmt::format("stat {}", path));
  if (!S_ISREG(info.st_mode)) return InvalidArgument("{}: not a regular file", path);
  std::string bytes;
  char buffer[1 << 14];
  while (bytes.size() <= bytes_max) {
    const ssize_t got = ::read(fd.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, fmt::format("read {}", path));
    if (got == 0) return bytes;
    bytes.append(buffer, static_cast<size_t>(got));
  }
  return InvalidArgument("{}: file too large: max_bytes={}", path, bytes_max);
}

absl::Status ReplaceFile(const std::string& path, std::string_view bytes, mode_t mode) {
  const std::string unfinished = path + ".unfinished";
  (void)::unlink(unfinished.c_str());  // of a run that was cut off
  absl::Status status = WriteAll(unfinished, bytes, mode);
  if (status.ok() && std::rename(unfinished.c_str(), path.c_str()) != 0) {
    status = ErrnoStatus(errno, fmt::format("rename onto {}", path));
  }
  if (!status.ok()) (void)::unlink(unfinished.c_str());
  return status;
}

}  // namespace kvasir
