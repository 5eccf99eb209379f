// Where the rows of a prefix lie in a tier, and the books of what a tenant has there.
//
// A value in a tier is one kept group, named by the digest of its bytes, so that a group that
// several prefixes share lies there once; or the manifest of a prefix, which says what its groups
// are. Whoever names a value shares its StoredBlock; with the last one goes the value.
//
// Not thread-safe: under the core's lock, destructors as well. The books outlive every block.
#ifndef KVASIR_DAEMON_CORE_STORED_ROWS_H_
#define KVASIR_DAEMON_CORE_STORED_ROWS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <absl/container/flat_hash_map.h>

#include "allocator/tier/tier_key.h"
#include "index/chain_key.h"

namespace kvasir::core {

// Of `part`, at most eight characters.
TierKey MakeTierKey(const ChainKey& tenant, const std::array<uint8_t, 16>& name,
                    std::string_view part);
inline constexpr std::string_view kGroupPart = "group";
inline constexpr std::string_view kManifestPart = "manifest";
bool IsManifest(const TierKey& key);
// The name in a key of MakeTierKey().
std::array<uint8_t, 16> NameIn(const TierKey& key);
bool IsOfTenant(const TierKey& key, const ChainKey& tenant);

class StoredBooks;

// A value that the tier has.
class StoredBlock {
 public:
  StoredBlock(StoredBooks& books, const TierKey& key, uint64_t bytes)
      : books_(books), key_(key), bytes_(bytes) {}
  ~StoredBlock();
  StoredBlock(const StoredBlock&) = delete;
  StoredBlock& operator=(const StoredBlock&) = delete;

  const TierKey& key() const { return key_; }
  uint64_t bytes() const { return bytes_; }  // of payload

 private:
  StoredBooks& books_;
  const TierKey key_;
  const uint64_t bytes_;
};

// What one tenant has in one tier.
class StoredBooks {
 public:
  // The block of this key, which the tier has.
  std::shared_ptr<const StoredBlock> Name(const TierKey& key, uint64_t bytes);
  bool Has(const TierKey& key) const { return blocks_.contains(key); }
  uint64_t bytes() const { return bytes_; }
  uint64_t blocks() const { return blocks_.size(); }

  // Keys that nobody names any more, so that the tier may forget them; at most `max`.
  std::vector<TierKey> TakeForgotten(size_t max);
  bool has_forgotten() const { return !forgotten_.empty(); }

 private:
  friend class StoredBlock;
  void Forget(const StoredBlock& block);

  absl::flat_hash_map<TierKey, std::weak_ptr<const StoredBlock>> blocks_;
  std::vector<TierKey> forgotten_;
  uint64_t bytes_ = 0;
};

// Rows of one lane, in order: the first `rows` slots of a group.
struct StoredRun {
  std::shared_ptr<const StoredBlock> block;  // shared by the prefixes that have it in them
  uint32_t group_slots = 0;
  uint32_t rows = 0;
};

struct StoredRows {
  std::vector<std::vector<StoredRun>> lanes;
  std::shared_ptr<const StoredBlock> manifest;  // shared by what is cut from it
  // What there is to the snapshot beside its groups (snapshot_state.h), whose places in it are
  // those of the runs; "": every row stays as written, in the runs' order.
  std::string state;

  // Of the groups; those that it names twice count twice.
  uint64_t bytes() const;
  // Its first `rows` rows. REQUIRES: every row stays as written.
  std::shared_ptr<const StoredRows> First(uint64_t rows) const;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_STORED_ROWS_H_
