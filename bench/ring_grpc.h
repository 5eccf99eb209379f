// The way that a border takes without a ring: a unary gRPC call over the daemon's Unix socket.
#ifndef KVASIR_BENCH_RING_GRPC_H_
#define KVASIR_BENCH_RING_GRPC_H_

#include <memory>

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

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_RING_GRPC_H_
