// Session: one connected engine process; its models, its sequences, its recent extents.
#ifndef KVASIR_DAEMON_CORE_SESSION_H_
#define KVASIR_DAEMON_CORE_SESSION_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "daemon/core/sequence.h"

namespace kvasir::core {

struct SessionToken {
  std::array<uint8_t, 16> bytes{};
  friend auto operator<=>(const SessionToken&, const SessionToken&) = default;
};

// Who is at the other end of a connection, by the kernel's word when it was accepted.
struct Peer {
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t pid = 0;
  std::string cgroup = {};             // path of cgroup v2; "": none that is known
  bool overrides_permissions = false;  // modes of the daemon's files do not keep it out
  bool contained = false;              // in a process or user namespace below the daemon's
};

struct RegisteredModel {
  Model model;
  // In whose memory its rows lie, by pool; nothing: host memory.
  std::optional<size_t> device = {};
  // Group for the layout probe; freed when the first sequence is opened, since until then the
  // client reads the daemon's pattern in it.
  Group probe;
  bool probed = false;
  shm::GroupGeometry probe_geometry;
  std::map<TokenId, std::string> texts;
  uint64_t texts_bytes = 0;
};

// Not thread-safe. Lives from the hand-over of its segments to the end of its last job.
struct Session {
  Session(uint32_t session_id, SessionToken session_token, const Peer& session_peer, Tenant& owner,
          SessionMemory session_memory, const SessionLimits& session_limits, ExtentSender& sender,
          uint64_t first_extent_bytes, uint64_t extent_bytes)
      : id(session_id),
        token(session_token),
        peer(session_peer),
        tenant(owner),
        memory(session_memory),
        limits(session_limits),
        sizes(SegmentSizesFor(session_limits)),
        arena(sizes.arena_off, session_limits.arena_bytes),
        extents(session_limits.extents_max, sender, session_peer.overrides_permissions),
        recent(ExtentUse::kRecent, first_extent_bytes, extent_bytes, owner.account),
        sequences(session_limits.sequences_max) {}

  // Where the model's rows come from that the engine writes.
  GroupSource& RecentOf(const RegisteredModel& registered) {
    if (!registered.device) return recent;
    return device_recent
        .try_emplace(*registered.device, ExtentUse::kRecent,
                     tenant.devices[*registered.device]->account)
        .first->second;
  }
  GroupSource& KeptOf(const RegisteredModel& registered) {
    if (!registered.device) return tenant.kept;
    return tenant.devices[*registered.device]->kept;
  }

  GroupSource& SavedOf(const RegisteredModel& registered) {
    if (!registered.device) return tenant.outside;
    return tenant.devices[*registered.device]->outside;
  }

  shm::SeqBoard* Board(uint32_t slot) const {
    return reinterpret_cast<shm::SeqBoard*>(memory.d + sizes.seq_off) + slot;
  }
  const shm::SeqDesk* Desk(uint32_t slot) const {
    return reinterpret_cast<const shm::SeqDesk*>(memory.e + sizes.e_desk_off) + slot;
  }

  const uint32_t id;
  const SessionToken token;
  const Peer peer;
  Tenant& tenant;
  const SessionMemory memory;
  const SessionLimits limits;
  const SegmentSizes sizes;
  TableArena arena;
  ExtentTable extents;
  AllocatorSet recent;                               // destroyed after models and sequences
  std::map<size_t, DeviceAllocators> device_recent;  // by pool; likewise
  std::map<uint32_t, std::unique_ptr<RegisteredModel>> models;
  std::vector<std::unique_ptr<Sequence>> sequences;  // by slot
  uint32_t next_model_id = 1;
  uint32_t next_uid = 1;
  bool ended = false;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_SESSION_H_
