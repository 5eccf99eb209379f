// HealthService: gRPC's health checking protocol, as far as one question after another goes.
//
// Not gRPC's own, whose two threads sleep by the wall clock: after a jump back of that clock they
// hold the daemon's stop until it has come again.
#ifndef KVASIR_DAEMON_CONTROL_HEALTH_SERVICE_H_
#define KVASIR_DAEMON_CONTROL_HEALTH_SERVICE_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include "grpc/health/v1/health.grpc.pb.h"

namespace kvasir {

// Thread-safe: it has no state.
class HealthService final : public grpc::health::v1::Health::Service {
 public:
  // Who gets an answer is served, since calls are taken from when all is there until the stop.
  // Errors: NOT_FOUND for any service but the whole server, "".
  grpc::Status Check(grpc::ServerContext* context,
                     const grpc::health::v1::HealthCheckRequest* request,
                     grpc::health::v1::HealthCheckResponse* response) override;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_HEALTH_SERVICE_H_
