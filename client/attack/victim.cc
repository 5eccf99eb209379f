#include "client/attack/victim.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/posix.h"
#include "base/status_macros.h"

#include <fmt/format.h>

namespace kvasir::attack {
namespace {

using std::chrono::milliseconds;

constexpr uint64_t kRowsMax = 256, kRowBytes = 128;  // one layer, one head, 64 elements of f16
constexpr uint64_t kStepsOfConnect = 10;
// A call that takes longer has been kept from it: deadlines are ten seconds.
constexpr milliseconds kSlow{2'000};

// The row as it is written: the mark again and again, and its number.
void FillRow(const std::string& mark, uint64_t row, std::byte* to) {
  for (uint64_t at = 0; at + mark.size() <= kRowBytes; at += mark.size()) {
    std::memcpy(to + at, mark.data(), mark.size());
  }
  std::memcpy(to + kRowBytes - sizeof(row), &row, sizeof(row));
}

}  // namespace

absl::StatusOr<Victim> Victim::Start(const std::string& control_socket,
                                     const std::string& data_socket) {
  Victim victim;
  Target& target = victim.target_;
  target.control_socket = control_socket;
  target.data_socket = data_socket;
  target.victim_pid = ::getpid();
  victim.mark_.resize(16);
  KVASIR_RETURN_IF_ERROR(FillRandom(victim.mark_.data(), victim.mark_.size()));
  target.marker = ToHex(victim.mark_);
  ConnectOptions connect;
  connect.control_socket = control_socket;
  connect.data_socket = data_socket;
  KVASIR_ASSIGN_OR_RETURN(victim.session_, Session::Connect(connect));
  ModelSpec spec;
  spec.name = "victim";
  spec.layers.assign(1, LayerSpec{.kv_heads = 1, .k_head_dim = 64, .v_head_dim = 64});
  spec.vocabulary_size = 1000;
  spec.slots_per_block = 16;
  spec.weights_digest = victim.mark_;
  KVASIR_ASSIGN_OR_RETURN(victim.model_, victim.session_->RegisterModel(spec));
  KVASIR_RETURN_IF_ERROR(victim.OpenStream());
  for (int row = 0; row < 40; ++row) KVASIR_RETURN_IF_ERROR(victim.WriteRow());
  target.sequence_id = victim.stream_->id();
  KVASIR_ASSIGN_OR_RETURN(const Snapshot snapshot, victim.stream_->Save());
  target.snapshot = ToHex(snapshot.id);
  KVASIR_ASSIGN_OR_RETURN(victim.lender_, Engine::Start(control_socket, data_socket, 1));
  KVASIR_ASSIGN_OR_RETURN(victim.lent_, victim.lender_->Open("full"));
  target.token = victim.lender_->data().token();
  target.sequence = victim.lent_.sequence();
  target.sequence_uid = victim.lent_.uid();
  v1::GetStatsResponse stats;
  KVASIR_RETURN_IF_ERROR(ToStatus(victim.lender_->calls().CallAdmin(
      &v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats)));
  if (stats.tenants_size() != 1) {
    return FailedPrecondition("the user is no tenant of its own: tenants={}", stats.tenants_size());
  }
  target.tenant = stats.tenants(0).tenant();
  return victim;
}

absl::Status Victim::OpenStream() {
  OpenOptions open;
  open.model = model_;
  open.retention = "full";
  open.max_rows = kRowsMax;
  open.label = "attacked";
  stream_.reset();
  KVASIR_ASSIGN_OR_RETURN(stream_, session_->OpenSequence(open));
  return absl::OkStatus();
}

absl::Status Victim::WriteRow() {
  if (stream_->rows() == kRowsMax) KVASIR_RETURN_IF_ERROR(OpenStream());
  KVASIR_ASSIGN_OR_RETURN(const StepView step, stream_->Begin(1));
  const LayerView& layer = step.layers[0];
  FillRow(mark_, step.row, layer.KeyOf(step.row));
  FillRow(mark_, step.row, layer.ValueOf(step.row));
  std::vector<std::byte> wanted(kRowBytes);
  for (uint64_t row = std::max(layer.recent_base, layer.recent_first); row < step.row; ++row) {
    FillRow(mark_, row, wanted.data());
    const bool same = std::memcmp(layer.KeyOf(row), wanted.data(), kRowBytes) == 0 &&
                      std::memcmp(layer.ValueOf(row), wanted.data(), kRowBytes) == 0;
    foreign_rows_ += same ? 0 : 1;
  }
  return stream_->Commit(std::vector<uint32_t>(1, 7));
}

void Victim::Step() {
  const Instant start = SystemClock().Now();
  const absl::Status written = WriteRow();
  if (failed_.ok()) failed_ = written;
  if (steps_++ % kStepsOfConnect == 0) {
    ConnectOptions connect;
    connect.control_socket = target_.control_socket;
    connect.data_socket = target_.data_socket;
    const absl::Status connected = Session::Connect(connect).status();
    if (not_connected_.ok()) not_connected_ = connected;
    ++connects_;
  }
  const auto took = std::chrono::ceil<milliseconds>(SystemClock().Now() - start);
  slowest_ = std::max(slowest_, took);
  std::this_thread::sleep_for(milliseconds(5));
}

Attempts Victim::Finish() {
  Attempts attempts;
  const auto add = [&](const char* what, bool well, const std::string& text) {
    attempts.Add(what, well ? Verdict::kRefused : Verdict::kSucceeded, text);
  };
  add("change the other's rows", foreign_rows_ == 0,
      fmt::format("the other: {} steps, {} rows that it did not write", steps_, foreign_rows_));
  add("end or hinder the other's stream", failed_.ok(),
      failed_.ok() ? "the other: every step went well" : "the other: " + MessageOf(failed_));
  add("keep the other from connecting", not_connected_.ok(),
      not_connected_.ok() ? fmt::format("the other: connected {} times meanwhile", connects_)
                          : "the other: " + MessageOf(not_connected_));
  add("hold the other's calls up", slowest_ < kSlow,
      fmt::format("the other: its slowest step took {} ms", slowest_.count()));
  const absl::Status alive = lender_->Sync(lent_, 0);
  add("end the session whose token is known", alive.ok(),
      alive.ok() ? "the other: it goes on" : "the other: " + MessageOf(alive));
  OpenOptions open;
  open.model = model_;
  open.snapshot = FromHex(target_.snapshot).value_or("");
  const absl::Status resumed = session_->OpenSequence(open).status();
  add("drop the other's snapshot", resumed.ok(),
      resumed.ok() ? "the other: it goes on from it" : "the other: " + MessageOf(resumed));
  (void)session_->DropSnapshot(open.snapshot);
  return attempts;
}

}  // namespace kvasir::attack
