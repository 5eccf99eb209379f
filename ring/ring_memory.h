// Where the parts of a session's ring lie in this process. Borrowed mappings: they must outlive
// every view made of them.
#ifndef KVASIR_RING_RING_MEMORY_H_
#define KVASIR_RING_RING_MEMORY_H_

#include <cstddef>
#include <cstdint>

#include <absl/status/statusor.h>

#include "proto/shm/command_ring_layout.h"

namespace kvasir::ring {

// The engine's: D is read-only.
struct EngineRingMemory {
  shm::RingGeometry geometry;  // a private copy, checked
  uint64_t boot_epoch = 0;
  const shm::DaemonRingWords* daemon_words = nullptr;
  const std::byte* completions = nullptr;
  const std::byte* answers = nullptr;
  shm::EngineRingWords* engine_words = nullptr;
  std::byte* submissions = nullptr;
  std::byte* payloads = nullptr;

  // Copies the geometry out of D once and checks the copy. Errors: kDataLoss naming field and
  // bound.
  static absl::StatusOr<EngineRingMemory> Open(const std::byte* d, uint64_t d_bytes, std::byte* e,
                                               uint64_t e_bytes);
};

// The daemon's. It writes D and never reads it; after Create() it reads E and never writes it.
struct DaemonRingMemory {
  shm::RingGeometry geometry;
  uint64_t boot_epoch = 0;
  shm::DaemonRingWords* daemon_words = nullptr;
  std::byte* completions = nullptr;
  std::byte* answers = nullptr;
  const shm::EngineRingWords* engine_words = nullptr;
  const std::byte* submissions = nullptr;
  const std::byte* payloads = nullptr;

  // Writes the geometry into D and the first counters into both. REQUIRES: zeroed segments of at
  // least the sizes that CheckRingGeometry() asks for, which the engine does not have yet.
  static DaemonRingMemory Create(const shm::RingGeometry& geometry, uint64_t boot_epoch,
                                 std::byte* d, std::byte* e);
};

}  // namespace kvasir::ring

#endif  // KVASIR_RING_RING_MEMORY_H_
