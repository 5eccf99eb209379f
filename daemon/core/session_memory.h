// The two shared segments of a session as the daemon maps them, and the way extents reach the
// engine.
#ifndef KVASIR_DAEMON_CORE_SESSION_MEMORY_H_
#define KVASIR_DAEMON_CORE_SESSION_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "allocator/extent.h"
#include "proto/shm/command_ring_layout.h"
#include "proto/shm/layout.h"

namespace kvasir::core {

struct SessionLimits {
  uint32_t sequences_max = 256;  // boards and desks
  uint32_t models_max = 8;
  uint32_t extents_max = 4096;
  uint32_t lanes_max = 1024;
  uint64_t recent_rows_max =
      1 << 17;  // directory of a sequence: rows between recent_first and granted
  uint64_t arena_bytes = 16ULL << 20;
  shm::RingSizes ring = {};  // of the command ring, which the core does not touch
};

// Sizes of the segments for these limits.
struct SegmentSizes {
  uint64_t seq_off, arena_off, ring_d_off, d_bytes, e_desk_off, ring_e_off, e_bytes;
};
SegmentSizes SegmentSizesFor(const SessionLimits& limits);

// Borrowed mappings. `d` is written here and read by the engine; `e` the other way round.
struct SessionMemory {
  std::byte* d = nullptr;
  const std::byte* e = nullptr;

  shm::DaemonHeader* header() const { return reinterpret_cast<shm::DaemonHeader*>(d); }
};

// Hands extents to one engine. Never blocks.
class ExtentSender {
 public:
  virtual ~ExtentSender() = default;
  // Errors: any; the session is then ended.
  virtual absl::Status SendExtent(const shm::ExtentNotice& notice, const Extent& extent) = 0;
};

// Which extents an engine has been given, by slot. Not thread-safe.
class ExtentTable {
 public:
  struct Ref {
    uint32_t slot = 0;
    uint32_t generation = 0;
  };

  // `sender` must outlive it. `seals_size`: the engine could cut extents that are not sealed
  // against it, so all that it gets are.
  ExtentTable(uint32_t extents_max, ExtentSender& sender, bool seals_size = false)
      : extents_max_(extents_max), sender_(sender), seals_size_(seals_size) {}

  // The slot of `extent`, sent now if the engine does not have it.
  // Errors: the sender's, kResourceExhausted naming limits.extents_per_session_max.
  absl::StatusOr<Ref> RefOf(const Extent& extent);

  // The extent has been taken back: its slot is free for another, in its next generation.
  void Forget(uint64_t extent_id);

  uint64_t size() const { return slots_.size(); }

 private:
  const uint32_t extents_max_;
  ExtentSender& sender_;
  const bool seals_size_;
  std::map<uint64_t, Ref> slots_;  // by extent id
  std::vector<Ref> free_;          // as the next extents will have them
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_SESSION_MEMORY_H_
