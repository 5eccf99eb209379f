// What a Session and its Sequences share. Private to client/.
#ifndef KVASIR_CLIENT_SESSION_STATE_H_
#define KVASIR_CLIENT_SESSION_STATE_H_

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/mapped_region.h"
#include "base/unix_socket.h"
#include "client/control_channel.h"
#include "client/extent_map.h"
#include "client/model_spec.h"
#include "proto/shm/group_geometry.h"
#include "proto/shm/layout.h"
#include "ring/command_caller.h"
#include "ring/ring_memory.h"

namespace kvasir {

struct ClientModel {
  uint32_t slots_per_block = 0;
  uint32_t vocabulary_size = 0;
  std::vector<shm::LayerRowBytes> row_bytes;
  std::vector<uint32_t> kv_heads, query_heads, k_head_dim, v_head_dim;  // by layer
};

// Constant after the hand-over, but for `models`, which is guarded, and `ring_calls`.
class SessionState {
 public:
  UniqueFd socket;
  MappedRegion d, e;  // D read-only, E read-write
  UniqueFd doorbell;
  std::chrono::milliseconds deadline{0};
  std::unique_ptr<ControlChannel> channel;
  std::unique_ptr<ExtentMap> extents;
  std::optional<ring::EngineRingMemory> ring_memory;
  std::unique_ptr<ring::CommandCaller> ring;  // null: every call goes by gRPC
  std::atomic<uint64_t> ring_calls{0};
  Mutex mutex;
  std::map<uint32_t, ClientModel> models ABSL_GUARDED_BY(mutex);

  const shm::DaemonHeader& header() const {
    return *reinterpret_cast<const shm::DaemonHeader*>(d.data());
  }
  const shm::SeqBoard& Board(uint32_t slot) const {
    return reinterpret_cast<const shm::SeqBoard*>(d.data() + header().seq_off)[slot];
  }
  shm::SeqDesk& Desk(uint32_t slot) const {
    return reinterpret_cast<shm::SeqDesk*>(e.data() + header().e_desk_off)[slot];
  }
  // `count` entries of D from `offset` on, in place; null where they do not lie inside it, or
  // askew.
  template <typename Entry>
  const Entry* InD(uint64_t offset, uint64_t count) const {
    const bool fits = offset % alignof(Entry) == 0 && offset <= d.bytes() &&
                      count <= (d.bytes() - offset) / sizeof(Entry);
    return fits ? reinterpret_cast<const Entry*>(d.data() + offset) : nullptr;
  }
  Instant DeadlineFromNow() const { return std::chrono::steady_clock::now() + deadline; }

  // A command of the ring and its answer. REQUIRES: `ring`. Errors: the daemon's, those of
  // CommandCaller::Call().
  absl::Status Command(const shm::SubmissionEntry& entry,
                       std::span<const std::span<const std::byte>> payload,
                       std::span<std::byte> answer, shm::CompletionEntry* reply) {
    ring_calls.fetch_add(1, std::memory_order_relaxed);
    return ring->Call(entry, payload, answer, DeadlineFromNow(), reply);
  }
  // One without payload whose answer is all in its results.
  absl::StatusOr<shm::CompletionEntry> Command(const shm::SubmissionEntry& entry) {
    shm::CompletionEntry reply{};
    const absl::Status status = Command(entry, {}, {}, &reply);
    if (!status.ok()) return status;
    return reply;
  }

  // The commit check: blocks change hands only after the daemon has ended the session.
  absl::Status CheckOpen() const {
    std::atomic_thread_fence(std::memory_order_acquire);
    if (header().session_state.load(std::memory_order_acquire) !=
        static_cast<uint32_t>(shm::SessionState::kOpen)) {
      const uint32_t reason = header().end_reason.load(std::memory_order_relaxed);
      if (reason == static_cast<uint32_t>(shm::EndReason::kMemoryTakenBack)) {
        return Unavailable(
            "the daemon ended the session: other tenants want the memory that its tenant had "
            "borrowed: session={}",
            header().session_id);
      }
      return Unavailable("the daemon ended the session: session={}", header().session_id);
    }
    return absl::OkStatus();
  }
};

}  // namespace kvasir

#endif  // KVASIR_CLIENT_SESSION_STATE_H_
