// Endpoints: the services that gRPC is given. They know who calls, have calls run in turn, and
// leave what is asked to the services behind them.
#ifndef KVASIR_DAEMON_CONTROL_ENDPOINTS_H_
#define KVASIR_DAEMON_CONTROL_ENDPOINTS_H_

#include <memory>

#include <grpcpp/impl/codegen/service_type.h>

#include "daemon/control/admin_service.h"
#include "daemon/control/audit_log.h"
#include "daemon/control/call_executor.h"
#include "daemon/control/caller.h"
#include "daemon/control/kv_cache_service.h"

namespace kvasir {

// What every call passes. All must outlive the server.
struct CallGate {
  CallExecutor& executor;
  const CallerRegistry& callers;
  AuditLog& audit;  // of refusals
};

// Thread-safe. What is given must outlive the server.
std::unique_ptr<grpc::Service> MakeKvCacheEndpoint(const CallGate& gate, KvCacheService& service);
// Streams, and what waits for long, hold a thread of gRPC's each.
std::unique_ptr<grpc::Service> MakeAdminEndpoint(const CallGate& gate, AdminService& service);
// gRPC's health checking protocol, as far as one question after another goes. Who gets an answer is
// served, since calls are taken from when all is there until the stop. Not gRPC's own, whose two
// threads sleep by the wall clock: after a jump back of that clock they hold the daemon's stop
// until it has come again.
std::unique_ptr<grpc::Service> MakeHealthEndpoint();

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_ENDPOINTS_H_
