// TextSocket: a blocking client's end of protocols of lines and payloads, as those of Redis and
// memcached are. Payloads are received where they are wanted, without a copy between: the fastest
// that such a protocol can be on this side. Not thread-safe.
#ifndef KVASIR_BENCH_TEXT_SOCKET_H_
#define KVASIR_BENCH_TEXT_SOCKET_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/posix.h"

namespace kvasir::bench {

class TextSocket {
 public:
  // Errors: as ConnectUnix().
  static absl::StatusOr<TextSocket> Connect(const std::string& path);

  // Sends all of it, in order. Errors: kUnavailable.
  absl::Status Send(std::string_view head, std::span<const std::byte> payload = {},
                    std::string_view tail = {});

  // A line without its end (CR LF); valid until the next call. Errors: kUnavailable (hung up),
  // kDataLoss (over 64 KiB).
  absl::StatusOr<std::string_view> ReadLine();

  // Exactly into.size() bytes. Errors: kUnavailable.
  absl::Status ReadInto(std::span<std::byte> into);
  // The end of a line that follows a payload.
  absl::Status ReadLineEnd();

 private:
  explicit TextSocket(UniqueFd fd) : fd_(std::move(fd)), buffer_(64 << 10) {}
  absl::StatusOr<size_t> Receive(char* into, size_t bytes);

  UniqueFd fd_;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;  // what was received and not used
};

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_TEXT_SOCKET_H_
