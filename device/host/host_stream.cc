#include "device/host/host_stream.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <shared_mutex>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "device/word.h"
#include "kernels/turn_row.h"

namespace kvasir::device {
namespace {

// How long a wait goes without a look at whether the device is lost.
constexpr auto kMoment = std::chrono::milliseconds(2);

absl::StatusOr<HostEvent*> AsHostEvent(const char* call, DeviceEvent* event) {
  auto* const host = dynamic_cast<HostEvent*>(event);
  if (host == nullptr) {
    return InvalidArgument("{}: event is none of a host device", call);
  }
  return host;
}

// A RowGather of its own memory, with addresses that can be followed.
struct OwnedGather {
  std::vector<RowMove> rows;
  uint64_t row_bytes = 0;
  kernels::RopeShape rope = {};  // where a row is turned
  std::vector<float> turns;

  void Run() const {
    for (const RowMove& row : rows) {
      if (row.turn == kNoTurn) {
        std::memcpy(row.dst, row.src, row_bytes);
      } else {
        kernels::TurnRow(rope, turns.data() + uint64_t{row.turn} * rope.rotated_dims, row.src,
                         row.dst);
      }
    }
  }
};

}  // namespace

absl::StatusOr<bool> HostEvent::Query() {
  KVASIR_RETURN_IF_ERROR(state_.Health());
  MutexLock lock(mutex_);
  return done_ >= recorded_;
}

absl::Status HostEvent::Synchronize() {
  const uint64_t ticket = Recorded();
  for (;;) {
    KVASIR_RETURN_IF_ERROR(state_.Health());
    if (WaitAMoment(ticket)) return state_.Health();
  }
}

uint64_t HostEvent::Recorded() const {
  MutexLock lock(mutex_);
  return recorded_;
}

uint64_t HostEvent::TakeTicket() {
  MutexLock lock(mutex_);
  return ++recorded_;
}

void HostEvent::Finish(uint64_t ticket) {
  MutexLock lock(mutex_);
  done_ = std::max(done_, ticket);
  changed_.NotifyAll();
}

bool HostEvent::WaitAMoment(uint64_t ticket) {
  MutexLock lock(mutex_);
  if (done_ < ticket) changed_.WaitUntil(mutex_, std::chrono::steady_clock::now() + kMoment);
  return done_ >= ticket;
}

HostStream::HostStream(HostState& state) : state_(state), thread_([this] { Run(); }) {}

HostStream::~HostStream() {
  ReleaseWaits();
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

absl::Status HostStream::Enqueue(Command command) {
  KVASIR_RETURN_IF_ERROR(state_.Health());
  MutexLock lock(mutex_);
  queue_.push_back(std::move(command));
  changed_.NotifyAll();
  return absl::OkStatus();
}

absl::Status HostStream::Copy(std::span<const CopyPiece> pieces) {
  KVASIR_RETURN_IF_ERROR(state_.ranges.Check(pieces));
  if (state_.TakeCopyFault()) return Internal("Copy: refused, as a test asked for");
  if (pieces.empty()) return state_.Health();
  std::vector<CopyPiece> real(pieces.begin(), pieces.end());
  for (CopyPiece& piece : real) {
    piece.dst = state_.Real(piece.dst);
    piece.src = state_.Real(piece.src);
  }
  return Enqueue({.touch =
                      [copy = std::move(real)] {
                        for (const CopyPiece& piece : copy) {
                          std::memmove(piece.dst, piece.src, piece.bytes);
                        }
                      },
                  .wait = {}});
}

absl::Status HostStream::CopyStrided(std::span<const StridedPiece> pieces) {
  KVASIR_RETURN_IF_ERROR(state_.ranges.Check(pieces));
  if (state_.TakeCopyFault()) return Internal("CopyStrided: refused, as a test asked for");
  if (pieces.empty()) return state_.Health();
  std::vector<StridedPiece> real(pieces.begin(), pieces.end());
  for (StridedPiece& piece : real) {
    piece.dst = state_.Real(piece.dst);
    piece.src = state_.Real(piece.src);
  }
  return Enqueue({.touch =
                      [copy = std::move(real)] {
                        for (const StridedPiece& piece : copy) {
                          for (uint64_t row = 0; row < piece.rows; ++row) {
                            std::memmove(piece.dst + row * piece.dst_stride,
                                         piece.src + row * piece.src_stride, piece.row_bytes);
                          }
                        }
                      },
                  .wait = {}});
}

absl::Status HostStream::GatherRows(std::span<const RowGather> gathers) {
  KVASIR_RETURN_IF_ERROR(state_.ranges.Check(gathers));
  if (state_.TakeCopyFault()) return Internal("GatherRows: refused, as a test asked for");
  std::vector<OwnedGather> owned;
  for (const RowGather& gather : gathers) {
    OwnedGather& own = owned.emplace_back();
    own.rows.assign(gather.rows.begin(), gather.rows.end());
    own.row_bytes = gather.row_bytes;
    if (gather.rope != nullptr) own.rope = *gather.rope;
    own.turns.assign(gather.turns.begin(), gather.turns.end());
    for (RowMove& row : own.rows) {
      row.dst = state_.Real(row.dst);
      row.src = state_.Real(row.src);
    }
  }
  return Enqueue({.touch =
                      [gather = std::move(owned)] {
                        for (const OwnedGather& own : gather) own.Run();
                      },
                  .wait = {}});
}

absl::Status HostStream::Zero(const DeviceExtent& extent) {
  if (extent.access() == Access::kReadOnly) {
    return FailedPrecondition("Zero: extent is mapped read-only: id={}", extent.id());
  }
  return Enqueue({.touch = [data = state_.Real(extent.address()),
                            bytes = extent.charged_bytes()] { std::memset(data, 0, bytes); },
                  .wait = {}});
}

absl::Status HostStream::Record(const std::shared_ptr<DeviceEvent>& event) {
  KVASIR_RETURN_IF_ERROR(state_.Health());
  KVASIR_ASSIGN_OR_RETURN(HostEvent* const host, AsHostEvent("Record", event.get()));
  const uint64_t ticket = host->TakeTicket();
  return Enqueue(
      {.touch = {}, .wait = {}, .always = [host, ticket, keep = event] { host->Finish(ticket); }});
}

absl::Status HostStream::Wait(const std::shared_ptr<DeviceEvent>& event) {
  KVASIR_ASSIGN_OR_RETURN(HostEvent* const host, AsHostEvent("Wait", event.get()));
  const uint64_t ticket = host->Recorded();
  return Enqueue(
      {.touch = {}, .wait = [host, ticket, keep = event] { return host->WaitAMoment(ticket); }});
}

absl::Status HostStream::WriteWord(DeviceWord& word, uint64_t value) {
  KVASIR_RETURN_IF_ERROR(state_.ranges.CheckWord("WriteWord", word));
  return Enqueue({.touch = [&word, value] { StoreWord(word, value); }, .wait = {}});
}

absl::Status HostStream::WaitWord(DeviceWord& word, uint64_t at_least) {
  KVASIR_RETURN_IF_ERROR(state_.ranges.CheckWord("WaitWord", word));
  KVASIR_RETURN_IF_ERROR(state_.Health());
  MutexLock lock(mutex_);
  waits_.push_back({&word, at_least});
  queue_.push_back({.touch = {},
                    .wait = [&word, at_least] { return WaitForWord(word, at_least, kMoment); },
                    .always =
                        [this] {
                          MutexLock forget(mutex_);
                          waits_.pop_front();
                        }});
  changed_.NotifyAll();
  return absl::OkStatus();
}

void HostStream::ReleaseWaits() {
  // Under the lock: a wait that is still listed has a word that is still there.
  MutexLock lock(mutex_);
  if (state_.lost()) return;  // the thread drops them by itself
  for (const PendingWait& wait : waits_) RaiseWord(*wait.word, wait.at_least);
}

absl::Status HostStream::Synchronize() {
  for (;;) {
    KVASIR_RETURN_IF_ERROR(state_.Health());
    MutexLock lock(mutex_);
    if (queue_.empty() && !busy_) break;
    changed_.WaitUntil(mutex_, std::chrono::steady_clock::now() + kMoment);
  }
  return state_.Health();
}

void HostStream::Run() {
  for (;;) {
    Command command;
    {
      MutexLock lock(mutex_);
      busy_ = false;
      changed_.NotifyAll();
      while (queue_.empty() || (state_.hold.load() && !stopping_ && !state_.lost())) {
        if (queue_.empty() && stopping_) return;
        if (queue_.empty()) {
          changed_.Wait(mutex_);
        } else {
          changed_.WaitUntil(mutex_, std::chrono::steady_clock::now() + kMoment);
        }
      }
      command = std::move(queue_.front());
      queue_.pop_front();
      busy_ = true;
    }
    Execute(command);
  }
}

void HostStream::Execute(const Command& command) {
  if (command.wait) {
    while (!state_.lost() && !command.wait()) {
    }
  }
  if (command.touch) {
    const std::shared_lock<std::shared_mutex> touching(state_.touching);
    if (!state_.lost()) command.touch();
  }
  if (command.always) command.always();
}

}  // namespace kvasir::device
