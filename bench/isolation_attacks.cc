#include "bench/isolation_attacks.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status_macros.h"
#include "client/attack/unread_calls.h"
#include "ring/commands.h"
#include "ring/completion_consumer.h"
#include "ring/ring_memory.h"
#include "ring/submission_producer.h"
#include "tests/support/raw_client.h"

#include <poll.h>
#include <time.h>

namespace kvasir::bench {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using testing::RawEngine;

constexpr uint32_t kShortPrompt = 64, kLongPrompt = 1 << 20;
// 256 KiB of payload, less the record in front and the padding behind.
constexpr uint32_t kRingPrompt = 65'000;
constexpr size_t kSilentSockets = 64, kUnreadConnections = 8;  // of a thread

// Each thread for itself: the set-up first, then what it does until the process is killed.
using Work = std::function<void()>;

// An engine with a ring of which every entry is in use.
class FullRing {
 public:
  FullRing(const AttackOptions& options, uint32_t tokens, AttackBoard& board)
      : board_(board),
        engine_(options.control_socket, options.data_socket, 1),
        memory_(*ring::EngineRingMemory::Open(engine_.data().d().data(), engine_.data().d().bytes(),
                                              engine_.data().e().data(),
                                              engine_.data().e().bytes())),
        submissions_(memory_, credit_, engine_.data().doorbell().get()),
        completions_(memory_, credit_, ring::WaitOptions{.peer_is_gone = [] { return false; }}),
        tokens_(tokens, 9),
        payload_(*ring::MatchPayload::Make(engine_.model_id(), tokens_, {}, "", 0, false)) {}

  // True: nothing more fits.
  bool Fill() {
    const auto pieces = payload_.Pieces();
    for (;;) {
      const absl::StatusOr<bool> sent =
          submissions_.Submit(ring::MatchPayload::Entry(0), pieces, ring::Bell::kRing);
      if (!sent.ok()) return false;
      if (!*sent) return true;
    }
  }
  void Drain() {
    if (!completions_.Wait(SystemClock().Now() + std::chrono::seconds(1)).ok()) return;
    ring::Completion completion;
    for (absl::StatusOr<bool> next = true; next.ok() && *next;) {
      next = completions_.Next(&completion);
      if (!next.ok() || !*next) return;
      completions_.Done();
      board_.done.fetch_add(1, std::memory_order_relaxed);
    }
  }

 private:
  AttackBoard& board_;
  RawEngine engine_;
  ring::EngineRingMemory memory_;
  ring::RingCredit credit_;
  ring::SubmissionProducer submissions_;
  ring::CompletionConsumer completions_;
  std::vector<uint32_t> tokens_;
  ring::MatchPayload payload_;
};

Work MakeRing(const AttackOptions& options, uint32_t tokens, AttackBoard& board) {
  auto ring = std::make_shared<FullRing>(options, tokens, board);
  return [ring] {
    for (;;) {
      if (ring->Fill()) ring->Drain();
    }
  };
}

void Count(const grpc::Status& status, AttackBoard& board) {
  (status.ok() ? board.done : board.refused).fetch_add(1, std::memory_order_relaxed);
}

Work MakeGrpc(const AttackOptions& options, AttackBoard& board) {
  auto engine = std::make_shared<RawEngine>(options.control_socket, options.data_socket, 1);
  return [engine, &board] {
    v1::OpenSequenceRequest open;
    open.set_model_id(engine->model_id());
    open.set_retention("full");
    open.set_max_rows(256);
    for (;;) {
      v1::OpenSequenceResponse opened;
      Count(engine->calls().Call(&v1::KvCache::Stub::OpenSequence, open, &opened), board);
      v1::CloseSequenceRequest close;
      close.set_sequence(opened.sequence());
      close.set_uid(opened.uid());
      v1::CloseSequenceResponse closed;
      Count(engine->calls().Call(&v1::KvCache::Stub::CloseSequence, close, &closed), board);
      v1::GetStatsResponse stats;
      Count(engine->calls().CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats),
            board);
    }
  };
}

Work MakeHuge(const AttackOptions& options, uint32_t thread, AttackBoard& board) {
  if (thread % 2 == 0) return MakeRing(options, kRingPrompt, board);
  auto engine = std::make_shared<RawEngine>(options.control_socket, options.data_socket, 1);
  return [engine, &board] {
    v1::MatchPrefixRequest match;
    match.set_model_id(engine->model_id());
    match.mutable_prefix()->mutable_tokens()->Resize(kLongPrompt, 9);
    for (;;) {
      v1::MatchPrefixResponse found;
      Count(engine->calls().Call(&v1::KvCache::Stub::MatchPrefix, match, &found), board);
    }
  };
}

Work MakeConnections(const AttackOptions& options, AttackBoard& board) {
  return [options, &board] {
    const shm::Hello hello = testing::GoodHello();
    for (;;) {
      absl::StatusOr<UniqueFd> socket = ConnectUnix(options.data_socket, SocketType::kSeqPacket);
      bool answered = false;
      if (socket.ok() && SendMessage(*socket, std::as_bytes(std::span(&hello, 1)), {}).ok()) {
        std::array<std::byte, sizeof(shm::Refusal)> buffer{};
        if (WaitReadable(socket->get(), 1000).value_or(false)) {
          const absl::StatusOr<ReceivedMessage> answer = ReceiveMessage(*socket, buffer);
          answered = answer.ok() && answer->bytes == sizeof(shm::Welcome);
        }
      }
      (answered ? board.done : board.refused).fetch_add(1, std::memory_order_relaxed);
      if (!socket.ok()) std::this_thread::sleep_for(microseconds(50));  // the backlog is full
    }
  };
}

