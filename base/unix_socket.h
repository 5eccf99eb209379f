// Unix sockets: listen, connect, peer credentials, messages with file descriptors. No call blocks.
#ifndef KVASIR_BASE_UNIX_SOCKET_H_
#define KVASIR_BASE_UNIX_SOCKET_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/posix.h"

namespace kvasir {

enum class SocketType { kStream, kSeqPacket };

// Listens on `path` with the given mode. A file that nobody listens on is removed first.
// Errors: kAlreadyExists when somebody does; kInvalidArgument for a path over 107 bytes.
absl::StatusOr<UniqueFd> ListenUnix(const std::string& path, SocketType type, uint32_t mode);

// Never waits. Errors: kUnavailable when nobody listens, kNotFound when there is no such file,
// kDeadlineExceeded when the listener's backlog is full. The socket is non-blocking.
absl::StatusOr<UniqueFd> ConnectUnix(const std::string& path, SocketType type);

struct PeerCredentials {
  uint32_t pid = 0, uid = 0, gid = 0;
};
// Who connected, by the kernel's word (SO_PEERCRED): the credentials at connect time.
absl::StatusOr<PeerCredentials> GetPeerCredentials(const UniqueFd& socket);

// Which socket it is: the kernel gives no number twice. Errors: ErrnoStatus() for what is none.
absl::StatusOr<uint64_t> SocketCookieOf(int fd);

// Sends one message with file descriptors; never blocks, never raises SIGPIPE.
// Errors: kUnavailable (hung up), kDeadlineExceeded (the peer does not read).
absl::Status SendMessage(const UniqueFd& socket, std::span<const std::byte> message,
                         std::span<const int> fds);

struct ReceivedMessage {
  uint64_t bytes = 0;      // 0: hung up
  bool truncated = false;  // longer than the buffer
  std::vector<UniqueFd> fds;
};
// Receives one message if there is one. Errors: kDeadlineExceeded when there is none.
absl::StatusOr<ReceivedMessage> ReceiveMessage(const UniqueFd& socket, std::span<std::byte> buffer);

}  // namespace kvasir

#endif  // KVASIR_BASE_UNIX_SOCKET_H_
