#include "allocator/tier/remote_connection.h"

#include <errno.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <utility>

#include "allocator/tier/block_header.h"
#include "base/error.h"
#include "base/posix.h"
#include "base/status_macros.h"

#include <fmt/format.h>
#include <hiredis/hiredis.h>
#include <poll.h>

namespace kvasir {
namespace {

constexpr size_t kBufferBytes = 64 << 10;
constexpr size_t kLineBytesMax = 4096;
constexpr size_t kTextMax = 200;
constexpr size_t kTreeBytesMax = 64 << 20;
constexpr size_t kTreeElementsMax = 1 << 20;  // of all arrays; a page of SCAN has some thousand
constexpr size_t kPartsMax = 1024;            // IOV_MAX of Linux
constexpr uint64_t kBulkBytesMax = kTierPayloadBytesMax + kBlockHeaderBytes;

std::string Printable(std::string_view text) {
  std::string printable(text.substr(0, kTextMax));
  for (char& c : printable) {
    if (c < ' ' || c > '~') c = '?';
  }
  return printable;
}

// Hiredis's own way to make a reply. It never changes.
const redisReplyObjectFunctions& PlainReplies() {
  static const redisReplyObjectFunctions* const plain = [] {
    redisReader* const reader = ::redisReaderCreate();
    const redisReplyObjectFunctions* const functions = reader->fn;
    ::redisReaderFree(reader);
    return functions;
  }();
  return *plain;
}

// Hiredis takes memory for as many elements as an array's first line says, before any has come: ten
// bytes would cost 16 GiB. `Count` is another type in another version. Null ends the reading.
template <typename Count>
void* CreateBoundedArray(const redisReadTask* task, Count elements) {
  auto& left = *static_cast<size_t*>(task->privdata);
  if (elements < 0 || static_cast<size_t>(elements) > left) {
    left = 0;
    return nullptr;
  }
  left -= static_cast<size_t>(elements);
  return PlainReplies().createArray(task, elements);
}

timeval ToTimeval(std::chrono::milliseconds time) {
  return {.tv_sec = time.count() / 1000, .tv_usec = time.count() % 1000 * 1000};
}

}  // namespace

std::string RemoteServer::Name() const {
  return unix_path.empty() ? fmt::format("{}:{}", host, port) : fmt::format("unix:{}", unix_path);
}

void AppendArgument(std::string& command, std::string_view argument) {
  command += fmt::format("${}\r\n", argument.size());
  command += argument;
  command += "\r\n";
}

absl::Status RemoteErrorStatus(const std::string& text) {
  if (text.starts_with("OOM")) return ResourceExhausted("server is full: text={}", text);
  if (text.starts_with("NOAUTH") || text.starts_with("WRONGPASS") || text.starts_with("NOPERM")) {
    return PermissionDenied("server refuses: text={}", text);
  }
  return Unavailable("server answers with an error: text={}", text);
}

void RemoteConnection::FreeContext::operator()(redisContext* context) const {
  ::redisFree(context);
}
void RemoteConnection::FreeReply::operator()(redisReply* reply) const { ::freeReplyObject(reply); }

RemoteConnection::RemoteConnection(redisContext* context)
    : context_(context), buffer_(kBufferBytes) {}
RemoteConnection::~RemoteConnection() = default;

int RemoteConnection::fd() const { return context_->fd; }

absl::StatusOr<std::unique_ptr<RemoteConnection>> RemoteConnection::Connect(
    const RemoteServer& server, std::chrono::milliseconds timeout) {
  const Instant deadline = SystemClock().Now() + timeout;
  redisContext* context =
      server.unix_path.empty()
          ? ::redisConnectWithTimeout(server.host.c_str(), server.port, ToTimeval(timeout))
          : ::redisConnectUnixWithTimeout(server.unix_path.c_str(), ToTimeval(timeout));
  if (context == nullptr) return Unavailable("no memory for a connection");
  std::unique_ptr<RemoteConnection> connection(new RemoteConnection(context));
  if (context->err != 0) {
    const std::string text =
        fmt::format("connect failed: server={} text={}", server.Name(), Printable(context->errstr));
    const bool late = SystemClock().Now() >= deadline;
    return MakeError(late ? absl::StatusCode::kDeadlineExceeded : absl::StatusCode::kUnavailable,
                     text);
  }
  if (server.unix_path.empty()) (void)::redisEnableKeepAlive(context);
  if (!server.password.empty()) {
    const std::array<std::string_view, 2> auth = {"AUTH", server.password};
    KVASIR_RETURN_IF_ERROR(connection->SendCommand(auth, deadline));
    KVASIR_ASSIGN_OR_RETURN(const RemoteReply reply, connection->ReadReply(deadline));
    if (reply.kind != RemoteReply::Kind::kSimple) {
      return PermissionDenied("server refuses the password: server={} text={}", server.Name(),
                              reply.text);
    }
  }
  return connection;
}

bool RemoteConnection::IsQuiet() const {
  pollfd poll_fd = {.fd = fd(), .events = POLLIN, .revents = 0};
  return begin_ == end_ && ::poll(&poll_fd, 1, 0) == 0;
}

absl::Status RemoteConnection::WaitFor(short events, Instant deadline) const {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - SystemClock().Now());
    if (left.count() <= 0) return DeadlineExceeded("server does not answer in time");
    pollfd poll_fd = {.fd = fd(), .events = events, .revents = 0};
    const int ready =
        ::poll(&poll_fd, 1, static_cast<int>(std::min<int64_t>(left.count(), 60'000)));
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return ErrnoStatus(errno, "poll");
  }
}

absl::Status RemoteConnection::Send(std::span<const iovec> parts, Instant deadline) {
  std::vector<iovec> left(parts.begin(), parts.end());
  for (size_t first = 0; first < left.size();) {
    msghdr message = {};
    message.msg_iov = left.data() + first;
    message.msg_iovlen = std::min(kPartsMax, left.size() - first);
    const ssize_t sent = ::sendmsg(fd(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) return Unavailable("send failed: errno={}", errno);
      KVASIR_RETURN_IF_ERROR(WaitFor(POLLOUT, deadline));
      continue;
    }
    auto bytes = static_cast<size_t>(sent);
    while (first < left.size() && bytes >= left[first].iov_len) bytes -= left[first++].iov_len;
    if (bytes > 0) {
      left[first].iov_base = static_cast<std::byte*>(left[first].iov_base) + bytes;
      left[first].iov_len -= bytes;
    }
  }
  return absl::OkStatus();
}

absl::Status RemoteConnection::SendCommand(std::span<const std::string_view> arguments,
                                           Instant deadline) {
  std::string command = fmt::format("*{}\r\n", arguments.size());
  for (const std::string_view argument : arguments) AppendArgument(command, argument);
  const iovec part = {command.data(), command.size()};
  return Send(std::span(&part, 1), deadline);
}

absl::StatusOr<size_t> RemoteConnection::Receive(std::span<iovec> parts, Instant deadline) {
  while (true) {
    msghdr message = {};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    const ssize_t got = ::recvmsg(fd(), &message, MSG_DONTWAIT);
    if (got > 0) return static_cast<size_t>(got);
    if (got == 0) return Unavailable("server has hung up");
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return Unavailable("receive failed: errno={}", errno);
    KVASIR_RETURN_IF_ERROR(WaitFor(POLLIN, deadline));
  }
}

absl::Status RemoteConnection::Fill(Instant deadline) {
  if (begin_ == end_) begin_ = end_ = 0;
  if (end_ == buffer_.size()) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  iovec part = {buffer_.data() + end_, buffer_.size() - end_};
  KVASIR_ASSIGN_OR_RETURN(const size_t got, Receive(std::span(&part, 1), deadline));
  end_ += got;
  return absl::OkStatus();
}

absl::StatusOr<std::string> RemoteConnection::ReadLine(Instant deadline) {
  size_t seen = 0;
  while (true) {
    const std::string_view text(reinterpret_cast<const char*>(buffer_.data()) + begin_,
                                end_ - begin_);
    const size_t end = text.find("\r\n", seen);
    if (end != std::string_view::npos) {
      std::string line(text.substr(0, end));
      begin_ += end + 2;
      return line;
    }
    if (text.size() > kLineBytesMax) {
      return DataLoss("server's answer has no end of line: bytes={}", text.size());
    }
    seen = text.empty() ? 0 : text.size() - 1;  // "\r" may be the last one
    KVASIR_RETURN_IF_ERROR(Fill(deadline));
  }
}

absl::StatusOr<RemoteReply> RemoteConnection::ReadReply(Instant deadline) {
  KVASIR_ASSIGN_OR_RETURN(const std::string line, ReadLine(deadline));
  if (line.empty()) return DataLoss("server's answer is empty");
  const std::string_view rest = std::string_view(line).substr(1);
  RemoteReply reply;
  if (line[0] == '+' || line[0] == '-') {
    reply.kind = line[0] == '+' ? RemoteReply::Kind::kSimple : RemoteReply::Kind::kError;
    reply.text = Printable(rest);
    return reply;
  }
  int64_t number = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
  if (error != std::errc() || end != rest.data() + rest.size()) {
    return DataLoss("server's answer is no number: text={}", Printable(line));
  }
  if (line[0] == ':') {
    reply.kind = RemoteReply::Kind::kInteger;
    reply.integer = number;
    return reply;
  }
  if (line[0] != '$' || number < -1 || number > static_cast<int64_t>(kBulkBytesMax)) {
    return DataLoss("server's answer is out of bounds: text={} max={}", Printable(line),
                    kBulkBytesMax);
  }
  if (number >= 0) {
    reply.kind = RemoteReply::Kind::kBulk;
    reply.bytes = static_cast<uint64_t>(number);
  }
  return reply;
}

absl::StatusOr<size_t> RemoteConnection::Take(std::span<std::byte> to, Instant deadline) {
  if (begin_ < end_) {
    const size_t bytes = std::min(to.size(), end_ - begin_);
    std::memcpy(to.data(), buffer_.data() + begin_, bytes);
    begin_ += bytes;
    return bytes;
  }
  // What comes behind the caller's last bytes goes into the buffer, which is empty.
  begin_ = end_ = 0;
  std::array<iovec, 2> parts = {iovec{to.data(), to.size()}, {buffer_.data(), buffer_.size()}};
  const size_t count = to.size() < buffer_.size() ? 2 : 1;
  KVASIR_ASSIGN_OR_RETURN(const size_t got, Receive(std::span(parts).first(count), deadline));
  if (got > to.size()) end_ = got - to.size();
  return std::min(got, to.size());
}

absl::Status RemoteConnection::TakeAll(std::span<std::byte> to, Instant deadline) {
  while (!to.empty()) {
    KVASIR_ASSIGN_OR_RETURN(const size_t got, Take(to, deadline));
    to = to.subspan(got);
  }
  return absl::OkStatus();
}

absl::Status RemoteConnection::Skip(uint64_t bytes, Instant deadline) {
  while (bytes > 0) {
    if (begin_ == end_) KVASIR_RETURN_IF_ERROR(Fill(deadline));
    const size_t here = std::min<uint64_t>(bytes, end_ - begin_);
    begin_ += here;
    bytes -= here;
  }
  return absl::OkStatus();
}

absl::Status RemoteConnection::EndBulk(Instant deadline) {
  std::array<std::byte, 2> end{};
  KVASIR_RETURN_IF_ERROR(TakeAll(end, deadline));
  if (end[0] == std::byte{'\r'} && end[1] == std::byte{'\n'}) return absl::OkStatus();
  return DataLoss("server's answer does not end where it said");
}

absl::StatusOr<RemoteConnection::Tree> RemoteConnection::ReadTree(Instant deadline) {
  struct FreeReader {
    void operator()(redisReader* reader) const { ::redisReaderFree(reader); }
  };
  redisReplyObjectFunctions functions = PlainReplies();
  functions.createArray = CreateBoundedArray;
  const std::unique_ptr<redisReader, FreeReader> reader(
      ::redisReaderCreateWithFunctions(&functions));
  size_t elements_left = kTreeElementsMax;
  reader->privdata = &elements_left;
  size_t bytes = 0;
  while (true) {
    bytes += end_ - begin_;
    if (bytes > kTreeBytesMax) return DataLoss("server's answer is too long: bytes={}", bytes);
    const auto* const text = reinterpret_cast<const char*>(buffer_.data()) + begin_;
    void* reply = nullptr;
    if (::redisReaderFeed(reader.get(), text, end_ - begin_) != REDIS_OK ||
        ::redisReaderGetReply(reader.get(), &reply) != REDIS_OK) {
      return DataLoss("server's answer is not the protocol, or has too many parts: text={} max={}",
                      Printable(reader->errstr), kTreeElementsMax);
    }
    begin_ = end_;
    if (reply != nullptr) return Tree(static_cast<redisReply*>(reply));
    KVASIR_RETURN_IF_ERROR(Fill(deadline));
  }
}

}  // namespace kvasir
