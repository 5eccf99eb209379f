#include "client/attack/unread_calls.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/status_macros.h"
#include "base/unix_socket.h"

namespace kvasir::attack {
namespace {

// RFC 9113: frame types and flags.
constexpr uint8_t kData = 0, kHeaders = 1, kSettings = 4;
constexpr uint8_t kEndStream = 1, kEndHeaders = 4;

void AppendNumber(uint64_t value, int bytes, std::string* out) {
  for (int i = bytes - 1; i >= 0; --i) out->push_back(static_cast<char>(value >> (8 * i)));
}

void AppendFrame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload,
                 std::string* out) {
  AppendNumber(payload.size(), 3, out);
  AppendNumber(type, 1, out);
  AppendNumber(flags, 1, out);
  AppendNumber(stream, 4, out);
  out->append(payload);
}

// RFC 7541, 6.2.2: a literal that enters no table, lengths of one byte.
void AppendHeader(std::string_view name, std::string_view value, std::string* out) {
  AppendNumber(0, 1, out);
  AppendNumber(name.size(), 1, out);
  out->append(name);
  AppendNumber(value.size(), 1, out);
  out->append(value);
}

absl::Status SendAll(const UniqueFd& socket, std::string_view bytes) {
  const ssize_t sent =
      ::send(socket.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0) return ErrnoStatus(errno, "send");
  if (static_cast<size_t>(sent) < bytes.size()) return ErrnoStatus(EAGAIN, "send");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<UnreadCalls> UnreadCalls::Connect(const std::string& control_socket) {
  KVASIR_ASSIGN_OR_RETURN(UniqueFd socket, ConnectUnix(control_socket, SocketType::kStream));
  std::string hello = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  AppendFrame(kSettings, 0, 0, "", &hello);
  KVASIR_RETURN_IF_ERROR(SendAll(socket, hello));
  return UnreadCalls(std::move(socket));
}

absl::Status UnreadCalls::Send(std::string_view method, std::string_view token,
                               std::string_view request) {
  std::string headers;
  AppendHeader(":method", "POST", &headers);
  AppendHeader(":scheme", "http", &headers);
  AppendHeader(":path", method, &headers);
  AppendHeader(":authority", "localhost", &headers);
  AppendHeader("te", "trailers", &headers);
  AppendHeader("content-type", "application/grpc", &headers);
  if (!token.empty()) AppendHeader("kvasir-session-token", token, &headers);
  std::string message;  // gRPC's own frame: not compressed, its length, the request
  AppendNumber(0, 1, &message);
  AppendNumber(request.size(), 4, &message);
  message.append(request);
  std::string frames;
  AppendFrame(kHeaders, kEndHeaders, stream_, headers, &frames);
  AppendFrame(kData, kEndStream, stream_, message, &frames);
  stream_ += 2;
  return SendAll(socket_, frames);
}

}  // namespace kvasir::attack
