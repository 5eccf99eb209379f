// What a thread does with a tier's job between TakeTierJob() and FinishTierJob().
//
// Thread-safe for distinct jobs; blocks on the tier. Cost: of a store a pass over the bytes for
// their digests (XXH3-128), then the tier's; of a load the tier's.
#ifndef KVASIR_DAEMON_STORE_RUN_TIER_JOB_H_
#define KVASIR_DAEMON_STORE_RUN_TIER_JOB_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "allocator/tier/tier.h"
#include "daemon/core/tier_job.h"
#include "index/chain_hasher.h"

namespace kvasir {

// Fills in the job's answer. `secret`: manifests are sealed under it.
void RunTierJob(core::TierJob& job, Tier& tier, const ChainHasher::Secret& secret,
                const CancelToken& cancel);

// XXH3-128 in canonical form: the name of a value.
core::GroupDigest DigestOf(std::span<const std::byte> bytes);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_STORE_RUN_TIER_JOB_H_
