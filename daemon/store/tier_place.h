// The tiers of the daemon, from its configuration, and the secret that keys in them are made with.
#ifndef KVASIR_DAEMON_STORE_TIER_PLACE_H_
#define KVASIR_DAEMON_STORE_TIER_PLACE_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "allocator/tier/guarded_tier.h"
#include "daemon/config.h"
#include "daemon/core/kv_core.h"
#include "index/chain_hasher.h"

namespace kvasir {

struct TierPlace {
  core::TierConfig config;
  std::unique_ptr<Tier> tier;
  std::vector<const GuardedTier*> guards;  // in `tier`

  // None of it is asked at this moment.
  bool IsLeftOut() const;
};

// The faster ones first. The disk's values lie in tier.disk_path/blocks; asks no server. Errors:
// kInvalidArgument naming the key, those of DiskTier::Open() and of reading the password's file.
absl::StatusOr<std::vector<TierPlace>> OpenTiers(const Config::Tier& config);

// The secret of prefix keys where a file has it: tier.key_file, or one in tier.disk_path, so that
// keys mean something after a restart and to other hosts. A file that is not there is made, with
// mode 0600. Nothing: there is no tier. Errors: kInvalidArgument for a file that is not 16 bytes
// long, kPermissionDenied for one that others may read, the system's.
absl::StatusOr<std::optional<ChainHasher::Secret>> PrefixSecretOfFile(const Config::Tier& config);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_STORE_TIER_PLACE_H_
