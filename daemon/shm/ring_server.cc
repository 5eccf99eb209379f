#include "daemon/shm/ring_server.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "ring/doorbell.h"

namespace kvasir {
namespace {

constexpr int kEventsMax = 64;
constexpr uint64_t kWake = 0;  // session ids begin at 1

}  // namespace

absl::StatusOr<std::unique_ptr<RingServer>> RingServer::Start(SharedCore& shared, Options options) {
  std::unique_ptr<RingServer> server(new RingServer(shared, std::move(options)));
  server->epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  if (!server->epoll_) return ErrnoStatus(errno, "epoll_create1");
  server->wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!server->wake_) return ErrnoStatus(errno, "eventfd");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kWake;
  if (::epoll_ctl(server->epoll_.get(), EPOLL_CTL_ADD, server->wake_.get(), &event) != 0) {
    return ErrnoStatus(errno, "epoll_ctl");
  }
  {
    MutexLock lock(shared.mutex);
    shared.progress.set_event(server->wake_.get());
  }
  server->thread_ = std::thread([raw = server.get()] { raw->Loop(); });
  return server;
}

RingServer::~RingServer() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
  }
  (void)::eventfd_write(wake_.get(), 1);
  if (thread_.joinable()) thread_.join();
  MutexLock lock(shared_.mutex);
  shared_.progress.set_watched(false);
  shared_.progress.set_event(-1);
}

absl::Status RingServer::Add(uint32_t session_id, const core::SessionToken& token, int doorbell,
                             RingEnds& ends) {
  MutexLock lock(mutex_);
  buffer_.resize(std::max<size_t>(buffer_.size(), ends.memory.geometry.PayloadBytesMax()));
  std::unique_ptr<Client>& slot = clients_[session_id];
  slot = std::make_unique<Client>();
  Client& client = *slot;
  client.token = token;
  client.doorbell = doorbell;
  client.ends = &ends;
  return ring::WatchDoorbell(epoll_.get(), doorbell, session_id);
}

void RingServer::Remove(uint32_t session_id) {
  MutexLock lock(mutex_);
  const auto found = clients_.find(session_id);
  if (found == clients_.end()) return;
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, found->second->doorbell, nullptr);
  clients_.erase(found);
  ready_.erase(session_id);
  waiting_.erase(session_id);
}

int RingServer::TimeoutMs() {
  if (!ready_.empty()) return 0;
  if (waiting_.empty()) return -1;
  const Instant now = SystemClock().Now();
  std::chrono::milliseconds left = std::chrono::milliseconds::max();
  for (const uint32_t id : waiting_) {
    for (const RingCommand& command : clients_.at(id)->waiting) {
      left = std::min(left, std::chrono::ceil<std::chrono::milliseconds>(command.deadline() - now));
    }
  }
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1'000'000));
}

void RingServer::Loop() {
  std::array<epoll_event, kEventsMax> events;
  for (;;) {
    int timeout = 0;
    {
      MutexLock lock(mutex_);
      timeout = TimeoutMs();
    }
    const int count = ::epoll_wait(epoll_.get(), events.data(), kEventsMax, timeout);
    if (count < 0 && errno != EINTR) {
      spdlog::critical("epoll_wait failed: errno={}", errno);
      return;
    }
    MutexLock lock(mutex_);
    if (stop_) return;
    bool progress = count == 0;
    for (int i = 0; i < count; ++i) {
      const uint64_t id = events[static_cast<size_t>(i)].data.u64;
      if (id == kWake) {
        uint64_t ignored = 0;
        progress |= ::read(wake_.get(), &ignored, sizeof(ignored)) >= 0;
        continue;
      }
      if (clients_.contains(static_cast<uint32_t>(id))) ready_.insert(static_cast<uint32_t>(id));
    }
    if (progress) LookAtWaiting();
    for (const uint32_t id : std::exchange(ready_, {})) Serve(id, *clients_.at(id));
    Watch();
  }
}

// From here on somebody's progress is ours, too. What came before was seen: it is looked at once
// more behind the flag.
void RingServer::Watch() {
  shared_.progress.set_watched(!waiting_.empty());
  LookAtWaiting();
}

bool RingServer::Run(Client& client, RingCommand& command) {
  absl::Status status = command.Prepare(shared_, client.token);
  if (!status.ok()) {
    command.Fail(client.ends->completions, status);
    return true;
  }
  bool done = true, ended = false;
  {
    MutexLock lock(shared_.mutex);
    const Instant now = SystemClock().Now();
    shared_.core.set_now(now);
    const absl::StatusOr<core::Session*> session = shared_.core.FindSession(client.token);
    if (!session.ok()) {
      status = Unavailable("the daemon ended the session");
      command.Fail(client.ends->completions, status);
      client.ended = true;
      return true;
    }
    core::Tenant& tenant = (*session)->tenant;
    const uint32_t id = (*session)->id;
    done = command.Run(shared_, **session, client.ends->completions, now, &status);
    if (shared_.core.HasWork()) shared_.work.NotifyOne();
    if (shared_.core.TakeTierHint()) shared_.tier_work.NotifyAll();
    if (!status.ok()) {
      shared_.core.CountRejected(tenant);
      shared_.progress.NotifyAll();
    }
    ended = shared_.core.HasEnded(id);
  }
  if (ended && shared_.wake_data_server) shared_.wake_data_server();
  if (options_.extents_taken) options_.extents_taken();
  return done;
}

void RingServer::LookAtWaiting() {
  for (auto id = waiting_.begin(); id != waiting_.end();) {
    Client& client = *clients_.at(*id);
    std::erase_if(client.waiting, [&](RingCommand& command) {
      mutex_.AssertHeld();
      return Run(client, command);
    });
    id = client.waiting.empty() ? waiting_.erase(id) : std::next(id);
  }
}

void RingServer::Serve(uint32_t session_id, Client& client) {
  if (client.ended) return;
  RingEnds& ends = *client.ends;
  absl::Status violation = ends.submissions.BeginTurn();
  ring::Command command;
  while (violation.ok()) {
    const absl::StatusOr<ring::Taken> taken = ends.submissions.Take(&command, buffer_);
    violation = taken.status();
    if (!taken.ok() || *taken != ring::Taken::kCommand) break;
    const auto wait = std::min<std::chrono::milliseconds>(
        std::chrono::milliseconds(command.entry.deadline_ms), options_.wait_max);
    RingCommand running(command, SystemClock().Now() + wait);
    if (Run(client, running)) continue;
    running.KeepPayload();
    client.waiting.push_back(std::move(running));
    waiting_.insert(session_id);
  }
  if (!violation.ok()) {
    client.ended = true;
    client.waiting.clear();
    waiting_.erase(session_id);
    MutexLock lock(shared_.mutex);
    shared_.core.EndForViolation(session_id, violation);
    shared_.progress.NotifyAll();
    if (shared_.wake_data_server) shared_.wake_data_server();
    return;
  }
  if (ends.submissions.EndTurn() == ring::TurnEnd::kMore) ready_.insert(session_id);
}

}  // namespace kvasir
