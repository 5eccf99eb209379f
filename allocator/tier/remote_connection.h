// RemoteConnection: one connection to a Redis or Valkey server: hiredis connects, and the bytes of
// blocks go between the socket and the caller's memory without a copy in between.
//
// Not thread-safe. After any error but kInvalidArgument the stream is out of step: throw it away.
// What the server says is not trusted: lengths are bounded, text is cut.
#ifndef KVASIR_ALLOCATOR_TIER_REMOTE_CONNECTION_H_
#define KVASIR_ALLOCATOR_TIER_REMOTE_CONNECTION_H_

#include <sys/uio.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/clock.h"

struct redisContext;
struct redisReply;

namespace kvasir {

struct RemoteServer {
  std::string unix_path;  // absolute; or empty, and then:
  std::string host;
  uint16_t port = 6379;
  std::string password;  // empty: no AUTH

  // "unix:/path" or "host:port": for messages, and the name that keys are shared out by.
  std::string Name() const;
};

struct RemoteReply {
  enum class Kind { kSimple, kError, kInteger, kNil, kBulk };
  Kind kind = Kind::kNil;
  std::string text;     // of kSimple and kError, printable, at most 200 characters
  int64_t integer = 0;  // of kInteger
  uint64_t bytes = 0;   // of kBulk: so many follow, to be taken by Take() or Skip(), then EndBulk()
};

class RemoteConnection {
 public:
  // Connects and authenticates. Errors: kUnavailable, kDeadlineExceeded, kPermissionDenied (the
  // password is wrong or missing). Cost: a look-up of the host's name has no time-out of its own.
  static absl::StatusOr<std::unique_ptr<RemoteConnection>> Connect(
      const RemoteServer& server, std::chrono::milliseconds timeout);
  ~RemoteConnection();

  // Nothing waits to be read and the server has not hung up.
  bool IsQuiet() const;

  // All of these wait until `deadline` at most. Errors: kDeadlineExceeded, kUnavailable (hung up),
  // kDataLoss (not the protocol).
  absl::Status Send(std::span<const iovec> parts, Instant deadline);
  // Sends a command of short arguments.
  absl::Status SendCommand(std::span<const std::string_view> arguments, Instant deadline);
  absl::StatusOr<RemoteReply> ReadReply(Instant deadline);
  // Some bytes of a bulk reply, at least one, straight into `to`; how many came.
  absl::StatusOr<size_t> Take(std::span<std::byte> to, Instant deadline);
  absl::Status TakeAll(std::span<std::byte> to, Instant deadline);
  absl::Status Skip(uint64_t bytes, Instant deadline);
  absl::Status EndBulk(Instant deadline);

  // A reply of arrays, in hiredis's form.
  struct FreeReply {
    void operator()(redisReply* reply) const;
  };
  using Tree = std::unique_ptr<redisReply, FreeReply>;
  absl::StatusOr<Tree> ReadTree(Instant deadline);

 private:
  explicit RemoteConnection(redisContext* context);

  int fd() const;
  absl::Status WaitFor(short events, Instant deadline) const;
  // Receives into `parts`, in order; how many bytes came.
  absl::StatusOr<size_t> Receive(std::span<iovec> parts, Instant deadline);
  absl::Status Fill(Instant deadline);
  absl::StatusOr<std::string> ReadLine(Instant deadline);

  struct FreeContext {
    void operator()(redisContext* context) const;
  };
  std::unique_ptr<redisContext, FreeContext> context_;
  std::vector<std::byte> buffer_;  // received and not taken: [begin_, end_)
  size_t begin_ = 0;
  size_t end_ = 0;
};

// "$3\r\nSET\r\n": one argument of a command. The text for a head is "*N\r\n" and its arguments.
void AppendArgument(std::string& command, std::string_view argument);

// kResourceExhausted for OOM, kPermissionDenied for NOAUTH and kin, else kUnavailable.
absl::Status RemoteErrorStatus(const std::string& text);

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_REMOTE_CONNECTION_H_
