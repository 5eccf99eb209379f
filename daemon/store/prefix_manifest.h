// The manifest of a prefix that lies in a tier, or in memory that outlives the process: from its
// snapshot, and back into what the core can know it by.
//
// Pure functions; thread-safe. What is read back is checked as any stranger's bytes: that it was
// sealed under this host's secret, every length, that the keys follow from the tokens where all of
// them are there, and that the model spec says what its fingerprint says. The state of what is not
// whole is checked where it is restored (daemon/core/snapshot_state.h).
#ifndef KVASIR_DAEMON_STORE_PREFIX_MANIFEST_H_
#define KVASIR_DAEMON_STORE_PREFIX_MANIFEST_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

#include "daemon/core/kv_core.h"
#include "daemon/core/snapshot_groups.h"
#include "index/chain_hasher.h"

namespace kvasir {

// A group of the snapshot, in the order of GroupsOf().
struct ManifestRun {
  const core::SnapshotGroup* at = nullptr;
  core::GroupDigest digest{};
};

struct ManifestParts {
  std::span<const TokenId> tokens;  // of the snapshot's rows, where it is whole
  std::string_view state;           // SaveSnapshot(), where it is not
  std::vector<ManifestRun> runs;
  bool in_memory = false;                      // says in which extents the groups lie
  std::optional<core::SnapshotId> saved = {};  // of a saved sequence, with a state
};

std::string EncodeManifest(const core::Snapshot& snapshot, const ManifestParts& parts,
                           const ChainHasher::Secret& secret);

// A serialised PrefixManifest as it is stored.
std::string SealManifest(std::string manifest, const ChainHasher::Secret& secret);

// Errors: kInvalidArgument or kDataLoss naming the field and its bound.
absl::StatusOr<core::StoredPrefix> DecodeManifest(std::string_view bytes,
                                                  const ChainHasher::Secret& secret);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_STORE_PREFIX_MANIFEST_H_
