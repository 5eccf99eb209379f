#include "base/error.h"
#include "daemon/control/endpoints.h"
#include "daemon/control/status_convert.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace kvasir {
namespace {

namespace health = grpc::health::v1;

class HealthEndpoint final
    : public health::Health::WithCallbackMethod_Check<health::Health::Service> {
 public:
  // Errors: NOT_FOUND for any service but the whole server, "".
  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context,
                                  const health::HealthCheckRequest* request,
                                  health::HealthCheckResponse* response) override {
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    response->set_status(health::HealthCheckResponse::SERVING);
    reactor->Finish(request->service().empty()
                        ? grpc::Status::OK
                        : ToGrpc(NotFound("only the whole server has a health: service is to be "
                                          "empty")));
    return reactor;
  }
};

}  // namespace

std::unique_ptr<grpc::Service> MakeHealthEndpoint() { return std::make_unique<HealthEndpoint>(); }

}  // namespace kvasir
