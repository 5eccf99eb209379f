// What a tier holds when the daemon starts, or what other hosts have written since: its manifests
// become prefixes of the core, and values that belong to none are forgotten.
#ifndef KVASIR_DAEMON_STORE_TIER_CATALOGUE_H_
#define KVASIR_DAEMON_STORE_TIER_CATALOGUE_H_

#include <cstddef>
#include <cstdint>

#include <absl/status/statusor.h>

#include "daemon/shared_core.h"
#include "daemon/store/tier_place.h"
#include "index/chain_hasher.h"

namespace kvasir {

struct CatalogueCounts {
  uint64_t prefixes = 0;   // that the core knows of now and did not before
  uint64_t dropped = 0;    // manifests that do not match, or whose first group is not there
  uint64_t forgotten = 0;  // values that belong to no prefix
  uint64_t unread = 0;     // manifests that the tier failed to read: it may be asked again
};

// Reads manifests that the core does not know of. A prefix is as long as its groups are there. In a
// shared tier nothing is forgotten: it may be another host's; nor where a manifest is unread: what
// it names may be whole. Blocks on the tier; takes the lock for a prefix at a time. REQUIRES:
// nothing is being written to a tier that is not shared. Errors: of asking what is there.
absl::StatusOr<CatalogueCounts> ReadCatalogue(SharedCore& shared, size_t tier,
                                              const TierPlace& place,
                                              const ChainHasher::Secret& secret);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_STORE_TIER_CATALOGUE_H_
