// Calls about a sequence that come at block borders and at steps: through the command ring, or by
// gRPC where there is none.
#include <algorithm>
#include <utility>

#include "base/status_macros.h"
#include "client/sequence_state.h"
#include "proto/shm/command_payload.h"

namespace kvasir {

absl::StatusOr<uint64_t> SequenceState::CallSync(uint64_t granted_rows,
                                                 std::optional<uint64_t> table_row) {
  if (session_->ring != nullptr) {
    KVASIR_ASSIGN_OR_RETURN(const shm::CompletionEntry reply,
                            session_->Command(ring::MakeSync(ref(), granted_rows, table_row)));
    return reply.result[2];
  }
  v1::SyncRequest request;
  v1::SyncNeed* need = request.add_needs();
  need->set_sequence(slot_);
  need->set_uid(uid_);
  need->set_granted_rows(granted_rows);
  need->set_has_table_row(table_row.has_value());
  need->set_table_row(table_row.value_or(0));
  v1::SyncResponse response;
  KVASIR_RETURN_IF_ERROR(session_->channel->Call(&v1::KvCache::Stub::Sync, request, &response));
  if (response.results_size() != 1)
    return Internal("sync answered {} results", response.results_size());
  const v1::SyncResult& result = response.results(0);
  unseen_bytes_ = result.unseen_bytes();
  if (result.code() != 0) {
    absl::Status error = MakeError(static_cast<absl::StatusCode>(result.code()), result.message());
    if (result.has_shortage()) AttachTo(result.shortage(), &error);
    return error;
  }
  return result.unseen_bytes();
}

absl::StatusOr<uint32_t> SequenceState::CallTruncate(uint64_t rows) {
  if (session_->ring != nullptr) {
    KVASIR_ASSIGN_OR_RETURN(const shm::CompletionEntry reply,
                            session_->Command(ring::MakeTruncate(ref(), rows)));
    return static_cast<uint32_t>(reply.result[0]);
  }
  v1::TruncateRequest request;
  request.set_sequence(slot_);
  request.set_uid(uid_);
  request.set_rows(rows);
  v1::TruncateResponse response;
  KVASIR_RETURN_IF_ERROR(session_->channel->Call(&v1::KvCache::Stub::Truncate, request, &response));
  return response.uid();
}

absl::StatusOr<std::vector<shm::RetrievedBlockRecord>> SequenceState::CallRetrieve(
    uint32_t layer, uint64_t mass_blocks) {
  std::vector<shm::RetrievedBlockRecord> blocks;
  if (session_->ring != nullptr) {
    blocks.resize(retrieved_blocks_max_);
    shm::CompletionEntry reply{};
    KVASIR_RETURN_IF_ERROR(
        session_->Command(ring::MakeRetrieve(ref(), layer, mass_blocks, retrieved_blocks_max_), {},
                          std::as_writable_bytes(std::span(blocks)), &reply));
    KVASIR_ASSIGN_OR_RETURN(
        const std::span<const shm::RetrievedBlockRecord> found,
        ring::RetrievedBlocksOf(reply, std::as_bytes(std::span(blocks)).first(reply.answer_bytes)));
    blocks.resize(found.size());
    return blocks;
  }
  v1::RetrieveRequest request;
  request.set_sequence(slot_);
  request.set_uid(uid_);
  request.set_layer(layer);
  request.set_mass_blocks(mass_blocks);
  v1::RetrieveResponse response;
  KVASIR_RETURN_IF_ERROR(session_->channel->Call(&v1::KvCache::Stub::Retrieve, request, &response));
  for (const v1::RetrievedBlock& block : response.blocks()) {
    blocks.push_back({block.block(), block.extent(), block.generation(), 0, block.offset()});
  }
  return blocks;
}

absl::StatusOr<Sequence::Published> SequenceState::CallPublishPrefix() {
  if (session_->ring != nullptr) {
    KVASIR_ASSIGN_OR_RETURN(const shm::CompletionEntry reply,
                            session_->Command(ring::MakePublishPrefix(ref())));
    return Sequence::Published{reply.result[0], reply.result[1]};
  }
  v1::PublishPrefixRequest request;
  request.set_sequence(slot_);
  request.set_uid(uid_);
  v1::PublishPrefixResponse response;
  KVASIR_RETURN_IF_ERROR(
      session_->channel->Call(&v1::KvCache::Stub::PublishPrefix, request, &response));
  return Sequence::Published{response.rows(), response.held_bytes()};
}

absl::Status SequenceState::CallClose() {
  if (session_->ring != nullptr) {
    return session_->Command(ring::MakeCloseSequence(ref())).status();
  }
  v1::CloseSequenceRequest request;
  request.set_sequence(slot_);
  request.set_uid(uid_);
  v1::CloseSequenceResponse response;
  return session_->channel->Call(&v1::KvCache::Stub::CloseSequence, request, &response);
}

absl::Status SequenceState::SetHints(const RequestHints& hints) {
  if (closed_) return FailedPrecondition("the sequence is closed: id={}", id_);
  v1::SetHintsRequest request;
  request.set_sequence(slot_);
  request.set_uid(uid_);
  Fill(hints, request.mutable_hints());
  v1::SetHintsResponse response;
  return session_->channel->Call(&v1::KvCache::Stub::SetHints, request, &response);
}

void Fill(const RequestHints& hints, v1::SequenceHints* out) {
  out->set_priority(hints.priority);
  if (hints.predicted_rows) out->set_predicted_rows(*hints.predicted_rows);
  if (hints.predicted_rank) out->set_predicted_rank(*hints.predicted_rank);
  out->set_request_age_ms(static_cast<uint64_t>(std::max<int64_t>(hints.age.count(), 0)));
}

}  // namespace kvasir
