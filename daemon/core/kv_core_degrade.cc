// Degrade before evict: cached prefixes are brought into forms that hold less, as the tenant's
// ladder says, before they are given up.
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "daemon/core/kv_core.h"
#include "index/prefix_scope.h"

namespace kvasir::core {
namespace {

// Chunks that are given up one after the other though that frees nothing.
constexpr int kIdleVictimsMax = 16;

// While it lives, memory that is taken for the tenant pushes nothing out of its cache.
class KeepingCached {
 public:
  explicit KeepingCached(Tenant& tenant) : tenant_(tenant) { tenant_.keeps_cached = true; }
  ~KeepingCached() { tenant_.keeps_cached = false; }
  KeepingCached(const KeepingCached&) = delete;
  KeepingCached& operator=(const KeepingCached&) = delete;

 private:
  Tenant& tenant_;
};

void ForgetEntriesThatWent(Tenant& tenant) {
  const auto& entries = tenant.prefixes.entries();
  if (tenant.rungs_tried.size() <= entries.size()) return;
  std::erase_if(tenant.rungs_tried,
                [&](const auto& tried) { return !entries.contains(tried.first); });
}

bool LiesInATier(const Tenant& tenant, const Snapshot& snapshot) {
  return std::any_of(tenant.stores.begin(), tenant.stores.end(), [&](const auto& store) {
    return store.get() != tenant.adopted && store->Has(snapshot);
  });
}

// The chain under this retention, whoever has brought it there.
bool IsThere(const PrefixCache& prefixes, const PrefixChain& chain, const std::string& retention) {
  const std::vector<ChainKey> forms = prefixes.Forms();
  return std::any_of(forms.begin(), forms.end(), [&](const ChainKey& form) {
    const PrefixCache::Entry* const entry = prefixes.FindEnd(chain, form);
    return entry != nullptr && entry->snapshot->retention == retention;
  });
}

// The entry is there as it was when the work began, and nobody has gone on from it.
bool IsUntouched(const CondensingWork& work) {
  const auto& entries = work.tenant->prefixes.entries();
  const auto found = entries.find(work.entry);
  return found != entries.end() && found->second.snapshot == work.cached &&
         found->second.hits == work.hits;
}

void SkipRung(const CondensingWork& work, const absl::Status& why) {
  work.tenant->rungs_tried[work.entry] = work.rung + 1;
  spdlog::debug("a prefix is not made smaller so: tenant={} entry={} retention={} reason={}",
                work.tenant->config.name, work.entry, work.tenant->config.degrade[work.rung],
                MessageOf(why));
}

// Its policy has forgotten the end of the entry.
void CarryOutEviction(const CondensingWork& work) {
  if (!IsUntouched(work)) return;
  work.tenant->prefixes.CutEntry(work.entry, work.rows_left, RemovalCause::kEvicted);
}

}  // namespace

void KvCore::Degrade(Tenant& tenant) {
  if (tenant.config.degrade.empty() || CondensingOf(tenant) != nullptr) return;
  if (!UpdatePressed(tenant) || WritesFirst(tenant)) return;
  ForgetEntriesThatWent(tenant);
  for (int idle = 0; idle < kIdleVictimsMax && UpdatePressed(tenant);) {
    const uint64_t before = tenant.kept_bytes();
    std::optional<CondensingWork> work;
    const auto spares = [&](const PrefixCache::Entry& entry, uint64_t rows_left) {
      if (work) return false;
      work = WorkOn(tenant, entry, rows_left);
      return work.has_value();
    };
    if (!tenant.prefixes.GiveUpNext(spares)) break;
    if (work) StartCondensing(*std::move(work));
    if (CondensingOf(tenant) != nullptr) break;
    idle = tenant.kept_bytes() < before ? 0 : idle + 1;
  }
  tenant.GiveBack();
}

std::optional<CondensingWork> KvCore::WorkOn(Tenant& tenant, const PrefixCache::Entry& entry,
                                             uint64_t rows_left) const {
  const Snapshot& snapshot = *entry.snapshot;
  CondensingWork work;
  if (const auto tried = tenant.rungs_tried.find(entry.id); tried != tenant.rungs_tried.end()) {
    work.rung = tried->second;
  }
  if (work.rung >= tenant.config.degrade.size()) return std::nullopt;
  if (snapshot.quality == QualityClass::kCompacted || LiesInATier(tenant, snapshot)) {
    return std::nullopt;
  }
  work.rows_staying = entry.forked_rows;
  work.freed_bytes = BytesAlone(tenant, snapshot, work.rows_staying);
  if (work.freed_bytes == 0) return std::nullopt;
  work.tenant = &tenant;
  work.entry = entry.id;
  work.hits = entry.hits;
  work.cached = entry.snapshot;
  work.rows_left = rows_left;
  return work;
}

void KvCore::StartCondensing(CondensingWork work) {
  const size_t rungs = work.tenant->config.degrade.size();
  for (; work.rung < rungs && IsUntouched(work); ++work.rung) {
    absl::StatusOr<std::unique_ptr<Condensing>> opened = OpenCondensing(work);
    if (!opened.ok()) {
      const bool begun = opened.status().code() == absl::StatusCode::kResourceExhausted;
      work.tenant->counters.condensing_failures += begun ? 1 : 0;
      SkipRung(work, opened.status());
      continue;
    }
    if (*opened == nullptr) return;
    const uint64_t id = (*opened)->sequence()->identity().id;
    Condensing& condensing = *(condensings_[id] = *std::move(opened));
    const absl::Status run = RunCondensing(condensing);
    if (run.ok()) return;
    condensings_.erase(id);
    ++work.tenant->counters.condensing_failures;
    SkipRung(work, run);
  }
  CarryOutEviction(work);
}

absl::StatusOr<std::unique_ptr<Condensing>> KvCore::OpenCondensing(const CondensingWork& work) {
  const KeepingCached keeping(*work.tenant);
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<Condensing> condensing,
                          Condensing::Create(work, config_.session_limits,
                                             config_.first_extent_bytes, config_.extent_bytes));
  const Model& model = condensing->model();
  const Snapshot& source = condensing->source();
  KVASIR_ASSIGN_OR_RETURN(std::shared_ptr<const ModelProfile> profile, ProfileOf(model));
  OpenRequest request;
  request.retention = work.tenant->config.degrade[work.rung];
  request.reads_records = true;
  KVASIR_ASSIGN_OR_RETURN(PolicyLanes lanes, LanesFor(*work.tenant, model, profile, request));
  const std::string name = FormName(lanes.spec, FormName(source.retention, source.condensed_from));
  const ChainKey form = PrefixForm(config_.prefix_secret, name, 0);
  KVASIR_RETURN_IF_ERROR(condensing->CheckBelow(lanes));
  if (IsThere(work.tenant->prefixes, *source.chain, lanes.spec)) {
    work.tenant->prefixes.CutEntry(work.entry, work.rows_staying, RemovalCause::kDegraded);
    return nullptr;
  }
  KVASIR_RETURN_IF_ERROR(
      condensing->Open(next_sequence_id_++, form, std::move(lanes), std::move(profile)));
  return condensing;
}

