// SimTier: a place in memory where prefixes go down to, and the thread that would serve it. It
// fails by the numbers that it is given: errors, values that are gone, cut or damaged, no room.
#ifndef KVASIR_TESTS_SIM_SIM_TIER_H_
#define KVASIR_TESTS_SIM_SIM_TIER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "daemon/core/kv_core_types.h"
#include "daemon/core/tier_job.h"
#include "tests/sim/findings.h"
#include "tests/sim/random.h"

namespace kvasir::sim {

core::GroupDigest DigestOf(std::span<const std::byte> bytes);
// Of a snapshot, what is written down beside its rows.
core::SnapshotFacts FactsOf(const core::Snapshot& snapshot);

class SimTier {
 public:
  // One call in `fails_one_in` fails.
  SimTier(uint64_t capacity_bytes, uint64_t fails_one_in, Findings& findings)
      : capacity_bytes_(capacity_bytes), fails_one_in_(fails_one_in), findings_(findings) {}

  // Fills in the job's answer, as a tier's thread does.
  void Run(core::TierJob& job, Random& random);

  // What is there, for a process that starts: of each prefix or saved sequence whose groups are all
  // there, a key of its tenant's and what was written down of it.
  std::vector<std::pair<TierKey, core::StoredPrefix>> Catalogue() const;
  void EraseUnnamed(const std::function<bool(const TierKey&)>& is_named);

 private:
  void Store(core::TierJob& job, Random& random);
  void Load(core::TierJob& job, Random& random);
  absl::Status Write(const TierKey& key, std::string bytes,
                     std::optional<core::StoredPrefix> prefix = {},
                     std::vector<TierKey> groups = {});
  ReadOutcome Read(const TierKey& key, std::span<std::byte> into, Random& random);

  const uint64_t capacity_bytes_;
  const uint64_t fails_one_in_;
  Findings& findings_;
  struct Value {
    TierKey key;
    std::string bytes;
    std::optional<core::StoredPrefix> prefix;  // of a manifest
    std::vector<TierKey> groups;               // that it names
  };
  std::map<std::string, Value, std::less<>> values_;  // by key
  uint64_t bytes_ = 0;
};

}  // namespace kvasir::sim

#endif  // KVASIR_TESTS_SIM_SIM_TIER_H_
