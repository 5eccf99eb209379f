// The process dies, and the next one has what was written down: in memory that somebody keeps for
// it, and in tiers.
#include <fcntl.h>

#include <chrono>
#include <cstring>

#include "base/check.h"
#include "base/error.h"
#include "daemon/core/copy_job.h"
#include "daemon/core/snapshot_state.h"
#include "daemon/core/whole_snapshot.h"
#include "tests/sim/world.h"

namespace kvasir::sim {
namespace {

using Kind = core::HandoverJob::Kind;

}  // namespace

void World::TakeHandoverJob() {
  if (handover_job_out_ == nullptr) handover_job_out_ = core_->TakeHandoverJob();
}

void World::FinishHandoverJob() {
  if (handover_job_out_ == nullptr) return;
  std::unique_ptr<core::HandoverJob> job = std::move(handover_job_out_);
  switch (job->kind) {
    case Kind::kVerify:
      for (const core::HandoverJob::Item& item : job->items) {
        const bool trailer = item.at.kept == nullptr || core::HasTrailer(*item.at.kept);
        if (!trailer || DigestOf(item.at.planes()) != item.digest) job->status = DataLoss("other");
      }
      Count(job->status.ok() ? "adopted prefixes verified" : "adopted prefixes that are damaged");
      break;
    case Kind::kNote:
      WriteDown(*job);
      break;
    case Kind::kForget:
      Count("records struck out");
      if (records_.erase(job->record) == 0) {
        findings_.Add("a record is struck out that is not there: record={}", job->record);
      }
      break;
    case Kind::kRehome:
      for (core::HandoverJob::Item& item : job->items) {
        const core::KeptGroup &from = *item.at.kept, &to = *item.copy;
        std::memcpy(to.group().data(), from.group().data(), from.geometry().bytes);
        item.digest = DigestOf({to.group().data(), core::PlaneBytes(to.geometry())});
        if (from.digest && *from.digest != item.digest) job->status = DataLoss("other");
      }
      Count("groups moved out of frozen extents");
  }
  core_->FinishHandoverJob(std::move(job));
}

void World::WriteDown(core::HandoverJob& job) {
  Record record;
  record.tenant = job.tenant->key;
  record.prefix.lanes.resize(job.snapshot->lanes.size());
  if (core::IsWhole(*job.snapshot)) {
    record.prefix.tokens = job.tokens;
  } else {
    absl::StatusOr<std::string> state = core::SaveSnapshot(*job.snapshot);
    job.status = state.status();
    if (state.ok()) record.prefix.state = *std::move(state);
  }
  if (random_.OneIn(16)) job.status = Unavailable("nobody keeps an extent");
  if (!job.status.ok()) return;
  record.prefix.facts = FactsOf(*job.snapshot);
  for (core::HandoverJob::Item& item : job.items) {
    if (!item.digested) item.digest = DigestOf(item.at.planes());
    const Group& group = item.at.group();
    if (!kept_.contains(group.extent->id())) {
      absl::StatusOr<UniqueFd> copy = group.extent->Duplicate();
      KVASIR_CHECK(copy.ok(), "no descriptor: {}", MessageOf(copy.status()));
      kept_[group.extent->id()] = *std::move(copy);
    }
    record.prefix.lanes[item.at.lane].push_back({item.digest, item.at.slots, item.at.rows,
                                                 item.at.plane_bytes, group.extent->id(),
                                                 group.extent->bytes(), group.offset});
  }
  job.record = ++ids_made_;
  records_[job.record] = std::move(record);
  Count("prefixes written down");
}

void World::NextLife() {
  if (!random_.OneIn(6)) return;
  // What is out comes to no end that counts.
  pool_->set_returned(nullptr);  // what goes with the process is kept for the next one
  while (!jobs_out_.empty()) FinishJob();
  for (TierJobOut& out : tier_jobs_out_) {
    out.job->status = absl::CancelledError("");
    out.job->outcome = ReadOutcome::kCancelled;
    core_->FinishTierJob(std::move(out.job));
  }
  tier_jobs_out_.clear();
  if (handover_job_out_ != nullptr) {
    handover_job_out_->status = absl::CancelledError("");
    core_->FinishHandoverJob(std::move(handover_job_out_));
  }
  core_.reset();
  for (auto* const engines : {&engines_, &leaving_}) {
    for (const auto& engine : *engines) {
      for (UniqueFd& fd : engine->held) hoard_.push_back(std::move(fd));
    }
    engines->clear();
  }
  leases_.clear();
  given_up_.clear();
  before_.assign(names_.size(), {});
  core::Adoption adoption = WhatIsLeft();
  uint64_t bytes = 0;
  for (const auto& [id, extent] : adoption.extents) bytes += extent->bytes();
  StartLife(bytes);
  if (hands_over_) {
    const core::AdoptionCounts counts = core_->Adopt(std::move(adoption));
    counts_["prefixes adopted"] += counts.prefixes;
    // What is taken over may lead beyond a limit; from then on nothing does.
    const std::vector<core::TenantReport> reports = core_->TenantReports();
    for (size_t i = 0; i < reports.size(); ++i) {
      before_[i].charged = reports[i].charged_bytes;
      before_[i].limit = reports[i].limit_bytes;
    }
  }
  for (size_t tier = 0; tier < tiers_.size(); ++tier) {
    for (const auto& [tenant_key, prefix] : tiers_[tier]->Catalogue()) {
      core::Tenant* const tenant = core_->TenantOfKey(tenant_key);
      if (tenant == nullptr || !core_->AddStored(tier, *tenant, prefix).ok()) continue;
      Count("prefixes found in a tier");
    }
    tiers_[tier]->EraseUnnamed([&](const TierKey& key) { return core_->NamesStored(tier, key); });
  }
  Count("lives");
}

// What the next process is given: extents that records name, some of which are damaged.
core::Adoption World::WhatIsLeft() {
  core::Adoption adoption;
  if (!hands_over_) return adoption;
  for (const auto& [number, record] : records_) {
    core::Adoption::Prefix& one = adoption.prefixes.emplace_back();
    one.tenant = record.tenant;
    one.prefix = record.prefix;
    one.record = number;
    for (auto& lane : one.prefix.lanes) {
      for (core::StoredPrefix::Run& run : lane) {
        const auto kept = kept_.find(run.extent);
        if (kept == kept_.end() || adoption.extents.contains(run.extent)) continue;
        UniqueFd copy(::fcntl(kept->second.get(), F_DUPFD_CLOEXEC, 0));
        absl::StatusOr<std::unique_ptr<Extent>> extent =
            Extent::Adopt(std::move(copy), run.extent_bytes, run.extent);
        if (!extent.ok()) {
          findings_.Add("an extent cannot be taken over: id={} {}", run.extent,
                        MessageOf(extent.status()));
          continue;
        }
        adoption.extents[run.extent] = *std::move(extent);
      }
    }
    if (random_.OneIn(8) && !one.prefix.lanes[0].empty()) one.prefix.lanes[0][0].digest[3] ^= 1;
  }
  std::erase_if(kept_, [&](const auto& one) { return !adoption.extents.contains(one.first); });
  return adoption;
}

}  // namespace kvasir::sim