absl::Status KvCore::RunCondensing(Condensing& condensing) {
  const KeepingCached keeping(condensing.tenant());
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<SequenceJob> job, condensing.Advance());
  if (job == nullptr) return FinishCondensing(condensing);
  job->place = condensing.tenant().place;
  jobs_.Push(std::move(job));
  return absl::OkStatus();
}

absl::Status KvCore::FinishCondensing(const Condensing& condensing) {
  const CondensingWork& work = condensing.work();
  const std::shared_ptr<const Snapshot> result = condensing.result();
  Tenant& tenant = *work.tenant;
  PrefixUse use;
  KVASIR_RETURN_IF_ERROR(tenant.prefixes.Add(result, use).status());
  ++tenant.counters.condensings;
  tenant.counters.condensed_rows += result->rows;
  if (IsUntouched(work)) {  // else it was given up to have the other one
    tenant.counters.condensed_bytes += work.freed_bytes - result->held_bytes();
    tenant.prefixes.CutEntry(work.entry, work.rows_staying, RemovalCause::kDegraded);
  }
  condensings_.erase(condensing.sequence()->identity().id);
  return absl::OkStatus();
}

void KvCore::FinishCondensingJob(std::unique_ptr<SequenceJob> job) {
  Condensing& condensing = *condensings_.at(job->sequence_id);
  Tenant& tenant = condensing.tenant();
  condensing.Finish(*job);
  job.reset();  // before the sequence: it may hold the last references to the tenant's groups
  ContinueCondensing(condensing);
  tenant.GiveBack();
  Degrade(tenant);
}

void KvCore::ContinueCondensing(Condensing& condensing) {
  CondensingWork work = condensing.work();  // it shares the prefix, so that it stays until the end
  if (condensing.abandoned() || !IsUntouched(work)) return DropCondensing(condensing);
  const uint64_t id = condensing.sequence()->identity().id;
  const absl::Status run = RunCondensing(condensing);
  if (run.ok()) return;
  condensings_.erase(id);
  ++work.tenant->counters.condensing_failures;
  SkipRung(work, run);
  ++work.rung;
  StartCondensing(std::move(work));
}

bool KvCore::PutBackCondensingJob(std::unique_ptr<SequenceJob> job) {
  Condensing& condensing = *condensings_.at(job->sequence_id);
  if (!condensing.abandoned()) {
    jobs_.Push(std::move(job));
    return true;
  }
  Tenant& tenant = condensing.tenant();
  condensing.CancelJob();
  job.reset();
  DropCondensing(condensing);
  tenant.GiveBack();
  return false;
}

// The entry loses its end as if nothing had been tried, and nothing is tried again: who needed the
// memory at once may need it again.
void KvCore::DropCondensing(Condensing& condensing) {
  CondensingWork work = condensing.work();
  condensings_.erase(condensing.sequence()->identity().id);
  ++work.tenant->counters.condensing_failures;
  work.rung = work.tenant->config.degrade.size() - 1;
  SkipRung(work, Aborted("the prefix was gone on from, or its memory was needed at once"));
  CarryOutEviction(work);
}

bool KvCore::EndCondensing(Tenant& tenant, bool always) {
  Condensing* const condensing = CondensingOf(tenant);
  if (condensing == nullptr || condensing->abandoned()) return false;
  if (!always && IsUntouched(condensing->work())) return false;
  const uint64_t id = condensing->sequence()->identity().id;
  std::vector<std::unique_ptr<SequenceJob>> queued =
      jobs_.Remove([id](const SequenceJob& job) { return job.sequence_id == id; });
  if (queued.empty()) {  // a worker is at it
    condensing->Abandon();
    return false;
  }
  condensing->CancelJob();
  queued.clear();
  DropCondensing(*condensing);
  return true;
}

Condensing* KvCore::CondensingOf(const Tenant& tenant) const {
  const auto found = std::find_if(condensings_.begin(), condensings_.end(), [&](const auto& one) {
    return &one.second->tenant() == &tenant;
  });
  return found == condensings_.end() ? nullptr : found->second.get();
}

}  // namespace kvasir::core
