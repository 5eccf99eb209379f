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

namespace kvasir {

// Fills in the job's answer.
void RunTierJob(core::TierJob& job, Tier& tier, const CancelToken& cancel);

// XXH3-128 in canonical form: the name of a value.
core::GroupDigest DigestOf(std::span<const std::byte> bytes);
// What is digested of a group, and what a tier keeps of it.
std::span<std::byte> PlanesOf(const core::KeptGroup& group);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_STORE_RUN_TIER_JOB_H_
