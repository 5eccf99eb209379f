#include "daemon/core/sequence_answers.h"

#include <optional>
#include <utility>
#include <vector>

namespace kvasir::core {

SyncAnswer AnswerOf(const Sequence& sequence) {
  SyncAnswer answer;
  answer.granted_rows = sequence.granted();
  answer.published_version = sequence.published_version();
  if (sequence.retrieval() != nullptr) answer.unseen_bytes = sequence.retrieval()->held_bytes();
  return answer;
}

TruncateAnswer TruncateIdle(Session& session, Sequence& sequence, uint64_t rows) {
  TruncateAnswer answer;
  answer.ready = true;
  answer.status = sequence.Truncate(rows, session.next_uid);
  answer.rollback_floor = sequence.RollbackFloor();
  if (answer.status.ok()) ++session.next_uid;
  answer.uid = sequence.identity().uid;
  return answer;
}

RetrieveAnswer RetrieveIdle(Sequence& sequence, uint32_t layer, uint64_t mass_blocks, bool* asked) {
  RetrieveAnswer answer;
  auto blocks = sequence.Retrieve(layer, mass_blocks, asked);
  answer.status = blocks.status();
  if (!blocks.ok() || !*blocks) return answer;
  answer.ready = true;
  answer.blocks = **std::move(blocks);
  return answer;
}

}  // namespace kvasir::core
