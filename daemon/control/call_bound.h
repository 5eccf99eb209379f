// CallBound: how many calls of one tenant are in gRPC at a time, from their beginning until their
// answer has gone.
//
// Each holds memory for so long, and some a thread, also when nobody reads the answer: a peer that
// only asks would have the daemon grow without end. The connection of what is beyond the bound is
// closed, and not the call alone: that would cost the daemon more than the peer, and make room for
// the next one. CallExecutor refuses with a reason what is to run; this one is larger, and the last
// resort.
#ifndef KVASIR_DAEMON_CONTROL_CALL_BOUND_H_
#define KVASIR_DAEMON_CONTROL_CALL_BOUND_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>

#include <grpcpp/support/server_interceptor.h>

#include "base/mutex.h"
#include "daemon/control/audit_log.h"
#include "daemon/control/caller.h"

namespace kvasir {

// Thread-safe. Cost: a lock for a few instructions, twice a call.
class CallBound {
 public:
  // Refusals go into `audit`. Both must outlive it.
  CallBound(CallerRegistry& callers, AuditLog& audit, uint32_t calls_max)
      : callers_(callers), audit_(audit), calls_max_(calls_max) {}

  // For the server's builder. The factory refers to this bound, which must outlive the server.
  std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeFactory();

 private:
  class Factory;
  class Watch;
  // False: there are too many.
  bool Enter(size_t slot);
  void Leave(size_t slot);

  CallerRegistry& callers_;
  AuditLog& audit_;
  const uint32_t calls_max_;
  Mutex mutex_;
  std::map<size_t, uint32_t> calls_ ABSL_GUARDED_BY(mutex_);  // by slot of CallExecutor
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_CALL_BOUND_H_
