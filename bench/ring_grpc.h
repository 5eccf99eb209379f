// The way that a border takes without a ring: a unary gRPC call over the daemon's Unix socket. And
// a call of the same library that does nothing, by a server of its own process.
#ifndef KVASIR_BENCH_RING_GRPC_H_
#define KVASIR_BENCH_RING_GRPC_H_

#include <sys/types.h>

#include <memory>
#include <string>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/unix_socket.h"
#include "bench/daemon_process.h"
#include "client/control_channel.h"

namespace kvasir::bench {

// Not thread-safe. A session of a daemon of its own.
class GrpcExchange {
 public:
  // `cpu`: where the daemon is put; -1: anywhere.
  static absl::StatusOr<std::unique_ptr<GrpcExchange>> Start(int cpu);

  // A Sync that names a sequence that is not there: the whole way, and next to no work at its end.
  absl::Status Call();

 private:
  std::unique_ptr<DaemonProcess> daemon_;
  UniqueFd socket_;
  std::unique_ptr<ControlChannel> channel_;
};

// Not thread-safe. The simplest callback server that the library makes, with the daemon's channel
// settings for the client, on a Unix socket.
class EmptyGrpcExchange {
 public:
  // Starts this program with kOption and a path. `cpu`: where that is put; -1: anywhere.
  static absl::StatusOr<std::unique_ptr<EmptyGrpcExchange>> Start(int cpu);
  ~EmptyGrpcExchange();
  EmptyGrpcExchange(const EmptyGrpcExchange&) = delete;
  EmptyGrpcExchange& operator=(const EmptyGrpcExchange&) = delete;

  // An empty message there, an empty one back; no deadline, no metadata.
  absl::Status CallBare();
  // The same as a session of Kvasir calls: with a deadline and a token.
  absl::Status CallPrepared();

  // Of the command line by which the server is started, and what runs it there, until it is killed.
  static constexpr char kOption[] = "--empty-grpc-server";
  static absl::Status Serve(const std::string& path);

 private:
  EmptyGrpcExchange() = default;
  std::string folder_;
  pid_t pid_ = -1;
  std::unique_ptr<v1::KvCache::Stub> stub_;
  std::unique_ptr<ControlChannel> channel_;
};

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_RING_GRPC_H_
