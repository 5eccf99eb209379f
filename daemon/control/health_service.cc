#include "daemon/control/health_service.h"

#include "base/error.h"
#include "daemon/control/status_convert.h"

namespace kvasir {

grpc::Status HealthService::Check(grpc::ServerContext* /*context*/,
                                  const grpc::health::v1::HealthCheckRequest* request,
                                  grpc::health::v1::HealthCheckResponse* response) {
  if (!request->service().empty()) {
    return ToGrpc(NotFound("only the whole server has a health: service is to be empty"));
  }
  response->set_status(grpc::health::v1::HealthCheckResponse::SERVING);
  return grpc::Status::OK;
}

}  // namespace kvasir
