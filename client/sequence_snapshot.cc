// Calls by which a sequence is saved and gone on from.
#include "base/status_macros.h"
#include "client/sequence_state.h"

namespace kvasir {

absl::Status SequenceState::BeginAt(uint64_t rows) {
  if (board_.granted.load(std::memory_order_acquire) < rows) {
    return DataLoss("the daemon's sequence begins beyond what it granted: rows={}", rows);
  }
  return StartOver(rows, uid_);
}

absl::StatusOr<Snapshot> SequenceState::Save() {
  if (closed_) return FailedPrecondition("the sequence is closed: id={}", id_);
  KVASIR_RETURN_IF_ERROR(AwaitStream());
  WriteDesk();  // the rows that it saves
  v1::SaveSequenceRequest request;
  request.set_sequence(slot_);
  request.set_uid(uid_);
  v1::SaveSequenceResponse response;
  KVASIR_RETURN_IF_ERROR(
      session_->channel->Call(&v1::KvCache::Stub::SaveSequence, request, &response));
  return Snapshot{response.snapshot_id(), response.rows(), response.held_bytes()};
}

absl::StatusOr<Sequence::Published> SequenceState::PublishPrefix() {
  if (closed_) return FailedPrecondition("the sequence is closed: id={}", id_);
  KVASIR_RETURN_IF_ERROR(AwaitStream());
  WriteDesk();  // the rows that it offers
  return CallPublishPrefix();
}

}  // namespace kvasir
