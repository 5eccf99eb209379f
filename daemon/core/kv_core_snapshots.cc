// The verbs on snapshots.
#include <algorithm>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/shortage.h"
#include "base/status_macros.h"
#include "daemon/core/kv_core.h"
#include "daemon/core/kv_core_moves.h"

namespace kvasir::core {
namespace {

// One text for ids that do not exist and for those of others.
absl::Status UnknownSnapshot() { return NotFound("unknown snapshot"); }

}  // namespace

absl::StatusOr<std::shared_ptr<const Snapshot>> KvCore::SnapshotFor(Session& session,
                                                                    const Model& model,
                                                                    const OpenRequest& request,
                                                                    bool* awaits_load) {
  if (!request.snapshot) return nullptr;
  std::shared_ptr<const Snapshot> snapshot = session.tenant.snapshots.Find(*request.snapshot);
  if (snapshot == nullptr) return UnknownSnapshot();
  KVASIR_RETURN_IF_ERROR(Moves::Check(*this, session, model, *snapshot, request.reads_records));
  if (snapshot->lanes.empty()) {
    KVASIR_ASSIGN_OR_RETURN(*awaits_load, AwaitsSaved(session.tenant, model, *request.snapshot,
                                                      *snapshot, request.loading));
    return nullptr;
  }
  if (snapshot->device != model.device()) {
    KVASIR_ASSIGN_OR_RETURN(*awaits_load,
                            Moves(*this).AwaitsSaved(session.tenant, model, *request.snapshot,
                                                     std::move(snapshot), request.loading));
    return nullptr;
  }
  if (request.snapshot_rows == 0 || request.snapshot_rows == snapshot->rows) return snapshot;
  if (request.snapshot_rows > snapshot->rows || request.snapshot_rows < snapshot->first_rows) {
    return OutOfRange(
        "the snapshot cannot be gone on from at this row: snapshot_rows={} min={} max={}",
        request.snapshot_rows, snapshot->first_rows, snapshot->rows);
  }
  return snapshot->Cut(request.snapshot_rows);
}

Sequence* KvCore::OpenedSequence(const Session& session, uint64_t sequence_id) {
  const auto found = sequence_places_.find(sequence_id);
  if (found == sequence_places_.end() || found->second.session != &session) return nullptr;
  return session.sequences[found->second.slot].get();
}

void KvCore::GiveUpOpening(uint64_t sequence_id, PrefixLoading* loading) {
  if (sequence_id == 0 && loading != nullptr) offloads_.Settle(std::exchange(loading->move, 0));
  const auto found = sequence_places_.find(sequence_id);
  if (found == sequence_places_.end()) return;
  Session* const session = found->second.session;
  const uint32_t slot = found->second.slot;
  Sequence& sequence = *session->sequences[slot];
  sequence.Abandon();  // where a job is out, it goes when the job comes back
  if (!sequence.job_out() && !session->ended) EraseSequence(*session, slot);
}

absl::StatusOr<std::shared_ptr<const Snapshot>> KvCore::SealAndSave(Sequence& sequence,
                                                                    bool* asked) {
  if (!*asked) {
    const absl::StatusOr<bool> sealing = sequence.SealRows();
    CollectJob(sequence);
    KVASIR_RETURN_IF_ERROR(sealing.status());
    if (*sealing) return nullptr;  // asked again, it finds the rows sealed
  }
  absl::StatusOr<std::shared_ptr<const Snapshot>> saved = sequence.Save(asked);
  CollectJob(sequence);
  return saved;
}

SaveAnswer KvCore::SaveSequence(Session& session, uint32_t slot, uint32_t uid, const SnapshotId& id,
                                Instant now, bool* asked) {
  SaveAnswer answer;
  const absl::StatusOr<Sequence*> found = LookAtIdle(session, slot, uid);
  answer.status = found.status();
  if (!found.ok() || *found == nullptr) return answer;
  Sequence& sequence = **found;
  SnapshotStore& snapshots = session.tenant.snapshots;
  // Those whose ids are lost are asked for by nobody: what lies below alone makes room.
  const uint32_t snapshots_max = session.tenant.account.budget().counts.snapshots;
  while (snapshots.size() >= snapshots_max && snapshots.DropOldestBelow()) {
  }
  if (snapshots.size() >= snapshots_max) {
    answer.status = WithShortage(
        ResourceExhausted("tenant has too many snapshots: snapshots={} tenant.snapshots_max={}",
                          snapshots.size(), snapshots_max),
        {"tenant.snapshots_max", 1, "own snapshots", kCountRetry});
    return answer;
  }
  absl::StatusOr<std::shared_ptr<const Snapshot>> saved = SealAndSave(sequence, asked);
  answer.status = saved.status();
  if (!saved.ok() || *saved == nullptr) return answer;
  answer.ready = true;
  answer.rows = (*saved)->rows;
  answer.held_bytes = (*saved)->held_bytes();
  snapshots.Add(id, *std::move(saved), now);
  tier_hint_ = true;
  return answer;
}

absl::Status KvCore::DropSnapshot(Session& session, const SnapshotId& id) {
  tier_hint_ = true;  // what lies in a tier is to be erased
  return session.tenant.snapshots.Drop(id) ? absl::OkStatus() : UnknownSnapshot();
}

std::vector<SnapshotReport> KvCore::SnapshotReports() const {
  std::vector<SnapshotReport> reports;
  for (const auto& tenant : tenants_) {
    for (const auto& [id, entry] : tenant->snapshots.entries()) {
      const Snapshot& snapshot = *entry.snapshot;
      reports.push_back({tenant->config.name, snapshot.model.name, snapshot.retention,
                         snapshot.label, snapshot.rows, snapshot.held_bytes(), entry.made_at});
    }
  }
  std::stable_sort(reports.begin(), reports.end(), [](const auto& a, const auto& b) {
    return std::tie(a.tenant, a.made_at) < std::tie(b.tenant, b.made_at);
  });
  return reports;
}

}  // namespace kvasir::core
