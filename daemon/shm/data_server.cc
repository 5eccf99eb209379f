#include "daemon/shm/data_server.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/process_identity.h"
#include "base/status_macros.h"
#include "daemon/shm/data_session.h"
#include "proto/shm/data_messages.h"

namespace kvasir {
namespace {

// How soon the kernel is asked again whether extents are free; ever later while they are not.
constexpr int kSettleMs = 20;
constexpr int kSettleMsMax = 1000;
constexpr int kEventsMax = 32;
constexpr int kAcceptsAtOnce = 64;
constexpr uint32_t kRefusedMax = 1024;  // of one user
constexpr std::chrono::milliseconds kRefusedTime{1000};
// What a connection costs threads of gRPC's, about.
constexpr std::chrono::microseconds kConnectionTime{200};
constexpr int kLeaseWaitMsMax = 60'000;  // a longer wait is one of several

}  // namespace

absl::StatusOr<std::unique_ptr<DataServer>> DataServer::Start(UniqueFd data_listener,
                                                              UniqueFd control_listener, int wake,
                                                              SharedCore& shared,
                                                              DataServerOptions options,
                                                              ControlHandler on_control) {
  std::unique_ptr<DataServer> server(
      new DataServer(shared, std::move(options), std::move(on_control)));
  server->data_listener_ = std::move(data_listener);
  server->control_listener_ = std::move(control_listener);
  server->epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  if (!server->epoll_) return ErrnoStatus(errno, "epoll_create1");
  server->wake_ = wake;
  KVASIR_RETURN_IF_ERROR(server->Watch(wake, EPOLLIN));
  KVASIR_RETURN_IF_ERROR(server->Watch(server->data_listener_.get(), EPOLLIN));
  KVASIR_RETURN_IF_ERROR(server->Watch(server->control_listener_.get(), EPOLLIN));
  server->thread_ = std::thread([raw = server.get()] { raw->Loop(); });
  return server;
}

DataServer::~DataServer() {
  if (!thread_.joinable()) return;
  {
    MutexLock lock(shared_.mutex);
    stop_ = true;
  }
  const uint64_t one = 1;
  (void)::eventfd_write(wake_, one);
  thread_.join();
  for (auto& [fd, session] : sessions_) {
    if (session->session_id() == 0) continue;
    options_.rings->Remove(session->session_id(), *session->place());
  }
  MutexLock lock(shared_.mutex);
  for (auto& [fd, session] : sessions_) {
    if (session->session_id() != 0) shared_.core.EndSession(session->session_id());
  }
}

absl::Status DataServer::Watch(int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return ErrnoStatus(errno, "epoll_ctl");
  }
  return absl::OkStatus();
}

int DataServer::TimeoutMs() const {
  int timeout = TimeoutOfSessionsMs();
  const int arrivals = TimeoutOfArrivalsMs();
  if (arrivals >= 0) timeout = timeout < 0 ? arrivals : std::min(timeout, arrivals);
  if (refused_.empty()) return timeout;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(refused_.front().close_at - SystemClock().Now());
  const int refused = static_cast<int>(std::max<int64_t>(left.count(), 0));
  return timeout < 0 ? refused : std::min(timeout, refused);
}

int DataServer::TimeoutOfArrivalsMs() const {
  if (arrivals_.empty()) return -1;
  const Instant now = SystemClock().Now();
  Instant first = Instant::max();
  for (const auto& [uid, arrivals] : arrivals_) first = std::min(first, ReadyAt(uid, now));
  return static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(first - now).count());
}

Instant DataServer::ReadyAt(uint32_t uid, Instant now) const {
  const auto slot = slots_.find(uid);
  return slot == slots_.end() ? now : options_.shares->ReadyAt(slot->second, now);
}

int DataServer::TimeoutOfSessionsMs() const {
  const bool greeting = std::any_of(sessions_.begin(), sessions_.end(), [](const auto& each) {
    return each.second->session_id() == 0;
  });
  if (lending_ || !leaving_.empty()) return kSettleMs;
  if (settling_) return settle_ms_;
  const int timeout = greeting ? static_cast<int>(options_.hello_timeout_ms) : -1;
  if (!lease_end_) return timeout;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(*lease_end_ - SystemClock().Now()).count();
  const int lease = static_cast<int>(std::clamp<int64_t>(left, 0, kLeaseWaitMsMax));
  return timeout < 0 ? lease : std::min(timeout, lease);
}

void DataServer::Loop() {
  std::array<epoll_event, kEventsMax> events;
  for (;;) {
    const int ready = ::epoll_wait(epoll_.get(), events.data(), kEventsMax, TimeoutMs());
    if (ready < 0 && errno != EINTR) {
      spdlog::critical("epoll_wait failed: errno={}", errno);
      return;
    }
    for (int i = 0; i < ready; ++i) {
      const int fd = events[static_cast<size_t>(i)].data.fd;
      if (fd == data_listener_.get()) {
        Accept(data_listener_);
      } else if (fd == control_listener_.get()) {
        Accept(control_listener_);
      } else if (fd == wake_) {
        uint64_t count = 0;
        if (::read(fd, &count, sizeof(count)) < 0) continue;
      } else {
        OnReadable(fd);
      }
    }
    ReceiveArrivals();
    CloseRefused();
    TakeLeave();
    MutexLock lock(shared_.mutex);
    if (stop_) return;
  }
}

