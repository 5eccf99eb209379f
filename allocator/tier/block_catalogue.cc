#include "allocator/tier/block_catalogue.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"

namespace kvasir {

Placement::~Placement() { catalogue_.GiveBack(runs_); }

void BlockCatalogue::GiveBack(std::span<const UnitRun> runs) {
  MutexLock lock(mutex_);
  space_.Give(runs);
}

absl::StatusOr<PlacementRef> BlockCatalogue::Reserve(uint64_t payload_bytes,
                                                     uint64_t stored_bytes) {
  const uint64_t units = DivideUp(stored_bytes, unit_bytes_);
  std::optional<UnitRuns> runs;
  uint64_t free_units = 0;
  {
    MutexLock lock(mutex_);
    runs = space_.Take(units);
    free_units = space_.free_units();
  }
  if (!runs) {
    return ResourceExhausted("the tier is full: needed_bytes={} free_bytes={}", units * unit_bytes_,
                             free_units * unit_bytes_);
  }
  return std::make_shared<Placement>(*this, payload_bytes, *std::move(runs));
}

bool BlockCatalogue::Publish(const TierKey& key, const PlacementRef& placement) {
  PlacementRef replaced;  // let go after the lock
  MutexLock lock(mutex_);
  PlacementRef& entry = blocks_[key];
  if (entry != nullptr && !entry->failed()) return false;
  replaced = std::exchange(entry, placement);
  return true;
}

bool BlockCatalogue::Restore(const TierKey& key, uint64_t payload_bytes, UnitRuns runs) {
  MutexLock lock(mutex_);
  if (blocks_.contains(key) || !space_.TakeThese(runs)) return false;
  blocks_[key] = std::make_shared<Placement>(*this, payload_bytes, std::move(runs));
  return true;
}

PlacementRef BlockCatalogue::Find(const TierKey& key) const {
  MutexLock lock(mutex_);
  const auto found = blocks_.find(key);
  return found == blocks_.end() ? nullptr : found->second;
}

bool BlockCatalogue::Holds(const TierKey& key) const {
  MutexLock lock(mutex_);
  const auto found = blocks_.find(key);
  return found != blocks_.end() && !found->second->failed();
}

PlacementRef BlockCatalogue::Remove(const TierKey& key, const Placement* only) {
  MutexLock lock(mutex_);
  const auto found = blocks_.find(key);
  if (found == blocks_.end() || (only != nullptr && found->second.get() != only)) return nullptr;
  PlacementRef removed = std::move(found->second);
  blocks_.erase(found);
  return removed;
}

std::vector<std::pair<TierKey, uint64_t>> BlockCatalogue::List() const {
  MutexLock lock(mutex_);
  std::vector<std::pair<TierKey, uint64_t>> list;
  list.reserve(blocks_.size());
  for (const auto& [key, placement] : blocks_) list.emplace_back(key, placement->payload_bytes());
  return list;
}

BlockCatalogue::Counts BlockCatalogue::counts() const {
  MutexLock lock(mutex_);
  return {space_.units(), space_.free_units(), blocks_.size()};
}

void BlockCatalogue::Grow(uint64_t units) {
  MutexLock lock(mutex_);
  space_.Resize(units);
}

absl::Status BlockCatalogue::Shrink(
    uint64_t units, const std::function<void(const UnitRun& from, const UnitRuns& to)>& move) {
  MutexLock lock(mutex_);
  const uint64_t taken = space_.units() - space_.free_units();
  if (taken > units) {
    return ResourceExhausted("too much is held to shrink: held_bytes={} wanted_bytes={}",
                             taken * unit_bytes_, units * unit_bytes_);
  }
  // Nobody gets a unit that goes, so what is left to take stays.
  UnitRuns gone = space_.TakeFreeFrom(units);
  for (auto& [key, placement] : blocks_) {
    UnitRuns runs;
    for (const UnitRun& run : placement->runs_) {
      const uint64_t end = uint64_t{run.first} + run.count;
      const uint64_t border = std::clamp<uint64_t>(units, run.first, end);
      if (border > run.first) {
        runs.push_back({run.first, static_cast<uint32_t>(border - run.first)});
      }
      if (border == end) continue;
      const UnitRun from = {static_cast<uint32_t>(border), static_cast<uint32_t>(end - border)};
      const std::optional<UnitRuns> to = space_.Take(from.count);
      KVASIR_CHECK(to.has_value(), "as many units are free as are taken behind the border");
      move(from, *to);
      gone.push_back(from);
      runs.insert(runs.end(), to->begin(), to->end());
    }
    placement->runs_ = std::move(runs);
  }
  space_.Give(gone);
  space_.Resize(units);
  return absl::OkStatus();
}

}  // namespace kvasir
