// UnreadCalls: a connection on the control socket that asks and never reads an answer. HTTP/2 by
// hand, since gRPC's own client always reads.
#ifndef KVASIR_CLIENT_ATTACK_UNREAD_CALLS_H_
#define KVASIR_CLIENT_ATTACK_UNREAD_CALLS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <absl/status/statusor.h>

#include "base/posix.h"

namespace kvasir::attack {

// Not thread-safe. Never waits.
class UnreadCalls {
 public:
  // Connects and says HTTP/2's preface. Errors: as ConnectUnix(), and kUnavailable (hung up).
  static absl::StatusOr<UnreadCalls> Connect(const std::string& control_socket);

  // One more call of `method`, e.g. "/kvasir.v1.Admin/GetStats", with an encoded request of under
  // 16 KiB; `token` goes along where it is not empty. REQUIRES: a method and a token of at most 126
  // bytes. Errors: kDeadlineExceeded (the daemon takes no more for now; a piece of the call may
  // have gone, so that the connection is of no use), kUnavailable (it has hung up).
  absl::Status Send(std::string_view method, std::string_view token, std::string_view request);

  const UniqueFd& socket() const { return socket_; }

 private:
  explicit UnreadCalls(UniqueFd socket) : socket_(std::move(socket)) {}

  UniqueFd socket_;
  uint32_t stream_ = 1;  // odd, ever higher
};

}  // namespace kvasir::attack

#endif  // KVASIR_CLIENT_ATTACK_UNREAD_CALLS_H_