std::optional<core::Peer> DataServer::Identify(const UniqueFd& socket, const char* which) {
  absl::StatusOr<PeerIdentity> identity = IdentifyPeer(socket);
  if (identity.ok()) {
    return core::Peer{identity->uid,
                      identity->gid,
                      identity->pid,
                      std::move(identity->cgroup),
                      identity->overrides_permissions,
                      identity->contained};
  }
  options_.unidentified_peers->fetch_add(1, std::memory_order_relaxed);
  spdlog::warn("connection refused: socket={} {}", which, MessageOf(identity.status()));
  return std::nullopt;
}

void DataServer::Accept(const UniqueFd& listener) {
  for (int i = 0; i < kAcceptsAtOnce; ++i) {
    UniqueFd socket(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) {
      if (errno != EAGAIN) spdlog::warn("accept failed: errno={}", errno);
      return;
    }
    const absl::StatusOr<PeerCredentials> peer = GetPeerCredentials(socket);
    if (!peer.ok()) continue;
    std::deque<Arrival>& arrivals = arrivals_[peer->uid];
    if (arrivals.size() >= options_.pending_max) {
      CloseLater(std::move(socket), peer->uid);
      continue;
    }
    arrivals.push_back({std::move(socket), &listener == &control_listener_});
  }
}

void DataServer::ReceiveArrivals() {
  for (auto at = arrivals_.begin(); at != arrivals_.end();) {
    const Instant now = SystemClock().Now();
    if (ReadyAt(at->first, now) > now) {
      ++at;
      continue;
    }
    Arrival arrival = std::move(at->second.front());
    at->second.pop_front();
    const Instant::duration before = ThreadTime();
    const std::optional<core::Peer> peer =
        Identify(arrival.socket, arrival.control ? "control" : "data");
    if (peer && arrival.control) {
      on_control_(arrival.socket, *peer);
      if (arrival.socket) CloseLater(std::move(arrival.socket), peer->uid);
    } else if (peer) {
      AcceptData(std::move(arrival.socket), *peer);
    }
    if (peer) {
      const size_t slot = options_.slot_of(*peer);
      slots_[at->first] = slot;
      options_.shares->Charge(
          slot, now,
          ThreadTime() - before + (arrival.control ? kConnectionTime : Instant::duration()));
    }
    if (!at->second.empty()) {
      ++at;
      continue;
    }
    slots_.erase(at->first);
    at = arrivals_.erase(at);
  }
}

void DataServer::CloseLater(UniqueFd socket, uint32_t uid) {
  uint32_t& refused = refused_of_[uid];
  if (refused >= kRefusedMax) return;
  ++refused;
  refused_.push_back({SystemClock().Now() + kRefusedTime, uid, std::move(socket)});
}

void DataServer::CloseRefused() {
  const Instant now = SystemClock().Now();
  while (!refused_.empty() && refused_.front().close_at <= now) {
    const auto of = refused_of_.find(refused_.front().uid);
    if (--of->second == 0) refused_of_.erase(of);
    refused_.pop_front();
  }
}

void DataServer::AcceptData(UniqueFd socket, const core::Peer& peer) {
  const std::optional<size_t> place = shared_.PlaceOf(peer);
  const auto greeting = std::count_if(sessions_.begin(), sessions_.end(), [&](const auto& each) {
    return each.second->session_id() == 0 && each.second->place() == place;
  });
  if (greeting >= options_.pending_max) return CloseLater(std::move(socket), peer.uid);
  const int fd = socket.get();
  const Instant deadline =
      SystemClock().Now() + std::chrono::milliseconds(options_.hello_timeout_ms);
  if (!Watch(fd, EPOLLIN | EPOLLRDHUP).ok()) return;
  sessions_[fd] = std::make_unique<DataSession>(std::move(socket), peer, place, deadline);
}

void DataServer::OnReadable(int fd) {
  const auto found = sessions_.find(fd);
  if (found == sessions_.end()) return;
  DataSession& session = *found->second;
  const size_t slot = options_.slot_of(session.peer());
  const Instant::duration before = ThreadTime();
  if (session.session_id() == 0) {
    Greet(fd, session);
  } else {
    Hear(fd, session);
  }
  options_.shares->Charge(slot, SystemClock().Now(), ThreadTime() - before);
}

void DataServer::Hear(int fd, DataSession& session) {
  // Engines say nothing after hello: this is a hang-up, or a violation.
  std::array<std::byte, 64> buffer;
  const absl::StatusOr<ReceivedMessage> message = ReceiveMessage(session.socket(), buffer);
  if (message.status().code() == absl::StatusCode::kDeadlineExceeded) return;
  if (message.ok() && message->bytes > 0) {
    spdlog::warn("session ended: it sent something on the data socket: session={} pid={}",
                 session.session_id(), session.peer().pid);
  }
  Drop(fd);
}

