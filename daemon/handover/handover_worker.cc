#include "daemon/handover/handover_worker.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "daemon/core/tenant.h"
#include "daemon/handover/run_handover_job.h"

namespace kvasir {
namespace {

// Below it struck out records are no reason to write a new index.
constexpr uint64_t kCompactFromBytes = kMiB;

}  // namespace

absl::StatusOr<std::unique_ptr<HandoverWorker>> HandoverWorker::Start(SharedCore& shared,
                                                                      FdStore store,
                                                                      TakenOver taken,
                                                                      const Options& options) {
  std::unique_ptr<HandoverWorker> worker(
      new HandoverWorker(shared, std::move(store), std::move(taken), options));
  if (worker->index_ == nullptr) KVASIR_RETURN_IF_ERROR(worker->MakeIndex(1));
  worker->thread_ = std::thread([raw = worker.get()] { raw->Loop(); });
  return worker;
}

HandoverWorker::HandoverWorker(SharedCore& shared, FdStore store, TakenOver taken,
                               const Options& options)
    : shared_(shared),
      store_(std::move(store)),
      options_(options),
      index_(std::move(taken.index)),
      records_(std::move(taken.records)),
      next_record_(records_.size() + 1),
      kept_(std::move(taken.extents)) {}

HandoverWorker::~HandoverWorker() {
  {
    MutexLock lock(shared_.mutex);
    stopping_ = true;
    shared_.tier_work.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
}

void HandoverWorker::Returned(uint64_t extent_id) {
  MutexLock lock(returned_mutex_);
  returned_.push_back(extent_id);
  shared_.tier_work.NotifyAll();
}

absl::Status HandoverWorker::MakeIndex(uint64_t epoch) {
  KVASIR_ASSIGN_OR_RETURN(
      std::unique_ptr<HandoverIndex> index,
      HandoverIndex::Create(options_.index_bytes, HandoverLayout(), options_.secret, epoch));
  KVASIR_RETURN_IF_ERROR(store_.Keep(IndexName(epoch), index->fd()));
  index_ = std::move(index);
  return absl::OkStatus();
}

void HandoverWorker::Loop() {
  for (;;) {
    std::unique_ptr<core::HandoverJob> job;
    std::vector<uint64_t> gone;
    {
      MutexLock lock(shared_.mutex);
      for (;;) {
        if (stopping_) return;
        shared_.core.set_now(SystemClock().Now());
        job = shared_.core.TakeHandoverJob();
        {
          MutexLock leaf(returned_mutex_);
          gone.swap(returned_);
        }
        if (job != nullptr || !gone.empty()) break;
        shared_.mutex.Wait(shared_.tier_work);
      }
    }
    ForgetExtents(gone);
    if (job == nullptr) continue;
    Run(*job);
    if (!job->status.ok()) {
      spdlog::warn("a prefix cannot be handed over: tenant={} reason={}", job->tenant->config.name,
                   MessageOf(job->status));
    }
    MutexLock lock(shared_.mutex);
    shared_.core.set_now(SystemClock().Now());
    shared_.core.FinishHandoverJob(std::move(job));
    shared_.progress.NotifyAll();
  }
}

void HandoverWorker::Run(core::HandoverJob& job) {
  switch (job.kind) {
    case core::HandoverJob::Kind::kVerify:
      Verify(job);
      break;
    case core::HandoverJob::Kind::kNote:
      Note(job);
      break;
    case core::HandoverJob::Kind::kForget:
      Strike(job.record);
      break;
    case core::HandoverJob::Kind::kRehome:
      CopyGroups(job);
      break;
  }
}

void HandoverWorker::Verify(core::HandoverJob& job) {
  for (const core::HandoverJob::Item& item : job.items) {
    Extent& extent = *item.at.group().extent;
    if (touched_.insert(extent.id()).second) {
      const bool lock = options_.lock && !lock_refused_;
      if (!extent.TouchFrozen(lock)) lock_refused_ |= lock;
    }
    VerifyGroup(item, job);
    if (!job.status.ok()) return;
  }
}

void HandoverWorker::Note(core::HandoverJob& job) {
  DigestGroups(job);
  job.status = KeepExtents(job);
  if (!job.status.ok()) return;
  const absl::StatusOr<std::string> record = EncodeHandoverRecord(job, options_.secret);
  job.status = record.status();
  if (!record.ok()) return;
  const absl::StatusOr<uint64_t> number = Append(*record);
  job.status = number.status();
  if (number.ok()) job.record = *number;
}

// Before the record that names them: whoever reads it finds them.
absl::Status HandoverWorker::KeepExtents(const core::HandoverJob& job) {
  for (const core::HandoverJob::Item& item : job.items) {
    const Extent& extent = *item.at.group().extent;
    if (kept_.contains(extent.id())) continue;
    KVASIR_ASSIGN_OR_RETURN(const UniqueFd copy, extent.Duplicate());
    KVASIR_RETURN_IF_ERROR(store_.Keep(ExtentName(extent.id()), copy));
    kept_.insert(extent.id());
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> HandoverWorker::Append(const std::string& payload) {
  absl::StatusOr<uint64_t> at = index_->Append(payload);
  if (absl::IsResourceExhausted(at.status())) {
    KVASIR_RETURN_IF_ERROR(Compact());
    at = index_->Append(payload);
  }
  KVASIR_RETURN_IF_ERROR(at.status());
  records_[next_record_] = *at;
  return next_record_++;
}

absl::Status HandoverWorker::Compact() {
  const uint64_t old = index_->epoch();
  KVASIR_ASSIGN_OR_RETURN(
      std::unique_ptr<HandoverIndex> fresh,
      HandoverIndex::Create(options_.index_bytes, HandoverLayout(), options_.secret, old + 1));
  std::map<uint64_t, uint64_t> number_of;
  for (const auto& [number, at] : records_) number_of[at] = number;
  std::map<uint64_t, uint64_t> moved;
  for (const HandoverIndex::Record& record : index_->Read()) {
    KVASIR_ASSIGN_OR_RETURN(moved[number_of.at(record.at)], fresh->Append(record.payload));
  }
  // The new one is whole before the old one goes; with both, the newer one counts.
  KVASIR_RETURN_IF_ERROR(store_.Keep(IndexName(old + 1), fresh->fd()));
  index_ = std::move(fresh);
  records_ = std::move(moved);
  return store_.Forget(IndexName(old));
}

void HandoverWorker::Strike(uint64_t record) {
  const auto found = records_.find(record);
  if (found == records_.end()) return;
  index_->Strike(found->second);
  records_.erase(found);
  if (index_->used_bytes() < kCompactFromBytes + 4 * index_->live_bytes()) return;
  const absl::Status compacted = Compact();
  if (!compacted.ok()) {
    spdlog::warn("the handover index stays long: used_bytes={} live_bytes={} {}",
                 index_->used_bytes(), index_->live_bytes(), MessageOf(compacted));
  }
}

void HandoverWorker::ForgetExtents(const std::vector<uint64_t>& ids) {
  for (const uint64_t id : ids) {
    touched_.erase(id);
    if (kept_.erase(id) == 0) continue;
    const absl::Status forgotten = store_.Forget(ExtentName(id));
    if (forgotten.ok()) continue;
    spdlog::warn("the service manager still keeps an extent: id={} {}", id, MessageOf(forgotten));
  }
}

}  // namespace kvasir
