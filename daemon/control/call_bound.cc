#include "daemon/control/call_bound.h"

#include <optional>
#include <string>

#include <grpcpp/server_context.h>
#include <grpcpp/support/interceptor.h>

#include "base/clock.h"
#include "base/error.h"

namespace kvasir {

namespace {

// The base of all contexts has it, but for itself.
std::string PeerOf(const grpc::ServerContextBase& context) {
  if (const auto* one = dynamic_cast<const grpc::ServerContext*>(&context)) return one->peer();
  const auto* other = dynamic_cast<const grpc::CallbackServerContext*>(&context);
  return other == nullptr ? "" : other->peer();
}

}  // namespace

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
      const auto caller = bound_.callers_.CallerOf(PeerOf(*context_));
      if (caller.ok() && !bound_.Enter(caller->slot)) {
        bound_.audit_.NoteRefusal(
            {"call", CredentialsOf(caller->peer), "", {}},
            ResourceExhausted(
                "too many calls of this tenant are under way, the connection is closed: max={}",
                bound_.calls_max_));
        bound_.callers_.Close(PeerOf(*context_), SystemClock().Now());
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
