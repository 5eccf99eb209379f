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
constexpr std::chrono::microseconds kTurnTime{200};  // then another tenant has its turn
constexpr uint64_t kWake = 0;                        // session ids begin at 1

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
  server->watcher_.emplace(server->wake_.get());
  shared.progress.Add(*server->watcher_);
  server->hasher_ = std::make_unique<PromptHasher>(
      shared, *server->options_.shares,
      [wake = server->wake_.get()] { (void)::eventfd_write(wake, 1); });
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
  hasher_.reset();  // nobody gives it anything any more
  if (watcher_) shared_.progress.Remove(*watcher_);
}

absl::Status RingServer::Add(uint32_t session_id, size_t place, const core::SessionToken& token,
                             int doorbell, RingEnds& ends) {
  MutexLock lock(mutex_);
  buffer_.resize(std::max<size_t>(buffer_.size(), ends.memory.geometry.PayloadBytesMax()));
  std::unique_ptr<Client>& slot = clients_[session_id];
  slot = std::make_unique<Client>();
  Client& client = *slot;
  client.id = session_id;
  client.place = place;
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
  if (found->second->has_turn) std::erase(turns_[found->second->place], session_id);
  clients_.erase(found);
  waiting_.erase(session_id);
}

int RingServer::TimeoutMs() {
  if (tenants_.empty() && waiting_.empty()) return -1;
  const Instant now = SystemClock().Now();
  std::chrono::milliseconds left = std::chrono::milliseconds::max();
  for (const size_t place : tenants_) {
    const Instant ready = options_.shares->ReadyAt(place, now);
    if (ready <= now) return 0;
    left = std::min(left, std::chrono::ceil<std::chrono::milliseconds>(ready - now));
  }
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
    mutex_.LetOthers();  // sessions that come and go
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
      const auto found = clients_.find(static_cast<uint32_t>(id));
      if (found == clients_.end()) continue;
      found->second->rings = true;
      GiveTurn(*found->second);
    }
    RunHashed();
    if (progress) LookAtWaiting(/*always=*/count == 0);
    ServeTurns();
    Watch();
  }
}

// From here on somebody's progress is ours, too; what came between is seen behind the flag.
void RingServer::Watch() {
  watcher_->watches = !waiting_.empty();
  LookAtWaiting(/*always=*/false);
}

void RingServer::GiveTurn(Client& client) {
  if (std::exchange(client.has_turn, true)) return;
  std::deque<uint32_t>& turns = turns_[client.place];
  if (turns.empty()) tenants_.push_back(client.place);
  turns.push_back(client.id);
}

void RingServer::ServeTurns() {
  Instant now = SystemClock().Now();
  for (size_t i = tenants_.size(); i > 0; --i) {
    const size_t place = tenants_.front();
    tenants_.pop_front();
    std::deque<uint32_t>& turns = turns_[place];
    if (turns.empty()) continue;  // those that had a turn have gone
    if (options_.shares->ReadyAt(place, now) > now) {
      tenants_.push_back(place);
      continue;
    }
    Client& client = *clients_.at(turns.front());
    turns.pop_front();
    if (!turns.empty()) tenants_.push_back(place);
    client.has_turn = false;
    if (std::exchange(client.looks, false)) RunWaiting(client);
    if (std::exchange(client.rings, false)) Serve(client);
    // By the clock on the wall, which is cheap; what the thread was not on a processor for is left
    // out by the bound.
    const Instant before = std::exchange(now, SystemClock().Now());
    options_.shares->Charge(place, now, std::min<Instant::duration>(now - before, 2 * kTurnTime));
  }
}

std::optional<bool> RingServer::RunInShare(Client& client, RingCommand& command) {
  if (!command.MayRunInShare()) return std::nullopt;
  shared_.mutex.LetOthersOfShard(client.place % shared_.mutex.shards());
  TenantLock share(shared_, client.place);
  core::Session* const session = share.verbs().FindSession(client.token);
  if (session == nullptr) return std::nullopt;
  absl::Status status;
  const std::optional<bool> done = command.RunInShare(
      share.verbs(), *session, client.ends->completions, SystemClock().Now(), &status);
  if (!status.ok()) share.verbs().CountRejected(*session);
  return done;
}

bool RingServer::Run(Client& client, RingCommand& command) {
  if (const std::optional<bool> done = RunInShare(client, command)) return *done;
  shared_.mutex.LetOthers();  // a thread serves many rings, and is always on a processor
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

void RingServer::LookAtWaiting(bool always) {
  const uint64_t seen = shared_.progress.seen();
  for (const uint32_t id : waiting_) {
    Client& client = *clients_.at(id);
    if (!always && client.seen == seen) continue;
    client.looks = true;
    GiveTurn(client);
  }
}

void RingServer::RunOrKeep(Client& client, RingCommand command) {
  const uint64_t seen = shared_.progress.seen();
  if (Run(client, command)) return;
  command.KeepPayload();
  client.seen = client.waiting.empty() ? seen : std::min(seen, client.seen);
  client.waiting.push_back(std::move(command));
  waiting_.insert(client.id);
}

void RingServer::RunHashed() {
  for (PromptHasher::Task& task : hasher_->TakeDone()) {
    const auto found = clients_.find(task.session_id);
    if (found == clients_.end() || found->second->ended) continue;
    if (task.status.ok()) {
      RunOrKeep(*found->second, std::move(task.command));
    } else {
      task.command.Fail(found->second->ends->completions, task.status);
    }
  }
}

void RingServer::RunWaiting(Client& client) {
  client.seen = shared_.progress.seen();
  std::erase_if(client.waiting, [&](RingCommand& command) {
    mutex_.AssertHeld();
    return Run(client, command);
  });
  if (client.waiting.empty()) waiting_.erase(client.id);
}

void RingServer::Serve(Client& client) {
  if (client.ended) return;
  RingEnds& ends = *client.ends;
  absl::Status violation = ends.submissions.BeginTurn();
  ring::Command command;
  const Instant over = SystemClock().Now() + kTurnTime;
  for (bool first = true; violation.ok() && (first || SystemClock().Now() < over); first = false) {
    const absl::StatusOr<ring::Taken> taken = ends.submissions.Take(&command, buffer_);
    violation = taken.status();
    if (!taken.ok() || *taken != ring::Taken::kCommand) break;
    const auto wait = std::min<std::chrono::milliseconds>(
        std::chrono::milliseconds(command.entry.deadline_ms), options_.wait_max);
    RingCommand running(command, SystemClock().Now() + wait);
    if (running.IsLong()) {
      running.KeepPayload();
      hasher_->Add({client.id, client.place, client.token, std::move(running), {}});
    } else {
      RunOrKeep(client, std::move(running));
    }
  }
  if (!violation.ok()) {
    client.ended = true;
    client.waiting.clear();
    waiting_.erase(client.id);
    MutexLock lock(shared_.mutex);
    shared_.core.EndForViolation(client.id, violation);
    shared_.progress.NotifyAll();
    if (shared_.wake_data_server) shared_.wake_data_server();
    return;
  }
  if (ends.submissions.EndTurn() != ring::TurnEnd::kMore) return;
  client.rings = true;
  GiveTurn(client);
}

}  // namespace kvasir
