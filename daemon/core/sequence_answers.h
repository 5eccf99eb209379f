// What an engine is answered about a sequence of which no job is out, whichever lock the caller
// has.
#ifndef KVASIR_DAEMON_CORE_SEQUENCE_ANSWERS_H_
#define KVASIR_DAEMON_CORE_SEQUENCE_ANSWERS_H_

#include <cstdint>

#include "daemon/core/kv_core_types.h"
#include "daemon/core/session.h"

namespace kvasir::core {

// But for `status` and `ready`; also while a job is out.
SyncAnswer AnswerOf(const Sequence& sequence);

// The verbs. The caller collects the sequence's job after it. REQUIRES: no job is out. Errors:
// those of Sequence's function of that name.
TruncateAnswer TruncateIdle(Session& session, Sequence& sequence, uint64_t rows);  // after Look()
RetrieveAnswer RetrieveIdle(Sequence& sequence, uint32_t layer, uint64_t mass_blocks, bool* asked);

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_SEQUENCE_ANSWERS_H_
