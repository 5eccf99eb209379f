#include "client/ring_calls.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "base/status_macros.h"
#include "ring/commands.h"

#include <poll.h>

namespace kvasir {
namespace {

constexpr uint32_t kMatchAnswerBytes = 16 << 10;  // some hundred forms; the longest are enough

bool HungUp(const UniqueFd& socket) {
  pollfd entry{socket.get(), POLLRDHUP, 0};
  return ::poll(&entry, 1, 0) == 1 && (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

}  // namespace

absl::Status OpenRing(SessionState& state, const ConnectOptions& options) {
  KVASIR_ASSIGN_OR_RETURN(state.ring_memory,
                          ring::EngineRingMemory::Open(state.d.data(), state.d.bytes(),
                                                       state.e.data(), state.e.bytes()));
  if (!options.use_ring) return absl::OkStatus();
  ring::WaitOptions wait;
  wait.spin =
      options.spin.value_or(std::chrono::nanoseconds(state.ring_memory->geometry.engine_spin_ns));
  wait.peer_is_gone = [&socket = state.socket] { return HungUp(socket); };
  state.ring = std::make_unique<ring::CommandCaller>(*state.ring_memory, state.doorbell.get(),
                                                     std::move(wait));
  return absl::OkStatus();
}

bool FitsRing(const SessionState& state, const PrefixOptions& prefix) {
  if (state.ring == nullptr || prefix.digests.size() > shm::kMatchExtrasMax) return false;
  const uint64_t bytes = sizeof(shm::MatchRecord) + 4 * prefix.tokens.size() + 8 +
                         sizeof(shm::MatchExtraRecord) * prefix.digests.size();
  return bytes <= state.ring_memory->geometry.PayloadBytesMax();
}

absl::StatusOr<std::vector<PrefixForm>> MatchByRing(SessionState& state, uint32_t model_id,
                                                    const PrefixOptions& prefix, bool prefetch) {
  std::vector<shm::MatchExtraRecord> extras;
  for (const TokenDigest& one : prefix.digests) {
    KVASIR_ASSIGN_OR_RETURN(const shm::MatchExtraRecord extra,
                            ring::MakeMatchExtra(one.row, one.digest));
    extras.push_back(extra);
  }
  KVASIR_ASSIGN_OR_RETURN(const ring::MatchPayload payload,
                          ring::MatchPayload::Make(model_id, prefix.tokens, extras, prefix.salt,
                                                   prefix.rows_max, prefetch));
  std::vector<std::byte> answer(kMatchAnswerBytes);
  const auto pieces = payload.Pieces();
  shm::CompletionEntry reply{};
  KVASIR_RETURN_IF_ERROR(
      state.Command(ring::MatchPayload::Entry(kMatchAnswerBytes), pieces, answer, &reply));
  KVASIR_ASSIGN_OR_RETURN(const std::vector<ring::MatchForm> found,
                          ring::MatchFormsOf(reply, std::span(answer).first(reply.answer_bytes)));
  std::vector<PrefixForm> forms;
  for (const ring::MatchForm& form : found) {
    forms.push_back({form.retention, static_cast<PrefixQuality>(form.quality), form.rows,
                     form.is_public, form.place, form.condensed_from});
  }
  return forms;
}

size_t SyncNeedsMax(const SessionState& state) {
  if (state.ring == nullptr) return shm::kSyncNeedsMax;
  const shm::RingGeometry& geometry = state.ring_memory->geometry;
  const size_t payload = geometry.PayloadBytesMax() / sizeof(shm::SyncNeedRecord);
  const size_t answer = geometry.AnswerBytesMax() / sizeof(shm::SyncResultRecord);
  return std::clamp<size_t>(std::min(payload, answer), 1, shm::kSyncNeedsMax);
}

absl::Status SyncMany(SessionState& state, std::span<const shm::SyncNeedRecord> needs,
                      std::span<shm::SyncResultRecord> results) {
  if (state.ring != nullptr) {
    const std::array pieces{std::as_bytes(needs)};
    const std::span answer = std::as_writable_bytes(results);
    shm::CompletionEntry reply{};
    KVASIR_RETURN_IF_ERROR(state.Command(ring::MakeSyncMany(needs), pieces, answer, &reply));
    return ring::SyncResultsOf(answer.first(reply.answer_bytes), needs.size()).status();
  }
  v1::SyncRequest request;
  for (const shm::SyncNeedRecord& record : needs) {
    v1::SyncNeed* const need = request.add_needs();
    need->set_sequence(record.seq);
    need->set_uid(record.uid);
    need->set_granted_rows(record.granted_rows);
    need->set_has_table_row((record.flags & shm::kSyncHasTableRow) != 0);
    need->set_table_row(record.table_row);
  }
  v1::SyncResponse response;
  KVASIR_RETURN_IF_ERROR(state.channel->Call(&v1::KvCache::Stub::Sync, request, &response));
  if (static_cast<size_t>(response.results_size()) != needs.size()) {
    return Internal("sync answered {} results: min={} max={}", response.results_size(),
                    needs.size(), needs.size());
  }
  for (size_t i = 0; i < needs.size(); ++i) {
    const v1::SyncResult& result = response.results(static_cast<int>(i));
    results[i] = {};
    results[i].status = result.code();
    results[i].unseen_bytes = result.unseen_bytes();
  }
  return absl::OkStatus();
}

}  // namespace kvasir
