// DataSession: one connection on the data socket, with the segments of its session.
#ifndef KVASIR_DAEMON_SHM_DATA_SESSION_H_
#define KVASIR_DAEMON_SHM_DATA_SESSION_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include <absl/status/status.h>

#include "base/clock.h"
#include "base/unix_socket.h"
#include "daemon/core/session.h"
#include "daemon/shm/ring_ends.h"
#include "daemon/shm/segment.h"

namespace kvasir {

// Not thread-safe but for SendExtent, which is called under the core's lock and only reads
// `socket_`; the data server's thread closes the socket after it has ended the session under the
// same lock.
class DataSession final : public core::ExtentSender {
 public:
  // `place` is that of the peer's tenant; nothing: it has none, and will be refused.
  DataSession(UniqueFd socket, const core::Peer& peer, std::optional<size_t> place,
              Instant hello_deadline)
      : socket_(std::move(socket)), peer_(peer), place_(place), hello_deadline_(hello_deadline) {}

  absl::Status MakeSegments(const core::SessionLimits& limits, uint64_t boot_epoch);
  core::SessionMemory memory() const { return {d_.map.data(), e_.map.data()}; }
  absl::Status SendWelcome(const core::SessionToken& token, uint64_t boot_epoch);
  // Of a pair a DeviceExtentNotice, with what `notice` says.
  absl::Status SendExtent(const shm::ExtentNotice& notice, const Extent& extent) override;

  // The daemon's ends of the command ring; after MakeSegments().
  RingEnds& ring() { return *ring_; }
  const UniqueFd& doorbell() const { return doorbell_; }

  const UniqueFd& socket() const { return socket_; }
  // Tells the engine that the session is over; the descriptor itself stays until destruction.
  void CloseSocket();
  const core::Peer& peer() const { return peer_; }
  std::optional<size_t> place() const { return place_; }
  Instant hello_deadline() const { return hello_deadline_; }
  uint32_t session_id() const { return session_id_; }  // 0: no hello yet
  void set_session_id(uint32_t id) { session_id_ = id; }

 private:
  UniqueFd socket_;
  const core::Peer peer_;
  const std::optional<size_t> place_;
  const Instant hello_deadline_;
  uint32_t session_id_ = 0;
  Segment d_, e_;
  UniqueFd doorbell_;
  std::unique_ptr<RingEnds> ring_;  // of the segments
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_SHM_DATA_SESSION_H_
