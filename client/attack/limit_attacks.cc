// More of everything than one tenant may have. Sessions are few enough for other tenants to find
// room; what is opened is closed again at once.
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/unix_socket.h"
#include "client/attack/attacks.h"
#include "client/attack/by_hand.h"
#include "client/attack/unread_calls.h"

#include <fmt/format.h>
#include <poll.h>

namespace kvasir::attack {
namespace {

using std::chrono::milliseconds;

constexpr int kSilentSockets = 200, kSessions = 48, kSequences = 5000, kUnreadConnections = 8;
// The bound is 256 calls; those that are just being cancelled have a thread as well. Without it
// there are as many threads as calls, some 2,000.
constexpr int kUnreadCalls = 400, kThreadsMax = 512;
constexpr milliseconds kPatience{10'000};
constexpr size_t kHugeBytes = 8 << 20;  // no daemon takes a message of it

bool IsClosed(const UniqueFd& socket, milliseconds wait) {
  pollfd entry{socket.get(), POLLRDHUP, 0};
  return ::poll(&entry, 1, static_cast<int>(wait.count())) == 1;
}

void AttackBySilence(const Target& target, Attempts& attempts) {
  const char* const what = "keep data sockets open without a hello";
  std::vector<UniqueFd> sockets;
  for (int i = 0; i < kSilentSockets; ++i) {
    absl::StatusOr<UniqueFd> socket = ConnectUnix(target.data_socket, SocketType::kSeqPacket);
    if (socket.ok()) sockets.push_back(*std::move(socket));
  }
  const Instant start = SystemClock().Now();
  const Instant deadline = start + kPatience;
  size_t open = 0;
  for (const UniqueFd& socket : sockets) {
    const auto left = std::chrono::ceil<milliseconds>(deadline - SystemClock().Now());
    open += IsClosed(socket, std::max(left, milliseconds(0))) ? 0 : 1;
  }
  const auto took = std::chrono::ceil<milliseconds>(SystemClock().Now() - start);
  attempts.Add(
      what, open == 0 ? Verdict::kRefused : Verdict::kSucceeded,
      open == 0
          ? fmt::format("daemon: {} closed, the last after {} ms", sockets.size(), took.count())
          : fmt::format("{} of {} are open after {} ms", open, sockets.size(), took.count()));
}

void AttackBySessions(const Target& target, Attempts& attempts) {
  const char* const what = "open sessions without end";
  std::vector<DataSocket> sessions;
  for (int i = 0; i < kSessions; ++i) {
    absl::StatusOr<DataSocket> socket = DataSocket::Connect(target.data_socket);
    absl::Status status = socket.status();
    if (status.ok()) status = socket->Greet(GoodHello());
    if (!status.ok()) {
      attempts.AddStatus(what, status,
                         {absl::StatusCode::kResourceExhausted, absl::StatusCode::kUnavailable});
      break;
    }
    sessions.push_back(*std::move(socket));
  }
  // The victim goes on connecting meanwhile.
  std::this_thread::sleep_for(milliseconds(300));
  if (sessions.size() == kSessions) {
    attempts.Add(what, Verdict::kNotTried,
                 fmt::format("{} were opened, and no more are tried", kSessions));
  }
}

void AttackBySequences(const Target& target, Attempts& attempts) {
  const char* const what = "open sequences without end";
  absl::StatusOr<Engine> engine = Engine::Start(target.control_socket, target.data_socket, 1);
  if (!engine.ok()) return attempts.Add(what, Verdict::kNotTried, MessageOf(engine.status()));
  for (int i = 0; i < kSequences; ++i) {
    const absl::Status opened = engine->Open("full").status();
    if (opened.ok()) continue;
    return attempts.AddStatus(what, opened, {absl::StatusCode::kResourceExhausted});
  }
  attempts.Add(what, Verdict::kSucceeded, fmt::format("{} are open", kSequences));
}

void AttackByHugeMessages(const Target& target, Attempts& attempts) {
  absl::StatusOr<Engine> engine = Engine::Start(target.control_socket, target.data_socket, 1);
  if (!engine.ok()) {
    return attempts.Add("send huge messages", Verdict::kNotTried, MessageOf(engine.status()));
  }
  v1::PutTokenTextsRequest texts;
  texts.set_model_id(engine->model_id());
  texts.add_texts(std::string(kHugeBytes, 't'));
  v1::PutTokenTextsResponse put;
  attempts.AddStatus("call with a message of 8 MiB",
                     ToStatus(engine->calls().Call(&v1::KvCache::Stub::PutTokenTexts, texts, &put)),
                     {absl::StatusCode::kResourceExhausted});
  v1::SyncRequest many;
  for (int i = 0; i < 100'000; ++i) many.add_needs();
  v1::SyncResponse synced;
  attempts.AddStatus("call with 100,000 needs",
                     ToStatus(engine->calls().Call(&v1::KvCache::Stub::Sync, many, &synced)),
                     {absl::StatusCode::kInvalidArgument});
  const absl::StatusOr<v1::OpenSequenceResponse> sequence = engine->Open("full");
  if (!sequence.ok()) return;
  attempts.AddStatus("ask for rows without end", engine->Sync(*sequence, ~uint64_t{0}),
                     {absl::StatusCode::kInvalidArgument, absl::StatusCode::kResourceExhausted});
}

// 0: not known.
int ThreadsOf(pid_t pid) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("Threads:")) return std::stoi(line.substr(8));
  }
  return 0;
}

void AttackByUnreadAnswers(const Target& target, Attempts& attempts) {
  const char* const what = "never read answers, so that they pile up";
  const int before = ThreadsOf(target.daemon_pid);
  if (before == 0) {
    return attempts.Add(what, Verdict::kNotTried, "the daemon's threads cannot be counted");
  }
  std::vector<UnreadCalls> connections;
  int calls = 0;
  for (int i = 0; i < kUnreadConnections; ++i) {
    absl::StatusOr<UnreadCalls> connection = UnreadCalls::Connect(target.control_socket);
    if (!connection.ok()) break;
    int sent = 0;
    while (sent < kUnreadCalls && connection->Send("/kvasir.v1.Admin/ListPolicies", "", "").ok()) {
      ++sent;
    }
    calls += sent;
    connections.push_back(*std::move(connection));
  }
  int most = 0;
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(milliseconds(50));
    most = std::max(most, ThreadsOf(target.daemon_pid) - before);
  }
  attempts.Add(what, most <= kThreadsMax ? Verdict::kRefused : Verdict::kSucceeded,
               fmt::format("daemon: {} threads more for {} calls", most, calls));
  connections.clear();
  // Its user is heard again once the daemon has seen them go.
  Calls honest(target.control_socket, "");
  for (int i = 0; i < 100; ++i) {
    v1::GetStatsResponse stats;
    if (honest.CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats).ok()) return;
    std::this_thread::sleep_for(milliseconds(50));
  }
  attempts.Add("be heard after a flood", Verdict::kStrange, "no call is answered any more");
}

}  // namespace

void AttackLimits(const Target& target, Attempts& attempts) {
  AttackBySilence(target, attempts);
  AttackBySessions(target, attempts);
  AttackBySequences(target, attempts);
  AttackByHugeMessages(target, attempts);
  AttackByUnreadAnswers(target, attempts);
}

Attempts AttackAll(const Target& target) {
  Attempts attempts;
  AttackProcesses(target, attempts);
  AttackSegments(target, attempts);
  AttackNames(target, attempts);
  (void)AttackAdmin(target, attempts);
  AttackProtocol(target, attempts);
  AttackLimits(target, attempts);
  return attempts;
}

}  // namespace kvasir::attack
