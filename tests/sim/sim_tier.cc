#include "tests/sim/sim_tier.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "daemon/core/copy_job.h"
#include "daemon/core/snapshot_state.h"
#include "daemon/core/stored_rows.h"
#include "daemon/core/tenant.h"
#include "daemon/core/whole_snapshot.h"

#include <xxhash.h>

namespace kvasir::sim {

core::GroupDigest DigestOf(std::span<const std::byte> bytes) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes.data(), bytes.size()));
  core::GroupDigest digest{};
  std::memcpy(digest.data(), canonical.digest, digest.size());
  return digest;
}

core::SnapshotFacts FactsOf(const core::Snapshot& snapshot) {
  core::SnapshotFacts facts = snapshot;
  facts.table = {};  // it names groups of this process
  facts.next.reset();
  facts.tokens.clear();
  facts.prompt.clear();
  facts.chosen.clear();
  return facts;
}

void SimTier::Run(core::TierJob& job, Random& random) {
  switch (job.kind) {
    case core::TierJob::Kind::kStore:
      return Store(job, random);
    case core::TierJob::Kind::kLoad:
      return Load(job, random);
    case core::TierJob::Kind::kErase:
      if (random.OneIn(fails_one_in_)) {
        job.status = Unavailable("the simulated tier fails");
        return;
      }
      for (const TierKey& key : job.keys) {
        if (!core::IsOfTenant(key, job.tenant->key)) {
          findings_.Add("a value of another tenant is erased: tenant={}", job.tenant->config.name);
        }
        const auto found = values_.find(key.view());
        if (found == values_.end()) continue;
        bytes_ -= found->second.bytes.size();
        values_.erase(found);
      }
      return;
  }
}

absl::Status SimTier::Write(const TierKey& key, std::string bytes,
                            std::optional<core::StoredPrefix> prefix, std::vector<TierKey> groups) {
  if (values_.find(key.view()) != values_.end()) return absl::OkStatus();
  if (bytes_ + bytes.size() > capacity_bytes_)
    return ResourceExhausted("the simulated tier is full");
  bytes_ += bytes.size();
  values_.emplace(std::string(key.view()),
                  Value{key, std::move(bytes), std::move(prefix), std::move(groups)});
  return absl::OkStatus();
}

void SimTier::Store(core::TierJob& job, Random& random) {
  if (job.saved || !core::IsWhole(*job.snapshot)) {
    absl::StatusOr<std::string> state = core::SaveSnapshot(*job.snapshot);
    job.status = state.status();
    job.has_no_state = !state.ok();
    if (!state.ok()) return;
    job.state = *std::move(state);
  }
  std::string manifest = job.state;
  std::vector<TierKey> groups;
  core::StoredPrefix stored;
  stored.saved = job.saved;
  stored.facts = FactsOf(*job.snapshot);
  stored.tokens = job.tokens;
  stored.state = job.state;
  stored.lanes.resize(job.snapshot->lanes.size());
  for (core::TierJob::Item& item : job.items) {
    const std::span<std::byte> planes = item.at.planes();
    item.digest = DigestOf(planes);
    groups.push_back(core::MakeTierKey(job.tenant->key, item.digest, core::kGroupPart));
    stored.lanes[item.at.lane].push_back(
        {item.digest, item.at.slots, item.at.rows, item.at.plane_bytes});
    manifest.append(reinterpret_cast<const char*>(item.digest.data()), item.digest.size());
    if (random.OneIn(fails_one_in_ * 4)) job.status = Unavailable("the simulated tier fails");
    if (!job.status.ok()) return;
    job.status = Write(groups.back(),
                       std::string(reinterpret_cast<const char*>(planes.data()), planes.size()));
    if (!job.status.ok()) return;
  }
  for (const TokenId token : job.tokens) {
    manifest.append(reinterpret_cast<const char*>(&token), sizeof(token));
  }
  manifest += job.snapshot->retention;
  if (job.saved) manifest.append(reinterpret_cast<const char*>(job.saved->bytes.data()), 16);
  job.manifest_digest = DigestOf(std::as_bytes(std::span(manifest)));
  job.manifest_bytes = manifest.size();
  stored.manifest_digest = job.manifest_digest;
  stored.manifest_bytes = job.manifest_bytes;
  if (random.OneIn(fails_one_in_)) {
    job.status = DeadlineExceeded("the simulated tier is slow");
    return;
  }
  job.status = Write(core::MakeTierKey(job.tenant->key, job.manifest_digest, core::kManifestPart),
                     manifest, std::move(stored), std::move(groups));
}

ReadOutcome SimTier::Read(const TierKey& key, std::span<std::byte> into, Random& random) {
  const auto found = values_.find(key.view());
  if (found == values_.end()) return ReadOutcome::kAbsent;
  const std::string& value = found->second.bytes;
  if (value.size() != into.size()) {
    findings_.Add("a value is read with another length: bytes={} read={}", value.size(),
                  into.size());
    return ReadOutcome::kWrongLength;
  }
  if (random.OneIn(fails_one_in_ * 2)) {
    constexpr ReadOutcome kOutcomes[] = {ReadOutcome::kFailed, ReadOutcome::kTimeout,
                                         ReadOutcome::kCut, ReadOutcome::kCorrupt,
                                         ReadOutcome::kForeignKey};
    const ReadOutcome outcome = kOutcomes[random.Below(std::size(kOutcomes))];
    std::memset(into.data(), static_cast<int>(random.Below(256)), into.size() / 2);
    if (IsFailure(outcome)) return outcome;
    bytes_ -= value.size();  // a damaged value is forgotten
    values_.erase(found);
    return outcome;
  }
  std::memcpy(into.data(), value.data(), into.size());
  return ReadOutcome::kHit;
}

void SimTier::Load(core::TierJob& job, Random& random) {
  for (core::TierJob::Item& item : job.items) {
    const TierKey& key = item.block->key();
    if (!core::IsOfTenant(key, job.tenant->key)) {
      findings_.Add("a value of another tenant is read: tenant={}", job.tenant->config.name);
    }
    const ReadOutcome outcome = Read(key, item.at.planes(), random);
    if (job.outcome == ReadOutcome::kHit) job.outcome = outcome;
    if (item.at.kept != nullptr) core::WriteTrailer(*item.at.kept);
  }
  job.took = std::chrono::microseconds(1 + random.Below(1000));
}

std::vector<std::pair<TierKey, core::StoredPrefix>> SimTier::Catalogue() const {
  std::vector<std::pair<TierKey, core::StoredPrefix>> all;
  for (const auto& [text, value] : values_) {
    if (!value.prefix) continue;
    const bool whole =
        std::all_of(value.groups.begin(), value.groups.end(),
                    [&](const TierKey& key) { return values_.find(key.view()) != values_.end(); });
    if (whole) all.emplace_back(value.key, *value.prefix);
  }
  return all;
}

void SimTier::EraseUnnamed(const std::function<bool(const TierKey&)>& is_named) {
  for (auto at = values_.begin(); at != values_.end();) {
    if (is_named(at->second.key)) {
      ++at;
      continue;
    }
    bytes_ -= at->second.bytes.size();
    at = values_.erase(at);
  }
}

}  // namespace kvasir::sim
