// PrefixLease: the row from which every rank of a request group can go on, held for it.
//
// A group is one prompt and the models that run it, such as the shards of a tensor-parallel engine.
// A lease has for each of them what its sequence goes on from, all at one row. It holds the groups
// of those rows and pins their chunks in the cache, so neither memory pressure nor an operator
// takes them before it ends: with its time, with the session that took it, or when that releases
// it.
//
// Not thread-safe: under the core's lock, destructors as well.
#ifndef KVASIR_DAEMON_CORE_PREFIX_LEASE_H_
#define KVASIR_DAEMON_CORE_PREFIX_LEASE_H_

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "daemon/core/kv_core_types.h"
#include "daemon/core/prefix_cache.h"
#include "daemon/core/tenant.h"

namespace kvasir::core {

// What one model of the group goes on from.
struct LeasedPrefix {
  std::array<uint8_t, 16> model_fingerprint{};
  std::string retention;     // that was asked for, canonical
  ChainKey asked_form;       // that it makes
  Tenant* tenant = nullptr;  // of the cache; lives as long as the core
  ChainKey form;
  QualityClass quality = QualityClass::kFull;
  std::shared_ptr<const Snapshot> snapshot;  // at the lease's row; shared with who goes on from it
  uint64_t entry = 0;                        // of the cache
  PrefixPin pin;
};

struct PrefixLease {
  Tenant* tenant = nullptr;  // whose sessions may open with it
  uint32_t owner = 0;        // session id
  uint64_t rows = 0;
  Instant ends_at;
  std::vector<LeasedPrefix> members;  // of different models
};

// The leases of all tenants. Cost: O(leases), but for Find(), Add() and End().
class PrefixLeases {
 public:
  // REQUIRES: there is none of this id.
  void Add(const PrefixLeaseId& id, PrefixLease lease);
  // Null: there is none.
  const PrefixLease* Find(const PrefixLeaseId& id) const;
  void End(const PrefixLeaseId& id) { leases_.erase(id); }
  void EndOf(uint32_t owner);
  // Ends those whose time is over, and says when the next one's is; nothing: there is none.
  std::optional<Instant> EndExpired(Instant now);

  const std::map<PrefixLeaseId, PrefixLease>& all() const { return leases_; }
  uint64_t CountOf(uint32_t owner) const;
  uint64_t CountOf(const Tenant& tenant) const;

 private:
  std::map<PrefixLeaseId, PrefixLease> leases_;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_PREFIX_LEASE_H_
