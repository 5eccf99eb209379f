#include "eviction/serve.h"

#include "base/status_macros.h"

namespace kvasir::eviction {

absl::StatusOr<Admission> Serve(EvictionPolicy& policy, const Request& request,
                                std::vector<Eviction>& evicted, int64_t decode_micros_per_token) {
  KVASIR_ASSIGN_OR_RETURN(
      const Admission admission,
      policy.Begin({request.chain, request.last_partial, request.tokens_in, request.now_us},
                   evicted));
  KVASIR_RETURN_IF_ERROR(policy.Complete(
      admission.id, {uint64_t{request.tokens_in} + request.tokens_out,
                     request.now_us + decode_micros_per_token * request.tokens_out}));
  return admission;
}

}  // namespace kvasir::eviction
