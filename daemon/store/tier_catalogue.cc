#include "daemon/store/tier_catalogue.h"

#include <algorithm>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <absl/container/flat_hash_map.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "daemon/store/prefix_manifest.h"
#include "daemon/store/run_tier_job.h"

namespace kvasir {
namespace {

// Of 2^20 tokens at five bytes, with room for runs and extras.
constexpr uint64_t kManifestBytesMax = 64 * kMiB;

using Contents = absl::flat_hash_map<TierKey, uint64_t>;  // bytes by key

// As long as its groups are there; no rows: nothing of it is left.
void CutToWhatIsThere(const Contents& contents, const ChainKey& tenant,
                      core::StoredPrefix* prefix) {
  uint64_t rows = prefix->facts.rows;
  bool all_there = true;
  for (const std::vector<core::StoredPrefix::Run>& lane : prefix->lanes) {
    uint64_t there = 0;
    for (const core::StoredPrefix::Run& run : lane) {
      const auto found = contents.find(core::MakeTierKey(tenant, run.digest, core::kGroupPart));
      if (found == contents.end() || found->second != run.bytes) {
        all_there = false;
        break;
      }
      there += run.rows;
    }
    rows = std::min(rows, there);
  }
  if (!prefix->state.empty()) {  // all of it or nothing
    if (!all_there) prefix->facts.rows = 0;
    return;
  }
  rows = RoundDown(rows, kChunkTokens);
  prefix->facts.chain->Truncate(rows, {});
  prefix->facts.rows = rows;
  for (std::vector<core::StoredPrefix::Run>& lane : prefix->lanes) {
    uint64_t left = rows;
    size_t used = 0;
    for (; used < lane.size() && left > 0; ++used) {
      lane[used].rows = static_cast<uint32_t>(std::min<uint64_t>(lane[used].rows, left));
      left -= lane[used].rows;
    }
    lane.resize(used);
  }
}

absl::StatusOr<core::StoredPrefix> ReadManifest(Tier& tier, const TierKey& key, uint64_t bytes,
                                                const ChainHasher::Secret& secret) {
  if (bytes == 0 || bytes > kManifestBytesMax) {
    return InvalidArgument("a manifest is too long: bytes={} max={}", bytes, kManifestBytesMax);
  }
  std::string text(bytes, '\0');
  const ReadItem item{key, std::as_writable_bytes(std::span(text))};
  ReadOutcome outcome = ReadOutcome::kFailed;
  tier.Read(std::span(&item, 1), std::span(&outcome, 1));
  if (IsFailure(outcome)) {
    return Unavailable("a manifest could not be read: outcome={}", NameOf(outcome));
  }
  if (outcome != ReadOutcome::kHit) {
    return DataLoss("a manifest is not whole: outcome={}", NameOf(outcome));
  }
  if (DigestOf(item.into) != core::NameIn(key)) {
    return DataLoss("a manifest has another digest than its name");
  }
  KVASIR_ASSIGN_OR_RETURN(core::StoredPrefix prefix, DecodeManifest(text, secret));
  prefix.manifest_digest = core::NameIn(key);
  prefix.manifest_bytes = bytes;
  return prefix;
}

}  // namespace

absl::StatusOr<CatalogueCounts> ReadCatalogue(SharedCore& shared, size_t tier,
                                              const TierPlace& place,
                                              const ChainHasher::Secret& secret) {
  Contents contents;
  KVASIR_RETURN_IF_ERROR(place.tier->ForEach(
      [&](const TierKey& key, uint64_t bytes) { contents.emplace(key, bytes); }));
  CatalogueCounts counts;
  for (const auto& [key, bytes] : contents) {
    if (!core::IsManifest(key)) continue;
    core::Tenant* tenant = nullptr;
    {
      MutexLock lock(shared.mutex);
      tenant = shared.core.TenantOfKey(key);
      if (tenant == nullptr || shared.core.NamesStored(tier, key)) continue;
    }
    absl::StatusOr<core::StoredPrefix> prefix = ReadManifest(*place.tier, key, bytes, secret);
    if (absl::IsUnavailable(prefix.status())) {
      ++counts.unread;
      continue;
    }
    if (prefix.ok()) CutToWhatIsThere(contents, tenant->key, &*prefix);
    absl::Status added = prefix.status();
    if (prefix.ok() && prefix->facts.rows == 0) added = DataLoss("groups of it are not there");
    if (added.ok()) {
      MutexLock lock(shared.mutex);
      shared.core.set_now(SystemClock().Now());  // before any call there is no other
      added = shared.core.AddStored(tier, *tenant, *std::move(prefix));
    }
    ++(added.ok() ? counts.prefixes : counts.dropped);
    if (!added.ok()) {
      spdlog::warn("a stored prefix is dropped: tier={} manifest={} reason={}", place.config.name,
                   key.ToHex(), MessageOf(added));
    }
  }
  if (place.config.shared || counts.unread > 0) return counts;
  std::vector<TierKey> unnamed;
  {
    MutexLock lock(shared.mutex);
    for (const auto& [key, bytes] : contents) {
      if (!shared.core.NamesStored(tier, key)) unnamed.push_back(key);
    }
  }
  counts.forgotten = unnamed.size();
  if (!unnamed.empty()) KVASIR_RETURN_IF_ERROR(place.tier->Erase(unnamed));
  return counts;
}

}  // namespace kvasir