// Whether the other side has hung up.
bool IsClosed(const UniqueFd& socket) {
  pollfd entry{socket.get(), POLLRDHUP, 0};
  return ::poll(&entry, 1, 0) == 1 && (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

Work MakeSilent(const AttackOptions& options, AttackBoard& board) {
  auto ring = std::make_shared<FullRing>(options, kShortPrompt, board);
  return [options, ring, &board] {
    (void)ring->Fill();  // and never drained
    std::vector<UniqueFd> data(kSilentSockets), control(kSilentSockets);
    struct Unread {
      std::optional<attack::UnreadCalls> calls;
      bool full = false;  // the daemon takes no more, and a piece of the last call may have gone
    };
    std::vector<Unread> unread(kUnreadConnections);
    for (;;) {
      bool idle = true;
      const auto keep = [&](std::vector<UniqueFd>& sockets, const std::string& path,
                            SocketType type) {
        for (UniqueFd& socket : sockets) {
          if (socket && !IsClosed(socket)) continue;
          socket.reset();
          absl::StatusOr<UniqueFd> anew = ConnectUnix(path, type);
          (anew.ok() ? board.done : board.refused).fetch_add(1, std::memory_order_relaxed);
          if (anew.ok()) {
            socket = *std::move(anew);
            idle = false;
          }
        }
      };
      keep(data, options.data_socket, SocketType::kSeqPacket);
      keep(control, options.control_socket, SocketType::kStream);
      for (Unread& each : unread) {
        if (!each.calls || IsClosed(each.calls->socket())) {
          absl::StatusOr<attack::UnreadCalls> anew =
              attack::UnreadCalls::Connect(options.control_socket);
          each.calls.reset();
          each.full = !anew.ok();
          if (anew.ok()) each.calls.emplace(*std::move(anew));
        }
        if (each.full) continue;
        each.full = !each.calls->Send("/kvasir.v1.Admin/GetStats", "", "").ok();
        board.done.fetch_add(1, std::memory_order_relaxed);
        idle = false;
      }
      if (idle) std::this_thread::sleep_for(milliseconds(1));
    }
  };
}

double ThreadSeconds() {
  timespec time{};
  (void)::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// A thread that uses a processor as another did, and waits for nothing but time.
Work MakeBurn(const ThreadUse& use) {
  return [use] {
    Instant bin = SystemClock().Now();
    for (const auto& [busy_s, piece_s] : use.bins) {
      const double before = ThreadSeconds();
      for (double burnt = 0; burnt < busy_s;) {
        const double until = std::min(busy_s, burnt + piece_s);
        while ((burnt = ThreadSeconds() - before) < until) {
        }
        const std::chrono::duration<double> due(burnt / busy_s * ThreadUse::kBin);
        std::this_thread::sleep_until(bin + std::chrono::duration_cast<Instant::duration>(due));
      }
      bin += ThreadUse::kBin;
      std::this_thread::sleep_until(bin);
    }
    for (;;) ::pause();
  };
}

Work MakeWork(const AttackOptions& options, uint32_t thread, AttackBoard& board) {
  switch (options.mode) {
    case Mode::kRing:
      return MakeRing(options, kShortPrompt, board);
    case Mode::kGrpc:
      return MakeGrpc(options, board);
    case Mode::kConnections:
      return MakeConnections(options, board);
    case Mode::kHuge:
      return MakeHuge(options, thread, board);
    case Mode::kSilent:
      return MakeSilent(options, board);
    case Mode::kBurn:
    case Mode::kCount:
      break;
  }
  return MakeBurn(options.burn[thread]);
}

}  // namespace

const char* NameOf(Mode mode) {
  switch (mode) {
    case Mode::kRing:
      return "ring";
    case Mode::kGrpc:
      return "grpc";
    case Mode::kConnections:
      return "connections";
    case Mode::kHuge:
      return "huge";
    case Mode::kSilent:
      return "silent";
    case Mode::kBurn:
    case Mode::kCount:
      break;
  }
  return "burn";
}

void BeAttacker(const AttackOptions& options, AttackBoard& board) {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &files);
  }
  if (::setresgid(kAttackerUid, kAttackerUid, kAttackerUid) != 0 ||
      ::setresuid(kAttackerUid, kAttackerUid, kAttackerUid) != 0) {
    ::_exit(1);
  }
  (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a change of user clears it
  std::vector<Work> works;
  const uint32_t count =
      options.mode == Mode::kBurn ? static_cast<uint32_t>(options.burn.size()) : options.threads;
  for (uint32_t i = 0; i < count; ++i) works.push_back(MakeWork(options, i, board));
  std::vector<std::thread> threads;
  for (const Work& work : works) threads.emplace_back(work);
  board.ready = true;
  for (;;) ::pause();
}

}  // namespace kvasir::bench
