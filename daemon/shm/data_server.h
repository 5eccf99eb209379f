// DataServer: the data socket. Hands segments and extents to engines, and sees them die.
//
// One thread, epoll. Makes no system call that a peer can block: every socket call is MSG_DONTWAIT.
#ifndef KVASIR_DAEMON_SHM_DATA_SERVER_H_
#define KVASIR_DAEMON_SHM_DATA_SERVER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <thread>

#include <absl/status/statusor.h>

#include "base/clock.h"
#include "base/posix.h"
#include "base/unix_socket.h"
#include "daemon/control/audit_log.h"
#include "daemon/shared_core.h"
#include "daemon/shm/data_session.h"
#include "daemon/shm/ring_servers.h"

namespace kvasir {

struct DataServerOptions {
  uint64_t boot_epoch = 0;
  uint32_t hello_timeout_ms = 2000;
  uint32_t pending_max = 64;  // connections that have not said hello, of one tenant
  core::SessionLimits session_limits;
  std::function<void()> extents_returned;  // the pool has free bytes again
  AuditLog* audit = nullptr;               // of refusals; must outlive it
  // What a tenant's connections cost counts as its time, and more of them wait for its share. Whose
  // share that is, by who connects. Both must outlive it.
  TimeShares* shares = nullptr;
  std::function<size_t(const core::Peer&)> slot_of;
  RingServers* rings = nullptr;  // serves the sessions' commands; must outlive it
  // Counts connections, on either socket, of processes that could not be identified; outlives it.
  std::atomic<uint64_t>* unidentified_peers = nullptr;
};

class DataServer {
 public:
  // Takes over two listening sockets: the data socket, and the control socket, whose connections it
  // accepts and gives to `on_control` with who connected. `shared` must outlive it.
  // It takes the socket, or leaves it: then it is refused.
  using ControlHandler = std::function<void(UniqueFd&, const core::Peer&)>;
  // `wake` is an eventfd: whoever writes to it has the thread look for sessions that have ended.
  static absl::StatusOr<std::unique_ptr<DataServer>> Start(UniqueFd data_listener,
                                                           UniqueFd control_listener, int wake,
                                                           SharedCore& shared,
                                                           DataServerOptions options,
                                                           ControlHandler on_control);
  // Stops the thread and ends every session.
  ~DataServer();
  DataServer(const DataServer&) = delete;
  DataServer& operator=(const DataServer&) = delete;

 private:
  DataServer(SharedCore& shared, DataServerOptions options, ControlHandler on_control)
      : shared_(shared), options_(std::move(options)), on_control_(std::move(on_control)) {}

  absl::Status Watch(int fd, uint32_t events);
  void Loop();
  // Takes what knocks, without looking who it is: that costs more, and has its turn.
  void Accept(const UniqueFd& listener);
  // One connection of each user that has not used up its share.
  void ReceiveArrivals();
  // From when on the next one of this user may be received.
  Instant ReadyAt(uint32_t uid, Instant now) const;
  void AcceptData(UniqueFd socket, const core::Peer& peer);
  void CloseLater(UniqueFd socket, uint32_t uid);
  void CloseRefused();
  void OnReadable(int fd);
  void Greet(int fd, DataSession& session);
  void Hear(int fd, DataSession& session);
  absl::Status OpenSession(DataSession& session);
  // Nothing: it could not be identified, which has been logged and counted.
  std::optional<core::Peer> Identify(const UniqueFd& socket, const char* which);
  void Refuse(DataSession& session, const absl::Status& why);
  void Drop(int fd);
  void TakeLeave();
  int TimeoutMs() const;
  int TimeoutOfSessionsMs() const;
  int TimeoutOfArrivalsMs() const;  // -1: there are none

  SharedCore& shared_;
  const DataServerOptions options_;
  const ControlHandler on_control_;
  int wake_ = -1;  // not owned
  UniqueFd epoll_, data_listener_, control_listener_;
  struct Arrival {
    UniqueFd socket;
    bool control = false;
  };
  std::map<uint32_t, std::deque<Arrival>> arrivals_;  // by uid, none empty
  std::map<uint32_t, size_t> slots_;  // of who came last with this uid, while it has arrivals
  // Refused, and closed some time later: who is closed at once knocks again at once, and fills the
  // listener's queue for everybody.
  struct Refused {
    Instant close_at;
    uint32_t uid = 0;
    UniqueFd socket;
  };
  std::deque<Refused> refused_;                               // the oldest first
  std::map<uint32_t, uint32_t> refused_of_;                   // how many, by uid
  std::map<int, std::unique_ptr<DataSession>> sessions_;      // by socket
  std::map<uint32_t, std::unique_ptr<DataSession>> leaving_;  // by session id: a copy is under way
  bool lending_ = false;              // somebody wants memory that others have borrowed
  int settle_ms_ = 0;                 // while settling_; 0: it has not begun
  bool settling_ = false;             // extents wait for their last holder
  std::optional<Instant> lease_end_;  // when the next lease ends
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_SHM_DATA_SERVER_H_