void DataServer::Greet(int fd, DataSession& session) {
  std::array<std::byte, sizeof(shm::Hello)> buffer{};
  const absl::StatusOr<ReceivedMessage> message = ReceiveMessage(session.socket(), buffer);
  if (message.status().code() == absl::StatusCode::kDeadlineExceeded) return;
  if (!message.ok() || message->bytes == 0) {
    Drop(fd);
    return;
  }
  absl::Status status = shm::CheckHello(
      {std::span(buffer).first(message->bytes), message->truncated, message->fds.size()});
  if (status.ok()) status = OpenSession(session);
  if (!status.ok()) {
    Refuse(session, status);
    Drop(fd);
  }
}

absl::Status DataServer::OpenSession(DataSession& session) {
  core::SessionToken token;
  KVASIR_RETURN_IF_ERROR(FillRandom(token.bytes.data(), token.bytes.size()));
  KVASIR_RETURN_IF_ERROR(session.MakeSegments(options_.session_limits, options_.boot_epoch));
  core::Session* opened = nullptr;
  {
    MutexLock lock(shared_.mutex);
    KVASIR_ASSIGN_OR_RETURN(opened,
                            shared_.core.OpenSession(session.peer(), token, options_.boot_epoch,
                                                     session.memory(), session));
    session.set_session_id(opened->id);
  }
  // Not under the lock: who reads the log may be slow.
  spdlog::info("session opened: session={} tenant={} uid={} gid={} pid={} cgroup={}",
               session.session_id(), opened->tenant.config.name, session.peer().uid,
               session.peer().gid, session.peer().pid, session.peer().cgroup);
  // Before the engine has the segments: from there on it may submit.
  KVASIR_RETURN_IF_ERROR(options_.rings->Add(session.session_id(), *session.place(), token,
                                             session.doorbell().get(), session.ring()));
  return session.SendWelcome(token, options_.boot_epoch);
}

void DataServer::Refuse(DataSession& session, const absl::Status& why) {
  const core::Peer& peer = session.peer();
  options_.audit->NoteRefusal({"session", PeerCredentials{peer.pid, peer.uid, peer.gid}, "", {}},
                              why);
  shm::Refusal refusal{};
  refusal.kind = static_cast<uint32_t>(shm::MessageKind::kRefusal);
  refusal.code = static_cast<int32_t>(why.code());
  refusal.abi_min = refusal.abi_max = shm::kAbiVersion;
  const std::string text = MessageOf(why);
  std::memcpy(refusal.text, text.data(), std::min(text.size(), sizeof(refusal.text) - 1));
  (void)SendMessage(session.socket(), std::as_bytes(std::span(&refusal, 1)), {});
}

void DataServer::Drop(int fd) {
  const auto found = sessions_.find(fd);
  std::unique_ptr<DataSession> session = std::move(found->second);
  sessions_.erase(found);
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  const uint32_t id = session->session_id();
  if (id == 0) return;
  // Nobody reads the segments for commands any more.
  options_.rings->Remove(id, *session->place());
  spdlog::info("session closed: session={} pid={}", id, session->peer().pid);
  MutexLock lock(shared_.mutex);
  shared_.core.EndSession(id);
  session->CloseSocket();  // who sees the hang-up finds the session ended
  shared_.progress.NotifyAll();
  settling_ = true;
  settle_ms_ = kSettleMs;
  if (!shared_.core.IsGone(id)) leaving_[id] = std::move(session);
}

void DataServer::TakeLeave() {
  std::vector<int> drop;
  const Instant now = SystemClock().Now();
  {
    MutexLock lock(shared_.mutex);
    for (const auto& [fd, session] : sessions_) {
      const uint32_t id = session->session_id();
      if (id == 0 ? now >= session->hello_deadline() : shared_.core.HasEnded(id))
        drop.push_back(fd);
    }
    const auto gone = std::erase_if(leaving_, [this](const auto& each) {
      shared_.mutex.AssertHeld();
      return shared_.core.IsGone(each.first);
    });
    bool news = gone > 0;  // their extents came back only now
    shared_.core.set_now(SystemClock().Now());
    const std::optional<Instant> lease_end = shared_.core.EndExpiredLeases();
    news |= lease_end != lease_end_;  // so did those of a lease that is over
    settling_ |= news;
    lease_end_ = lease_end;
    lending_ = shared_.core.TakeBack();
    if (lending_) shared_.progress.NotifyAll();  // who waits for memory asks again
    if (settling_ || lending_) {
      settling_ = shared_.core.Settle();
      const bool anew = news || lending_ || !settling_;
      settle_ms_ = anew ? kSettleMs : std::clamp(2 * settle_ms_, kSettleMs, kSettleMsMax);
    }
  }
  for (const int fd : drop) Drop(fd);
  if (options_.extents_returned) options_.extents_returned();
}

}  // namespace kvasir
