// ControlChannel: the gRPC calls of one session, each with the token and a deadline.
#ifndef KVASIR_CLIENT_CONTROL_CHANNEL_H_
#define KVASIR_CLIENT_CONTROL_CHANNEL_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include <absl/status/status.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include "kvasir/v1/admin.grpc.pb.h"
#include "kvasir/v1/kv_cache.grpc.pb.h"

namespace kvasir {

// What the daemon says stands behind a kResourceExhausted.
void AttachTo(const v1::Shortage& shortage, absl::Status* status);

// Thread-safe.
class ControlChannel {
 public:
  ControlChannel(const std::string& socket_path, std::string token_hex,
                 std::chrono::milliseconds deadline);

  // Calls `method` of the stub. Errors: the daemon's, kUnavailable, kDeadlineExceeded.
  template <typename Request, typename Response>
  absl::Status Call(grpc::Status (v1::KvCache::Stub::*method)(grpc::ClientContext*, const Request&,
                                                              Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    Prepare(context);
    return FromGrpc(((*stub_).*method)(&context, request, response));
  }
  // Likewise of the service that tells what there is; a session sees what is its tenant's.
  template <typename Request, typename Response>
  absl::Status Call(grpc::Status (v1::Admin::Stub::*method)(grpc::ClientContext*, const Request&,
                                                            Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    Prepare(context);
    return FromGrpc(((*admin_).*method)(&context, request, response));
  }

  uint64_t calls() const { return calls_.load(std::memory_order_relaxed); }

 private:
  void Prepare(grpc::ClientContext& context);
  static absl::Status FromGrpc(const grpc::Status& status);

  const std::string token_hex_;
  const std::chrono::milliseconds deadline_;
  std::unique_ptr<v1::KvCache::Stub> stub_;
  std::unique_ptr<v1::Admin::Stub> admin_;  // on the same connection
  std::atomic<uint64_t> calls_{0};
};

}  // namespace kvasir

#endif  // KVASIR_CLIENT_CONTROL_CHANNEL_H_
