// What engines say of their sequences, and which of those are to give their memory up first.
#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/core/kv_core.h"

namespace kvasir::core {
namespace {

// A tenant's boards are looked at no more often, however often its calls are refused.
constexpr std::chrono::milliseconds kAskEvery{50};
constexpr uint64_t kRequestAgeMsMax = uint64_t{1} << 40;

}  // namespace

absl::Status CheckHints(const SequenceHints& said) {
  const preemption::Hints& hints = said.hints;
  if (hints.priority < -preemption::kPriorityMax || hints.priority > preemption::kPriorityMax) {
    return InvalidArgument("priority is out of bounds: value={} min={} max={}", hints.priority,
                           -preemption::kPriorityMax, preemption::kPriorityMax);
  }
  if (hints.predicted_rows && hints.predicted_rank) {
    return InvalidArgument("predicted_rows and predicted_rank exclude each other");
  }
  if (hints.predicted_rows && *hints.predicted_rows > preemption::kPredictedRowsMax) {
    return InvalidArgument("predicted_rows is out of bounds: value={} max={}",
                           *hints.predicted_rows, preemption::kPredictedRowsMax);
  }
  if (said.age_ms > kRequestAgeMsMax) {
    return InvalidArgument("request_age_ms is out of bounds: value={} max={}", said.age_ms,
                           kRequestAgeMsMax);
  }
  return absl::OkStatus();
}

Instant KvCore::RequestedAt(const SequenceHints& said) const {
  return now_ - std::chrono::milliseconds(said.age_ms);
}

uint64_t KvCore::AgeMsOf(const SequencePlace& place) const {
  using std::chrono::milliseconds;
  const auto age = std::chrono::duration_cast<milliseconds>(now_ - place.requested_at);
  return static_cast<uint64_t>(std::max<int64_t>(age.count(), 0));
}

absl::Status KvCore::SetHints(Session& session, uint32_t slot, uint32_t uid,
                              const SequenceHints& hints) {
  KVASIR_ASSIGN_OR_RETURN(const Sequence* const sequence, FindSequence(session, slot, uid));
  KVASIR_RETURN_IF_ERROR(CheckHints(hints));
  SequencePlace& place = sequence_places_.at(sequence->identity().id);
  place.hints = hints.hints;
  if (hints.age_ms > 0) place.requested_at = RequestedAt(hints);
  return absl::OkStatus();
}

std::vector<uint64_t> KvCore::SuspensionOrderOf(const Tenant& tenant,
                                                const DeviceMemory* device) const {
  std::vector<uint64_t> ids;
  std::vector<preemption::Candidate> candidates;
  for (const auto& [id, place] : sequence_places_) {
    if (&place.session->tenant != &tenant || place.session->ended) continue;
    const Sequence& sequence = *place.session->sequences[place.slot];
    if (sequence.device() != device) continue;  // it would give back nothing of that memory
    const uint64_t rows = sequence.rows();
    ids.push_back(id);
    candidates.push_back({place.hints, place.ResponseRows(rows), AgeMsOf(place), id});
  }
  std::vector<uint64_t> order;
  for (const size_t i : preemption::SuspensionOrder(
           candidates, {config_.starving_ms, tenant.responses.typical_rows()})) {
    order.push_back(ids[i]);
  }
  return order;
}

void KvCore::AskSuspensions(Tenant& tenant, uint64_t bytes, const DeviceMemory* device) {
  if (tenant.suspensions_asked && now_ < tenant.suspensions_asked_at + kAskEvery) return;
  tenant.suspensions_asked = true;
  tenant.suspensions_asked_at = now_;
  const std::vector<uint64_t> order = SuspensionOrderOf(tenant, device);
  uint64_t there = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    SequencePlace& place = sequence_places_.at(order[i]);
    // One goes on, whatever is missing: it ends some time.
    const bool wanted = there < bytes && i + 1 < order.size();
    if (wanted) there += place.session->sequences[place.slot]->Summary().held_bytes;
    if (wanted && !place.suspend_wanted) ++tenant.counters.suspensions_asked;
    SetSuspendWanted(place, wanted);
  }
}

void KvCore::SetSuspendWanted(SequencePlace& place, bool wanted) {
  if (place.suspend_wanted == wanted) return;
  place.suspend_wanted = wanted;
  // relaxed: a hint that orders nothing.
  place.session->Board(place.slot)->suspend_wanted.store(wanted ? 1 : 0, std::memory_order_relaxed);
}

void KvCore::WithdrawSuspensions(Tenant& tenant) {
  if (!tenant.suspensions_asked) return;
  tenant.suspensions_asked = false;
  for (auto& [id, place] : sequence_places_) {
    if (&place.session->tenant == &tenant) SetSuspendWanted(place, false);
  }
}

}  // namespace kvasir::core
