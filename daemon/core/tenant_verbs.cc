#include "daemon/core/tenant_verbs.h"

#include <utility>

#include "daemon/core/sequence_answers.h"

namespace kvasir::core {

Session* TenantVerbs::FindSession(const SessionToken& token) const {
  const auto found = core_.by_token_.find(token);
  if (found == core_.by_token_.end()) return nullptr;
  return found->second->tenant.place % shares_ == share_ ? found->second : nullptr;
}

Sequence* TenantVerbs::Find(Session& session, uint32_t slot, uint32_t uid) const {
  const absl::StatusOr<Sequence*> found = KvCore::FindSequence(session, slot, uid);
  return found.ok() && (*found)->is_tenants_alone() ? *found : nullptr;
}

std::optional<SyncAnswer> TenantVerbs::Sync(Session& session, const SyncNeed& need) {
  Sequence* const sequence = Find(session, need.slot, need.uid);
  if (sequence == nullptr) return std::nullopt;
  const Account::Standing standing(session.tenant.account);
  if (!sequence->Look().ok()) return std::nullopt;
  const absl::Status advanced = sequence->Advance();
  core_.CollectJob(*sequence);
  const absl::Status granted = sequence->Grant(need.granted_rows);
  // Also where it was for rows ahead alone: those are to be there when the engine needs them.
  if (!granted.ok() || standing.asked()) return std::nullopt;
  SyncAnswer answer = AnswerOf(*sequence);
  answer.ready = !need.table_row || sequence->HasTableFor(*need.table_row);
  if (!answer.ready && (!advanced.ok() || !sequence->job_out())) return std::nullopt;
  return answer;
}

std::optional<TruncateAnswer> TenantVerbs::Truncate(Session& session, uint32_t slot, uint32_t uid,
                                                    uint64_t rows) {
  Sequence* const sequence = Find(session, slot, uid);
  if (sequence == nullptr) return std::nullopt;
  if (sequence->job_out()) return TruncateAnswer{};
  if (sequence->TruncationEndsUse(rows)) return std::nullopt;
  // Tables that need memory of the pool are pending then, as where there is none: the engine asks
  // for them before its next row.
  const Account::Standing standing(session.tenant.account);
  if (!sequence->Look().ok()) return std::nullopt;
  TruncateAnswer answer = TruncateIdle(session, *sequence, rows);
  core_.CollectJob(*sequence);
  return answer;
}

std::optional<RetrieveAnswer> TenantVerbs::Retrieve(Session& session, uint32_t slot, uint32_t uid,
                                                    uint32_t layer, uint64_t mass_blocks,
                                                    bool* asked) {
  Sequence* const sequence = Find(session, slot, uid);
  if (sequence == nullptr) return std::nullopt;
  if (sequence->job_out()) return RetrieveAnswer{};
  const Account::Standing standing(session.tenant.account);
  RetrieveAnswer answer = RetrieveIdle(*sequence, layer, mass_blocks, asked);
  core_.CollectJob(*sequence);
  // Only slots for a lookup are taken from the pool, before there is one: nothing is lost.
  if (standing.asked()) return std::nullopt;
  return answer;
}

Sequence* TenantVerbs::OwnSequenceOf(const SequenceJob& job) const {
  if (job.place % shares_ != share_ || core_.condensings_.contains(job.sequence_id)) return nullptr;
  const SequencePlace& place = core_.sequence_places_.at(job.sequence_id);
  Sequence& sequence = *place.session->sequences[place.slot];
  const bool own = !place.session->ended && !sequence.abandoned() && sequence.is_tenants_alone();
  return own ? &sequence : nullptr;
}

bool TenantVerbs::PutBackJob(std::unique_ptr<SequenceJob>& job) {
  if (OwnSequenceOf(*job) == nullptr) return false;
  core_.jobs_.Push(std::move(job));
  return true;
}

TenantVerbs::Finished TenantVerbs::FinishJob(std::unique_ptr<SequenceJob>& job) {
  Sequence* const sequence = OwnSequenceOf(*job);
  // With a snapshot: it may be the last to name one of a cache's.
  if (sequence == nullptr || job->snapshot != nullptr) return Finished::kNot;
  if (!sequence->tenant().config.degrade.empty()) return Finished::kNot;
  sequence->Finish(*job);
  job.reset();
  const Account::Standing standing(sequence->tenant().account);
  (void)sequence->Advance();
  core_.CollectJob(*sequence);
  return standing.asked() ? Finished::kPartly : Finished::kEntirely;
}

}  // namespace kvasir::core
