// What the daemon's threads, its data server and its operator do with the core.
#include <algorithm>
#include <chrono>

#include "base/bytes.h"
#include "base/error.h"
#include "tests/sim/world.h"

namespace kvasir::sim {

void World::TakeJob() {
  if (std::unique_ptr<core::SequenceJob> job = core_->TakeJob())
    jobs_out_.push_back(std::move(job));
}

void World::RunJob() {
  if (jobs_out_.empty()) return;
  const size_t at = random_.Below(jobs_out_.size());
  if (!core::RunPart(*jobs_out_[at]) || !random_.OneIn(3)) return;
  std::unique_ptr<core::SequenceJob> job = std::move(jobs_out_[at]);
  jobs_out_.erase(jobs_out_.begin() + static_cast<ptrdiff_t>(at));
  if (TriesShare() && Verbs().PutBackJob(job)) return Count("jobs put back in a share");
  Count(core_->PutBackJob(std::move(job)) ? "jobs put back" : "jobs forgotten");
  DropGone();
}

void World::FinishJob() {
  if (jobs_out_.empty()) return;
  const size_t at = random_.Below(jobs_out_.size());
  std::unique_ptr<core::SequenceJob> job = std::move(jobs_out_[at]);
  jobs_out_.erase(jobs_out_.begin() + static_cast<ptrdiff_t>(at));
  if (!job->scorings.empty()) Count("jobs that score");
  if (!job->writings.empty()) Count("jobs that make a prefix smaller");
  core::Run(*job);
  using Finished = core::TenantVerbs::Finished;
  const uint64_t sequence = job->sequence_id;
  const Finished finished = TriesShare() ? Verbs().FinishJob(job) : Finished::kNot;
  if (finished == Finished::kNot) core_->FinishJob(std::move(job));
  if (finished == Finished::kPartly) core_->ContinueAfterJob(sequence);
  Count(finished == Finished::kNot ? "jobs" : "jobs in a share");
  DropGone();
}

void World::TakeTierJob() {
  if (tiers_.empty() || tier_jobs_out_.size() >= 4) return;
  const size_t tier = random_.Below(tiers_.size());
  const core::TierLane lane = random_.OneIn(2) ? core::TierLane::kReads : core::TierLane::kWrites;
  std::unique_ptr<core::TierJob> job = core_->TakeTierJob(tier, lane);
  if (job == nullptr) return;
  TierJobOut out{std::move(job), random_.OneIn(2)};
  if (out.done) tiers_[tier]->Run(*out.job, random_);
  tier_jobs_out_.push_back(std::move(out));
}

void World::FinishTierJob() {
  if (tier_jobs_out_.empty()) return;
  const size_t at = random_.Below(tier_jobs_out_.size());
  TierJobOut out = std::move(tier_jobs_out_[at]);
  tier_jobs_out_.erase(tier_jobs_out_.begin() + static_cast<ptrdiff_t>(at));
  if (!out.done) tiers_[out.job->tier]->Run(*out.job, random_);
  if (out.job->kind == core::TierJob::Kind::kLoad) {
    Count(out.job->outcome == ReadOutcome::kHit ? "loads" : "loads that failed");
  } else if (out.job->kind == core::TierJob::Kind::kStore) {
    Count(out.job->status.ok() ? "stores" : "stores that failed");
  } else {
    Count("erasures");
  }
  core_->FinishTierJob(std::move(out.job));
}

// What the data server does from time to time.
void World::Tick() {
  now_ += std::chrono::milliseconds(random_.Below(60));
  core_->set_now(now_);
  (void)core_->EndExpiredLeases();
  if (core_->TakeBack()) Count("ticks with memory wanted");
  (void)core_->Settle();
}

void World::Settle() { (void)core_->Settle(); }

void World::Refill() {
  if (pool_->RefillOnce()) Count("refilled");
}

void World::SetBudgets() {
  std::map<std::string, core::Budget> budgets;
  for (const std::string& name : names_) {
    if (random_.OneIn(2)) continue;
    core::Budget& budget = budgets[name];
    budget.limit_bytes = random_.OneIn(12) ? 0 : (16 + random_.Below(100)) * 8 * kKiB;
    budget.reserved_bytes =
        random_.OneIn(2) ? 0 : random_.Below(std::max<uint64_t>(budget.limit_bytes / 2, 1));
    budget.weight = random_.OneIn(16) ? 0 : 1 + random_.Below32(8);
  }
  if (random_.OneIn(16)) budgets["nobody"] = {0, kMiB, 1};
  const bool set = core_->SetBudgets(budgets).ok();
  const std::vector<core::TenantReport> reports = core_->TenantReports();
  for (size_t i = 0; i < reports.size(); ++i) {
    const auto asked = budgets.find(names_[i]);
    const uint64_t expected =
        set && asked != budgets.end() ? asked->second.limit_bytes : before_[i].limit;
    if (reports[i].limit_bytes == expected || before_[i].limit == 0) continue;
    findings_.Add("budgets are set in part: tenant={} limit={} expected={}", names_[i],
                  reports[i].limit_bytes, expected);
  }
  Count(set ? "budgets set" : "budgets refused");
}

// Smaller and back: nothing that somebody uses goes, whatever the size.
void World::Resize() {
  const bool small = pool_->counts().pool_bytes < pool_bytes_;
  const uint64_t bytes =
      small ? pool_bytes_ : RoundDown(random_.Below(pool_bytes_), kPageBytes) + 64 * kKiB;
  const absl::Status resized = pool_->Resize(bytes);
  if (!resized.ok()) return findings_.Add("the pool is not resized: {}", MessageOf(resized));
  while (core_->GiveUpCached(bytes)) {
  }
  Count(pool_->counts().over_bytes > 0 ? "smaller than what is used" : "resized");
}

void World::GiveUpCached() {
  // One draw a statement: compilers may order two of an expression as they like, and one seed is to
  // be one world in every build.
  const uint64_t part = random_.OneIn(2) ? 1 : 8;
  const uint64_t bytes = random_.Below(pool_bytes_) / part;
  for (int i = 0; i < 8 && core_->GiveUpCached(bytes); ++i) Count("cached rows given up");
}

void World::DropPrefixes() {
  const bool all = random_.OneIn(4);
  (void)core_->DropPrefixes(all ? "" : names_[random_.Below(names_.size())]);
}

void World::Drain() {
  if (!tiers_.empty()) (void)core_->StartDrain("");
}

}  // namespace kvasir::sim
