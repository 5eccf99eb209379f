// UniqueFd and the few system calls that several folders need, with errors as absl::Status.
#ifndef KVASIR_BASE_POSIX_H_
#define KVASIR_BASE_POSIX_H_

#include <cstdint>
#include <string>
#include <utility>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

namespace kvasir {

// Owns a file descriptor; closes it. Move-only; moved-from is empty (-1).
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

// Status for `errno_value` after `call`: ENOMEM, ENOSPC, EMFILE -> kResourceExhausted, EACCES,
// EPERM -> kPermissionDenied, ENOENT -> kNotFound, EEXIST, EADDRINUSE -> kAlreadyExists,
// ECONNREFUSED, EPIPE, ECONNRESET -> kUnavailable, EAGAIN, ETIMEDOUT -> kDeadlineExceeded, else
// kInternal.
absl::Status ErrnoStatus(int errno_value, const std::string& call);

// A fresh open of the same file (/proc/self/fd/N), not a dup: a lease probe sees its mappings, and
// its flags are its own. `flags` as for open(2): O_RDONLY or O_RDWR.
absl::StatusOr<UniqueFd> Reopen(const UniqueFd& fd, int flags);

// Waits for readability. Returns true when readable or hung up, false at the time-out.
absl::StatusOr<bool> WaitReadable(int fd, int timeout_ms);

// Cryptographically random bytes (getrandom).
absl::Status FillRandom(void* data, uint64_t bytes);

}  // namespace kvasir

#endif  // KVASIR_BASE_POSIX_H_
