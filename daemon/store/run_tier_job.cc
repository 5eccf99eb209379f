#include "daemon/store/run_tier_job.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <string>
#include <vector>

#include "base/clock.h"
#include "daemon/core/copy_job.h"
#include "daemon/core/snapshot_state.h"
#include "daemon/core/tenant.h"
#include "daemon/core/whole_snapshot.h"
#include "daemon/store/prefix_manifest.h"

#include <xxhash.h>

namespace kvasir {
namespace {

// A batch gives a tier depth, and ends well within the time that a server has to answer it.
constexpr size_t kItemsAtOnce = 64;
constexpr uint64_t kBytesAtOnce = uint64_t{32} << 20;

// Calls `move` for one batch of items after the other, until it says no.
template <typename Move>
void InBatches(std::span<core::TierJob::Item> items, const Move& move) {
  while (!items.empty()) {
    size_t count = 0;
    uint64_t bytes = 0;
    while (count < std::min(items.size(), kItemsAtOnce) && (count == 0 || bytes < kBytesAtOnce)) {
      bytes += items[count++].at.plane_bytes;
    }
    if (!move(items.first(count))) return;
    items = items.subspan(count);
  }
}

absl::Status FirstError(std::span<const absl::Status> results) {
  for (const absl::Status& result : results) {
    if (!result.ok()) return result;
  }
  return absl::OkStatus();
}

absl::Status WriteGroups(const core::TierJob& job, std::span<const core::TierJob::Item> items,
                         Tier& tier, const CancelToken& cancel) {
  std::vector<std::span<const std::byte>> parts;
  parts.reserve(items.size());
  std::vector<WriteItem> writes;
  for (const core::TierJob::Item& item : items) {
    parts.emplace_back(item.at.planes());
    writes.push_back({core::MakeTierKey(job.tenant->key, item.digest, core::kGroupPart),
                      std::span(&parts.back(), 1)});
  }
  std::vector<absl::Status> results(writes.size());
  tier.Write(writes, results, &cancel);
  return FirstError(results);
}

void Store(core::TierJob& job, Tier& tier, const ChainHasher::Secret& secret,
           const CancelToken& cancel) {
  if (job.saved || !core::IsWhole(*job.snapshot)) {
    absl::StatusOr<std::string> state = core::SaveSnapshot(*job.snapshot);
    job.status = state.status();
    job.has_no_state = !state.ok();
    if (!state.ok()) return;
    job.state = *std::move(state);
  }
  for (core::TierJob::Item& item : job.items) item.digest = DigestOf(item.at.planes());
  InBatches(job.items, [&](std::span<core::TierJob::Item> items) {
    job.status = WriteGroups(job, items, tier, cancel);
    return job.status.ok();
  });
  if (!job.status.ok()) return;
  // Behind its groups: whoever finds a manifest finds them.
  ManifestParts named{job.tokens, job.state, {}, /*in_memory=*/false, job.saved};
  for (const core::TierJob::Item& item : job.items) named.runs.push_back({&item.at, item.digest});
  const std::string manifest = EncodeManifest(*job.snapshot, named, secret);
  const std::span<const std::byte> bytes = std::as_bytes(std::span(manifest));
  job.manifest_digest = DigestOf(bytes);
  job.manifest_bytes = bytes.size();
  const WriteItem write{
      core::MakeTierKey(job.tenant->key, job.manifest_digest, core::kManifestPart),
      std::span(&bytes, 1)};
  tier.Write(std::span(&write, 1), std::span(&job.status, 1), &cancel);
}

void Load(core::TierJob& job, Tier& tier, const CancelToken& cancel) {
  const Instant began = SystemClock().Now();
  InBatches(job.items, [&](std::span<core::TierJob::Item> items) {
    std::vector<ReadItem> reads;
    for (const core::TierJob::Item& item : items) {
      reads.push_back({item.block->key(), item.at.planes()});
    }
    std::vector<ReadOutcome> outcomes(reads.size(), ReadOutcome::kCancelled);
    tier.Read(reads, outcomes, &cancel);
    for (const ReadOutcome outcome : outcomes) {
      if (job.outcome == ReadOutcome::kHit) job.outcome = outcome;
    }
    // Rows and tokens are the daemon's own: nothing of what an engine goes by is read from a tier.
    for (const core::TierJob::Item& item : items) {
      if (item.at.kept != nullptr) core::WriteTrailer(*item.at.kept);
    }
    return job.outcome == ReadOutcome::kHit;
  });
  job.took = SystemClock().Now() - began;
}

}  // namespace

core::GroupDigest DigestOf(std::span<const std::byte> bytes) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes.data(), bytes.size()));
  core::GroupDigest digest{};
  std::memcpy(digest.data(), canonical.digest, digest.size());
  return digest;
}

void RunTierJob(core::TierJob& job, Tier& tier, const ChainHasher::Secret& secret,
                const CancelToken& cancel) {
  switch (job.kind) {
    case core::TierJob::Kind::kStore:
      Store(job, tier, secret, cancel);
      break;
    case core::TierJob::Kind::kLoad:
      Load(job, tier, cancel);
      break;
    case core::TierJob::Kind::kErase:
      job.status = tier.Erase(job.keys);
      break;
  }
}

}  // namespace kvasir
