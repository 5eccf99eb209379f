// ExtentBooks: what engines have been handed and the pool has not got back, kept from outside: by
// what is sent to engines, and by what the pool says that it has been given.
#ifndef KVASIR_TESTS_SIM_EXTENT_BOOKS_H_
#define KVASIR_TESTS_SIM_EXTENT_BOOKS_H_

#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "allocator/extent.h"
#include "tests/sim/findings.h"

namespace kvasir::sim {

class ExtentBooks {
 public:
  ExtentBooks(uint32_t tenants, Findings& findings) : recent_bytes_(tenants), findings_(findings) {}

  void Sent(const Extent& extent, uint32_t tenant, uint32_t session) {
    if (gone_.contains(extent.id())) {
      findings_.Add("an extent is handed out after it was given back: id={}", extent.id());
    }
    const bool recent = extent.use() == ExtentUse::kRecent;
    const auto [found, is_new] =
        live_.emplace(extent.id(), One{tenant, session, extent.bytes(), recent});
    if (!is_new && (recent || found->second.recent)) {
      findings_.Add("two sessions have one extent of recent rows: id={} sessions={},{}",
                    extent.id(), found->second.session, session);
    }
    if (!is_new || !recent) return;
    recent_bytes_[tenant] += extent.bytes();
    // Memory that nobody has seen before: of a new file, all zero.
    const std::byte* const data = extent.data();
    if (std::any_of(data, data + extent.bytes(), [](std::byte b) { return b != std::byte{0}; })) {
      findings_.Add("an engine is handed memory that somebody has written: id={} tenant={}",
                    extent.id(), tenant);
    }
  }

  // By the pool.
  void Returned(uint64_t id) {
    gone_.insert(id);
    const auto found = live_.find(id);
    if (found == live_.end()) return;
    if (found->second.recent) recent_bytes_[found->second.tenant] -= found->second.bytes;
    live_.erase(found);
  }

  bool IsGone(uint64_t id) const { return gone_.contains(id); }
  // Of recent rows, that the tenant must be charged for at least.
  uint64_t RecentBytesOf(uint32_t tenant) const { return recent_bytes_[tenant]; }

 private:
  struct One {
    uint32_t tenant = 0, session = 0;
    uint64_t bytes = 0;
    bool recent = false;
  };
  std::unordered_map<uint64_t, One> live_;
  std::unordered_set<uint64_t> gone_;
  std::vector<uint64_t> recent_bytes_;
  Findings& findings_;
};

}  // namespace kvasir::sim

#endif  // KVASIR_TESTS_SIM_EXTENT_BOOKS_H_
