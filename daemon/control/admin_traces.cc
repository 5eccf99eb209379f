// AdminService: recordings of what a tenant's sequences ask for.
#include <chrono>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/posix.h"
#include "daemon/control/admin_service.h"
#include "daemon/control/status_convert.h"

namespace kvasir {
namespace {

constexpr size_t kLinesAtOnce = 256;  // of one hold of the lock
constexpr std::chrono::milliseconds kTakeInterval{100};
constexpr uint32_t kSecondsMax = 86'400;

v1::TraceRecord RecordOf(const core::TraceLine& line) {
  v1::TraceRecord record;
  record.set_timestamp_ms(line.timestamp_ms);
  record.set_input_length(line.input_length);
  record.set_output_length(line.output_length);
  record.mutable_hash_ids()->Add(line.hash_ids.begin(), line.hash_ids.end());
  return record;
}

v1::TraceRecord LostRecord(uint64_t lost) {
  v1::TraceRecord record;
  record.set_lost(lost);
  return record;
}

}  // namespace

absl::StatusOr<uint64_t> AdminService::StartRecording(const Scope& scope,
                                                      const std::string& tenant) {
  ChainHasher::Secret salt{};
  if (absl::Status status = FillRandom(salt.data(), salt.size()); !status.ok()) return status;
  MutexLock lock(shared_.mutex);
  bool known = false;
  for (const core::DemandReport& report : shared_.core.DemandReports()) {
    known = known || (report.tenant == tenant && scope.Sees(tenant));
  }
  if (!known) return NotFound("unknown tenant: tenant={}", tenant);
  shared_.core.set_now(SystemClock().Now());
  return shared_.core.traces().Start(tenant, salt);
}

grpc::Status AdminService::RecordTrace(const Scope& scope, grpc::ServerContext* context,
                                       const v1::RecordTraceRequest* request,
                                       grpc::ServerWriter<v1::TraceRecord>* writer) {
  absl::StatusOr<uint64_t> recording;
  const grpc::Status started = Audited(
      scope, "trace_record",
      {{"target", request->tenant()}, {"seconds", std::to_string(request->seconds())}}, [&] {
        if (request->seconds() > kSecondsMax) {
          return InvalidArgument("seconds is out of bounds: value={} max={}", request->seconds(),
                                 kSecondsMax);
        }
        recording = StartRecording(scope, request->tenant());
        return recording.status();
      });
  if (!started.ok()) return started;
  struct Stopper {
    ~Stopper() {
      MutexLock lock(shared.mutex);
      shared.core.traces().Stop(recording);
    }
    SharedCore& shared;
    const uint64_t recording;
  };
  const Stopper stopper{shared_, *recording};
  (void)writer->SendInitialMetadata();  // from now on nothing is missed
  const Instant end = SystemClock().Now() + std::chrono::seconds(request->seconds());
  while (!context->IsCancelled()) {
    core::TraceRecorder::Batch batch;
    size_t waiting = 0;
    bool over = false, stopping = false;
    {
      MutexLock lock(shared_.mutex);
      over = request->seconds() > 0 && SystemClock().Now() >= end;
      batch = shared_.core.traces().Take(*recording, kLinesAtOnce);
      stopping = shared_.stopping;
      if (batch.lines.empty() && batch.lost == 0 && !over && !stopping && !batch.full) {
        (void)shared_.progress.WaitUntil(shared_.mutex, SystemClock().Now() + kTakeInterval);
        continue;
      }
      waiting = shared_.core.traces().Waiting(*recording);
    }
    // A line that still runs at the end, and what waits behind it, is lost.
    if (over && batch.lines.empty()) batch.lost += waiting;
    if (batch.lost > 0 && !writer->Write(LostRecord(batch.lost))) return grpc::Status::OK;
    for (const core::TraceLine& line : batch.lines) {
      if (!writer->Write(RecordOf(line))) return grpc::Status::OK;  // nobody reads any more
    }
    if (over && batch.lines.empty()) return grpc::Status::OK;
    if (batch.full) {
      return ToGrpc(ResourceExhausted("the recording has met too many different blocks: max={}",
                                      core::kTraceBlocksMax));
    }
    if (stopping) return ToGrpc(Unavailable("the daemon is stopping"));
  }
  return grpc::Status::OK;
}

}  // namespace kvasir
