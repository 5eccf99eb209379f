#include <optional>

#include "daemon/control/endpoints.h"
#include "daemon/control/rpc_call.h"
#include "kvasir/v1/admin.grpc.pb.h"

namespace kvasir {
namespace {

// Every verb that does not wait takes and gives bytes, which RpcCall decodes in its turn.
using A = v1::Admin;
using RawAdmin = A::WithRawCallbackMethod_GetStats<
    A::WithRawCallbackMethod_ListSequences<A::WithRawCallbackMethod_ListSnapshots<
        A::WithRawCallbackMethod_ListPrefixes<A::WithRawCallbackMethod_ListPrefixLookups<
            A::WithRawCallbackMethod_DropPrefixes<A::WithRawCallbackMethod_SetTenantBudget<
                A::WithRawCallbackMethod_ListTiers<A::WithRawCallbackMethod_GetHitRateCurves<
                    A::WithRawCallbackMethod_InspectSequence<A::WithRawCallbackMethod_ListPolicies<
                        A::WithRawCallbackMethod_GetHost<A::Service>>>>>>>>>>>>;

class AdminEndpoint final : public RawAdmin {
 public:
  AdminEndpoint(const CallGate& gate, AdminService& service) : gate_(gate), service_(service) {}

// gRPC has one method for each verb, and they are all this one.
#define KVASIR_VERB(Verb)                                                                     \
  grpc::ServerUnaryReactor* Verb(grpc::CallbackServerContext* context,                        \
                                 const grpc::ByteBuffer* request, grpc::ByteBuffer* response) \
      override {                                                                              \
    using Call = RpcCall<v1::Verb##Request, v1::Verb##Response>;                              \
    return Call::Start(                                                                       \
        context, request, response, gate_.executor, gate_.callers, gate_.audit, "admin_call", \
        [this](Call& call) {                                                                  \
          const absl::StatusOr<AdminService::Scope> scope = service_.ScopeOf(call.caller());  \
          call.End(scope.ok() ? service_.Verb(*scope, &call.request(), call.response())       \
                              : ToGrpc(scope.status()));                                      \
        });                                                                                   \
  }
  KVASIR_VERB(GetStats)
  KVASIR_VERB(ListSequences)
  KVASIR_VERB(ListSnapshots)
  KVASIR_VERB(ListPrefixes)
  KVASIR_VERB(ListPrefixLookups)
  KVASIR_VERB(DropPrefixes)
  KVASIR_VERB(SetTenantBudget)
  KVASIR_VERB(ListTiers)
  KVASIR_VERB(GetHitRateCurves)
  KVASIR_VERB(InspectSequence)
  KVASIR_VERB(ListPolicies)
  KVASIR_VERB(GetHost)
#undef KVASIR_VERB

  grpc::Status SetPoolSize(grpc::ServerContext* context, const v1::SetPoolSizeRequest* request,
                           v1::SetPoolSizeResponse* response) override {
    return Admit(*context, [&](const AdminService::Scope& scope) {
      return service_.SetPoolSize(scope, context, request, response);
    });
  }
  grpc::Status DrainPrefixes(grpc::ServerContext* context, const v1::DrainPrefixesRequest* request,
                             v1::DrainPrefixesResponse* response) override {
    return Admit(*context, [&](const AdminService::Scope& scope) {
      return service_.DrainPrefixes(scope, context, request, response);
    });
  }
  grpc::Status WatchPrefixes(grpc::ServerContext* context, const v1::WatchPrefixesRequest* request,
                             grpc::ServerWriter<v1::PrefixEvent>* writer) override {
    return Admit(*context, [&](const AdminService::Scope& scope) {
      return service_.WatchPrefixes(scope, context, request, writer);
    });
  }
  grpc::Status RecordTrace(grpc::ServerContext* context, const v1::RecordTraceRequest* request,
                           grpc::ServerWriter<v1::TraceRecord>* writer) override {
    return Admit(*context, [&](const AdminService::Scope& scope) {
      return service_.RecordTrace(scope, context, request, writer);
    });
  }

 private:
  // For as long as the verb takes it is one of the caller's calls.
  template <typename Verb>
  grpc::Status Admit(const grpc::ServerContext& context, const Verb& verb) {
    const absl::StatusOr<CallerRegistry::Caller> caller = gate_.callers.CallerOf(context.peer());
    if (!caller.ok()) {
      gate_.audit.NoteRefusal({"admin_call", std::nullopt, "", {}}, caller.status());
      return ToGrpc(caller.status());
    }
    const absl::StatusOr<CallExecutor::Place> place = gate_.executor.Enter(caller->slot);
    if (!place.ok()) return ToGrpc(place.status());
    const absl::StatusOr<AdminService::Scope> scope = service_.ScopeOf(*caller);
    return scope.ok() ? verb(*scope) : ToGrpc(scope.status());
  }

  const CallGate gate_;
  AdminService& service_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeAdminEndpoint(const CallGate& gate, AdminService& service) {
  return std::make_unique<AdminEndpoint>(gate, service);
}

}  // namespace kvasir
