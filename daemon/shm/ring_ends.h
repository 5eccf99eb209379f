// RingEnds: the daemon's two ends of one session's command ring.
#ifndef KVASIR_DAEMON_SHM_RING_ENDS_H_
#define KVASIR_DAEMON_SHM_RING_ENDS_H_

#include "ring/completion_producer.h"
#include "ring/ring_memory.h"
#include "ring/submission_consumer.h"

namespace kvasir {

// Not thread-safe: used under the ring server's lock. Does not own the segments.
struct RingEnds {
  explicit RingEnds(const ring::DaemonRingMemory& ring_memory)
      : memory(ring_memory), completions(memory), submissions(memory, completions) {}
  RingEnds(const RingEnds&) = delete;
  RingEnds& operator=(const RingEnds&) = delete;

  const ring::DaemonRingMemory memory;
  ring::CompletionProducer completions;
  ring::SubmissionConsumer submissions;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_SHM_RING_ENDS_H_
