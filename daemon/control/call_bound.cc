#include "daemon/control/call_bound.h"

#include <optional>

#include <grpcpp/server_context.h>
#include <grpcpp/support/interceptor.h>

#include "base/error.h"

namespace kvasir {

// One call.
class CallBound::Watch : public grpc::experimental::Interceptor {
 public:
  Watch(CallBound& bound, grpc::ServerContextBase* context) : bound_(bound), context_(context) {}
  ~Watch() override {
    if (slot_) bound_.Leave(*slot_);
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    using Hook = grpc::experimental::InterceptionHookPoints;
    // Before it the context does not know its connection.
    if (methods->QueryInterceptionHookPoint(Hook::POST_RECV_INITIAL_METADATA)) {
      // Every service here is synchronous, so that this is what contexts are.
      const auto caller = bound_.callers_.CallerOf(static_cast<grpc::ServerContext&>(*context_));
      if (caller.ok() && !bound_.Enter(caller->slot)) {
        bound_.audit_.NoteRefusal(
            {"call", CredentialsOf(caller->peer), "", {}},
            ResourceExhausted("too many calls of this tenant are under way: max={}",
                              bound_.calls_max_));
        context_->TryCancel();
      } else if (caller.ok()) {
        slot_ = caller->slot;
      }
    }
    methods->Proceed();
  }

 private:
  CallBound& bound_;
  grpc::ServerContextBase* const context_;
  std::optional<size_t> slot_;  // that it is counted for
};

class CallBound::Factory : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit Factory(CallBound& bound) : bound_(bound) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    return new Watch(bound_, info->server_context());  // gRPC deletes it
  }

 private:
  CallBound& bound_;
};

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> CallBound::MakeFactory() {
  return std::make_unique<Factory>(*this);
}

bool CallBound::Enter(size_t slot) {
  MutexLock lock(mutex_);
  uint32_t& calls = calls_[slot];
  if (calls < calls_max_) {
    ++calls;
    return true;
  }
  return false;
}

void CallBound::Leave(size_t slot) {
  MutexLock lock(mutex_);
  const auto found = calls_.find(slot);
  if (--found->second == 0) calls_.erase(found);
}

}  // namespace kvasir
