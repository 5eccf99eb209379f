// The manifest of a prefix that lies in a tier, or in memory that outlives the process: from its
// snapshot, and back into what the core can know it by.
//
// Pure functions; thread-safe. What is read back is checked as any stranger's bytes: every length,
// that the keys follow from the tokens under this host's secret, and that the model spec says what
// its fingerprint says.
#ifndef KVASIR_DAEMON_STORE_PREFIX_MANIFEST_H_
#define KVASIR_DAEMON_STORE_PREFIX_MANIFEST_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <absl/status/statusor.h>

#include "daemon/core/kv_core.h"
#include "index/chain_hasher.h"

namespace kvasir {

// A run of a lane, in order: the first `rows` slots of a group.
struct ManifestRun {
  const core::KeptGroup* group = nullptr;
  uint32_t lane = 0, rows = 0;
  core::GroupDigest digest{};
};

// `tokens`: of the snapshot's rows. `in_memory`: says in which extents the groups lie.
std::string EncodeManifest(const core::Snapshot& snapshot, std::span<const TokenId> tokens,
                           std::span<const ManifestRun> runs, bool in_memory);

// Errors: kInvalidArgument or kDataLoss naming the field and its bound.
absl::StatusOr<core::StoredPrefix> DecodeManifest(std::string_view bytes,
                                                  const ChainHasher::Secret& secret);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_STORE_PREFIX_MANIFEST_H_
