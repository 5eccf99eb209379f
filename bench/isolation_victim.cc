#include "bench/isolation_victim.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir::bench {
namespace {

using std::chrono::microseconds;

constexpr uint32_t kSlots = 16;
constexpr uint64_t kRowsMax = 4096;
constexpr microseconds kPeriod{1250};
constexpr uint32_t kTicksOfConnect = 80;  // ten a second: an engine starts seldom
// What was due while a call took longer than this is not made up for.
constexpr std::chrono::milliseconds kBehindMax{100};

class Victim {
 public:
  explicit Victim(const ConnectOptions& connect) : connect_(connect) {
    prefix_.tokens.assign(64, 7);
  }

  absl::Status Start() {
    KVASIR_RETURN_IF_ERROR(Connect(true, &ring_, &ring_model_));
    KVASIR_RETURN_IF_ERROR(Connect(false, &grpc_, &grpc_model_));
    return OpenStream();
  }

  absl::Status Do(Kind kind) {
    switch (kind) {
      case Kind::kRing:
        return ring_->MatchPrefix(ring_model_, prefix_).status();
      case Kind::kGrpc:
        return grpc_->MatchPrefix(grpc_model_, prefix_).status();
      case Kind::kBlock:
        return WriteBlock();
      case Kind::kOpen: {
        KVASIR_ASSIGN_OR_RETURN(Sequence sequence, Open("full"));
        return sequence.Close();
      }
      case Kind::kConnect:
        return Session::Connect(connect_).status();
      case Kind::kCount:
        break;
    }
    return absl::OkStatus();
  }

  // Not measured: a stream that is full begins anew.
  absl::Status Prepare(Kind kind) {
    if (kind != Kind::kBlock || stream_->rows() + kSlots <= kRowsMax) return absl::OkStatus();
    return OpenStream();
  }

 private:
  absl::Status Connect(bool use_ring, std::unique_ptr<Session>* session, ModelHandle* model) const {
    ConnectOptions options = connect_;
    options.use_ring = use_ring;
    KVASIR_ASSIGN_OR_RETURN(*session, Session::Connect(options));
    ModelSpec spec;
    spec.name = "victim";
    spec.layers.assign(2, LayerSpec{.kv_heads = 2, .k_head_dim = 64, .v_head_dim = 64});
    spec.rope = RopeStyle::kInterleaved;
    spec.rope_dims = 64;
    spec.vocabulary_size = 1000;
    spec.slots_per_block = kSlots;
    spec.weights_digest = std::string(16, 'v');
    KVASIR_ASSIGN_OR_RETURN(*model, (*session)->RegisterModel(spec));
    return absl::OkStatus();
  }

  absl::StatusOr<Sequence> Open(const std::string& retention) const {
    OpenOptions open;
    open.model = ring_model_;
    open.retention = retention;
    open.max_rows = kRowsMax;
    return ring_->OpenSequence(open);
  }
  absl::Status OpenStream() {
    stream_.reset();
    KVASIR_ASSIGN_OR_RETURN(stream_, Open("streamingllm:start_size=4,recent_size=64"));
    return absl::OkStatus();
  }

  absl::Status WriteBlock() {
    for (uint32_t rows = 0; rows < kSlots;) {  // fewer come where a table ends
      KVASIR_ASSIGN_OR_RETURN(const StepView step, stream_->Begin(kSlots - rows));
      const std::vector<uint32_t> ids(step.count, 5);
      KVASIR_RETURN_IF_ERROR(stream_->Commit(ids));
      rows += step.count;
    }
    return absl::OkStatus();
  }

  const ConnectOptions connect_;
  PrefixOptions prefix_;
  std::unique_ptr<Session> ring_, grpc_;
  ModelHandle ring_model_, grpc_model_;
  std::optional<Sequence> stream_;
};

void Note(const absl::Status& status, VictimBoard& board) {
  (void)std::snprintf(board.error.data(), board.error.size(), "%s", MessageOf(status).c_str());
}

}  // namespace

void BeVictim(const ConnectOptions& connect, VictimBoard& board) {
  if (::setresgid(kVictimUid, kVictimUid, kVictimUid) != 0 ||
      ::setresuid(kVictimUid, kVictimUid, kVictimUid) != 0) {
    ::_exit(1);
  }
  (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a change of user clears it
  Victim victim(connect);
  absl::Status status = victim.Start();
  board.ready = status.ok();
  Instant due = SystemClock().Now();
  for (uint32_t tick = 0; status.ok(); ++tick) {
    Kind kind = static_cast<Kind>(tick % (kKinds - 1));
    if (tick % kTicksOfConnect == kTicksOfConnect - 1) kind = Kind::kConnect;
    if (absl::Status prepared = victim.Prepare(kind); !prepared.ok()) {
      status = std::move(prepared);
      break;
    }
    due += kPeriod;
    Instant start = SystemClock().Now();
    if (start < due) {
      std::this_thread::sleep_until(due);
      start = SystemClock().Now();
    } else {
      due = std::max(due, start - kBehindMax);
      start = due;
    }
    const uint32_t window = board.window;
    board.current = window;
    const absl::Status done = victim.Do(kind);
    const std::chrono::duration<float, std::micro> took = SystemClock().Now() - start;
    if (!done.ok()) Note(done, board);
    const uint32_t count = board.count;
    if (window == 0 || count >= board.samples.size()) continue;
    board.samples[count] = {window, kind, !done.ok(), took.count()};
    board.count = count + 1;
  }
  Note(status, board);
  board.ended = true;
  ::_exit(1);
}

}  // namespace kvasir::bench
