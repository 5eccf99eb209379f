// What a thread does with a handover job between TakeHandoverJob() and FinishHandoverJob(), as far
// as neither the service manager nor the index have to do with it; and the records.
//
// Thread-safe for distinct jobs. Cost: a pass over the groups' bytes (XXH3-128).
#ifndef KVASIR_DAEMON_HANDOVER_RUN_HANDOVER_JOB_H_
#define KVASIR_DAEMON_HANDOVER_RUN_HANDOVER_JOB_H_

#include <string>
#include <string_view>

#include <absl/status/statusor.h>

#include "daemon/core/kv_core.h"
#include "index/chain_hasher.h"

namespace kvasir {

// kVerify: kDataLoss in the job where bytes or trailer of a group are not as they were.
void VerifyGroup(const core::HandoverJob::Item& item, core::HandoverJob& job);
// kNote: the digests that are not known yet.
void DigestGroups(core::HandoverJob& job);
// kRehome: kDataLoss in the job where a group has other bytes than it had.
void CopyGroups(core::HandoverJob& job);

// What is written down of a kNote job, sealed under `secret`. REQUIRES: DigestGroups(). Errors:
// those of core::SaveSnapshot().
absl::StatusOr<std::string> EncodeHandoverRecord(const core::HandoverJob& job,
                                                 const ChainHasher::Secret& secret);
// All but its number. Errors: kInvalidArgument or kDataLoss naming the field and its bound.
absl::StatusOr<core::Adoption::Prefix> DecodeHandoverRecord(std::string_view payload,
                                                            const ChainHasher::Secret& secret);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_HANDOVER_RUN_HANDOVER_JOB_H_
