#include "ring/ring_memory.h"

#include "base/error.h"
#include "base/status_macros.h"
#include "ring/shared_copy.h"

namespace kvasir::ring {

absl::StatusOr<EngineRingMemory> EngineRingMemory::Open(const std::byte* d, uint64_t d_bytes,
                                                        std::byte* e, uint64_t e_bytes) {
  if (d_bytes < shm::kHeaderBytes || e_bytes < shm::kHeaderBytes) {
    return DataLoss("segments are too small for a command ring: d_bytes={} e_bytes={} min={}",
                    d_bytes, e_bytes, shm::kHeaderBytes);
  }
  EngineRingMemory memory;
  memory.geometry = CopyStructFromShared<shm::RingGeometry>(d + shm::kDaemonRingWordsOff);
  const shm::RingGeometry& geometry = memory.geometry;
  KVASIR_RETURN_IF_ERROR(shm::CheckRingGeometry(geometry, d_bytes, e_bytes));
  memory.boot_epoch = reinterpret_cast<const shm::DaemonHeader*>(d)->boot_epoch;
  memory.daemon_words = reinterpret_cast<const shm::DaemonRingWords*>(d + shm::kDaemonRingWordsOff);
  memory.completions = d + geometry.completions_off;
  memory.answers = d + geometry.answers_off;
  memory.engine_words = reinterpret_cast<shm::EngineRingWords*>(e + shm::kEngineRingWordsOff);
  memory.submissions = e + geometry.submissions_off;
  memory.payloads = e + geometry.payloads_off;
  return memory;
}

DaemonRingMemory DaemonRingMemory::Create(const shm::RingGeometry& geometry, uint64_t boot_epoch,
                                          std::byte* d, std::byte* e) {
  DaemonRingMemory memory;
  memory.geometry = geometry;
  memory.boot_epoch = boot_epoch;
  memory.daemon_words = reinterpret_cast<shm::DaemonRingWords*>(d + shm::kDaemonRingWordsOff);
  memory.daemon_words->geometry = geometry;
  memory.daemon_words->sq_head.store(geometry.first_entry, std::memory_order_relaxed);
  memory.daemon_words->cq_tail.store(geometry.first_entry, std::memory_order_relaxed);
  memory.completions = d + geometry.completions_off;
  memory.answers = d + geometry.answers_off;
  auto* const engine_words = reinterpret_cast<shm::EngineRingWords*>(e + shm::kEngineRingWordsOff);
  engine_words->sq_tail.store(geometry.first_entry, std::memory_order_relaxed);
  engine_words->cq_head.store(geometry.first_entry, std::memory_order_relaxed);
  memory.engine_words = engine_words;
  memory.submissions = e + geometry.submissions_off;
  memory.payloads = e + geometry.payloads_off;
  return memory;
}

}  // namespace kvasir::ring
