#include "daemon/control/endpoints.h"
#include "daemon/control/rpc_call.h"
#include "kvasir/v1/kv_cache.grpc.pb.h"

namespace kvasir {
namespace {

// Every verb takes and gives bytes, which RpcCall decodes in its turn.
using K = v1::KvCache;
using RawKvCache = K::WithRawCallbackMethod_RegisterModel<K::WithRawCallbackMethod_ProbeLayout<
    K::WithRawCallbackMethod_OpenSequence<K::WithRawCallbackMethod_Sync<
        K::WithRawCallbackMethod_Truncate<K::WithRawCallbackMethod_SelectRows<
            K::WithRawCallbackMethod_Retrieve<K::WithRawCallbackMethod_SaveSequence<
                K::WithRawCallbackMethod_MatchPrefix<K::WithRawCallbackMethod_PublishPrefix<
                    K::WithRawCallbackMethod_LeasePrefix<K::WithRawCallbackMethod_ReleaseLease<
                        K::WithRawCallbackMethod_DropSnapshot<K::WithRawCallbackMethod_SetHints<
                            K::WithRawCallbackMethod_CloseSequence<
                                K::WithRawCallbackMethod_PutTokenTexts<K::Service>>>>>>>>>>>>>>>>;

class KvCacheEndpoint final : public RawKvCache {
 public:
  KvCacheEndpoint(const CallGate& gate, KvCacheService& service) : gate_(gate), service_(service) {}

// gRPC has one method for each verb, and they are all this one.
#define KVASIR_VERB(Verb)                                                                      \
  grpc::ServerUnaryReactor* Verb(grpc::CallbackServerContext* context,                         \
                                 const grpc::ByteBuffer* request, grpc::ByteBuffer* response)  \
      override {                                                                               \
    using Call = RpcCall<v1::Verb##Request, v1::Verb##Response>;                               \
    return Call::Start(context, request, response, gate_.executor, gate_.callers, gate_.audit, \
                       "engine_call", [this](Call& call) { service_.Verb(call); });            \
  }
  KVASIR_VERB(RegisterModel)
  KVASIR_VERB(ProbeLayout)
  KVASIR_VERB(OpenSequence)
  KVASIR_VERB(Sync)
  KVASIR_VERB(Truncate)
  KVASIR_VERB(SelectRows)
  KVASIR_VERB(Retrieve)
  KVASIR_VERB(SaveSequence)
  KVASIR_VERB(MatchPrefix)
  KVASIR_VERB(PublishPrefix)
  KVASIR_VERB(LeasePrefix)
  KVASIR_VERB(ReleaseLease)
  KVASIR_VERB(DropSnapshot)
  KVASIR_VERB(SetHints)
  KVASIR_VERB(CloseSequence)
  KVASIR_VERB(PutTokenTexts)
#undef KVASIR_VERB

 private:
  const CallGate gate_;
  KvCacheService& service_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeKvCacheEndpoint(const CallGate& gate, KvCacheService& service) {
  return std::make_unique<KvCacheEndpoint>(gate, service);
}

}  // namespace kvasir
