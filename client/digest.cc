#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <vector>

#include "base/posix.h"
#include "client/model_spec.h"

#include <sodium.h>

namespace kvasir {

absl::StatusOr<std::string> DigestFile(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return ErrnoStatus(errno, "open " + path);
  crypto_generichash_state state;
  ::crypto_generichash_init(&state, nullptr, 0, crypto_generichash_BYTES);
  std::vector<unsigned char> buffer(1 << 20);
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, "read " + path);
    if (got == 0) break;
    ::crypto_generichash_update(&state, buffer.data(), static_cast<unsigned long long>(got));
  }
  std::array<unsigned char, crypto_generichash_BYTES> digest{};
  ::crypto_generichash_final(&state, digest.data(), digest.size());
  return std::string(digest.begin(), digest.end());
}

}  // namespace kvasir
