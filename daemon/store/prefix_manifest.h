// The manifest of a prefix that lies in a tier: from a job's snapshot, and back into what the core
// can know it by.
//
// Pure functions; thread-safe. What is read back is checked as any stranger's bytes: every length,
// that the keys follow from the tokens under this host's secret, and that the model spec says what
// its fingerprint says.
#ifndef KVASIR_DAEMON_STORE_PREFIX_MANIFEST_H_
#define KVASIR_DAEMON_STORE_PREFIX_MANIFEST_H_

#include <string>
#include <string_view>

#include <absl/status/statusor.h>

#include "daemon/core/kv_core.h"
#include "daemon/core/tier_job.h"
#include "index/chain_hasher.h"

namespace kvasir {

// REQUIRES: the digests of the job's items are known.
std::string EncodeManifest(const core::TierJob& job);

// Errors: kInvalidArgument or kDataLoss naming the field and its bound.
absl::StatusOr<core::StoredPrefix> DecodeManifest(std::string_view bytes,
                                                  const ChainHasher::Secret& secret);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_STORE_PREFIX_MANIFEST_H_
