#include "device/offload/offload_engine.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir::device {
namespace {

absl::Status PutCopies(DeviceStream& stream, const StepCopies& copies) {
  if (!copies.pieces.empty()) KVASIR_RETURN_IF_ERROR(stream.Copy(copies.pieces));
  if (!copies.strided.empty()) KVASIR_RETURN_IF_ERROR(stream.CopyStrided(copies.strided));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<OffloadEngine>> OffloadEngine::Create(
    Device& device, const OffloadOptions& options) {
  if (options.streams_per_direction == 0 || options.streams_per_direction > 16) {
    return InvalidArgument("streams_per_direction out of bounds: value={} min=1 max=16",
                           options.streams_per_direction);
  }
  if (options.in_flight_bytes_max == 0) {
    return InvalidArgument("in_flight_bytes_max out of bounds: value=0 min=1");
  }
  std::unique_ptr<OffloadEngine> engine(new OffloadEngine(device, options));
  MutexLock lock(engine->mutex_);
  for (const CopyDirection direction : {CopyDirection::kToDevice, CopyDirection::kToHost}) {
    for (uint32_t i = 0; i < options.streams_per_direction; ++i) {
      KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<DeviceStream> stream,
                              device.MakeStream(StreamPriority::kLowest));
      engine->streams_.push_back({direction, std::move(stream)});
    }
  }
  return engine;
}

OffloadEngine::~OffloadEngine() = default;

absl::StatusOr<uint64_t> OffloadEngine::Submit(const GroupLayout& layout, OffloadRequest request) {
  if (request.blocks.empty()) return InvalidArgument("Submit: blocks is empty: min=1");
  KVASIR_RETURN_IF_ERROR(layout.Check(request.blocks));
  uint64_t bytes = 0;
  if (!CheckedMultiply(layout.bytes(), request.blocks.size(), &bytes) ||
      bytes > options_.in_flight_bytes_max) {
    return InvalidArgument(
        "Submit: a request is over what may be in flight: blocks={} group_bytes={} "
        "in_flight_bytes_max={}",
        request.blocks.size(), layout.bytes(), options_.in_flight_bytes_max);
  }
  MutexLock lock(mutex_);
  ReapLocked();
  PumpLocked();
  if (!lost_.ok()) return lost_;
  const bool fits =
      queue_.empty() && bytes <= options_.in_flight_bytes_max - counts_.in_flight_bytes;
  if (!fits && queue_.size() >= options_.queued_max) {
    return ResourceExhausted(
        "Submit: the queue of offloads is full: bytes={} in_flight={} in_flight_bytes={} "
        "in_flight_bytes_max={} queued={} queued_bytes={} queued_max={}",
        bytes, counts_.in_flight, counts_.in_flight_bytes, options_.in_flight_bytes_max,
        counts_.queued, counts_.queued_bytes, options_.queued_max);
  }
  const uint64_t id = next_id_++;
  ++counts_.submitted;
  counts_.submitted_bytes += bytes;
  ++counts_.queued;
  counts_.queued_bytes += bytes;
  queue_.push_back({.id = id,
                    .layout = &layout,
                    .what = std::move(request),
                    .bytes = bytes,
                    .cancelled = false,
                    .failed = {},
                    .event = nullptr,
                    .stream = 0});
  PumpLocked();
  return id;
}

absl::Status OffloadEngine::Cancel(uint64_t id) {
  MutexLock lock(mutex_);
  const auto is_it = [id](const Request& request) { return request.id == id; };
  const auto queued = std::find_if(queue_.begin(), queue_.end(), is_it);
  if (queued != queue_.end()) {
    const Request request = std::move(*queued);
    queue_.erase(queued);
    --counts_.queued;
    counts_.queued_bytes -= request.bytes;
    EndLocked(request, MakeError(absl::StatusCode::kCancelled, "cancelled before it was issued"));
    return absl::OkStatus();
  }
  const auto issued = std::find_if(in_flight_.begin(), in_flight_.end(), is_it);
  if (issued == in_flight_.end()) {
    return NotFound("Cancel: the request has ended, or never was: id={}", id);
  }
  issued->cancelled = true;
  return absl::OkStatus();
}

std::vector<OffloadResult> OffloadEngine::Poll() {
  MutexLock lock(mutex_);
  ReapLocked();
  PumpLocked();
  return std::exchange(ended_, {});
}

absl::Status OffloadEngine::WaitForOne() {
  std::shared_ptr<DeviceEvent> event;
  {
    MutexLock lock(mutex_);
    if (in_flight_.empty()) return absl::OkStatus();
    event = in_flight_.front().event;
  }
  return event->Synchronize();
}

uint32_t OffloadEngine::EmptiestStreamLocked(CopyDirection direction) const {
  uint32_t best = direction == CopyDirection::kToDevice ? 0 : options_.streams_per_direction;
  for (uint32_t i = best + 1; i < streams_.size() && streams_[i].direction == direction; ++i) {
    if (streams_[i].bytes < streams_[best].bytes) best = i;
  }
  return best;
}

absl::Status OffloadEngine::IssueStepsLocked(Request& request) {
  DeviceStream& stream = *streams_[request.stream].stream;
  const OffloadRequest& what = request.what;
  const bool by_layer = what.order == StepOrder::kByLayer;
  const uint64_t steps = by_layer ? request.layout->parts() : what.blocks.size();
  for (uint64_t step = 0; step < steps; ++step) {
    KVASIR_RETURN_IF_ERROR(PutCopies(
        stream, by_layer ? request.layout->CopiesOfPart(static_cast<uint32_t>(step), what.blocks,
                                                        what.direction)
                         : request.layout->CopiesOfGroup(what.blocks[step], what.direction)));
    if (what.word != nullptr) {
      KVASIR_RETURN_IF_ERROR(stream.WriteWord(*what.word, what.word_base + step + 1));
    }
  }
  return absl::OkStatus();
}

void OffloadEngine::IssueLocked(Request request) {
  request.stream = EmptiestStreamLocked(request.what.direction);
  DirectedStream& directed = streams_[request.stream];
  if (!spare_events_.empty()) {
    request.event = std::move(spare_events_.back());
    spare_events_.pop_back();
  } else {
    absl::StatusOr<std::shared_ptr<DeviceEvent>> event = device_.MakeEvent();
    if (!event.ok()) {  // nothing has been issued of it
      EndLocked(request, event.status());
      return;
    }
    request.event = *std::move(event);
  }
  request.failed = IssueStepsLocked(request);
  const absl::Status recorded = directed.stream->Record(request.event);
  if (!recorded.ok()) {
    // Nobody could tell when its copies are done: it ends once the stream is empty, or lost.
    if (request.failed.ok()) request.failed = recorded;
    (void)directed.stream->Synchronize();
    EndLocked(request, request.failed);
    return;
  }
  ++counts_.in_flight;
  counts_.in_flight_bytes += request.bytes;
  directed.bytes += request.bytes;
  in_flight_.push_back(std::move(request));
}

void OffloadEngine::PumpLocked() {
  if (lost_.ok()) lost_ = device_.Health();
  while (!queue_.empty()) {
    const uint64_t bytes = queue_.front().bytes;
    if (lost_.ok() && bytes > options_.in_flight_bytes_max - counts_.in_flight_bytes) return;
    Request request = std::move(queue_.front());
    queue_.pop_front();
    --counts_.queued;
    counts_.queued_bytes -= bytes;
    if (lost_.ok()) {
      IssueLocked(std::move(request));
      lost_ = device_.Health();
    } else {
      EndLocked(request, lost_);
    }
  }
}

void OffloadEngine::ReapLocked() {
  for (auto request = in_flight_.begin(); request != in_flight_.end();) {
    const absl::StatusOr<bool> done = request->event->Query();
    if (done.ok() && !*done) {
      ++request;
      continue;
    }
    if (!done.ok()) {
      // Only a lost device fails here, and by now it touches nothing any more.
      if (lost_.ok()) lost_ = done.status();
    } else {
      spare_events_.push_back(request->event);
    }
    --counts_.in_flight;
    counts_.in_flight_bytes -= request->bytes;
    streams_[request->stream].bytes -= request->bytes;
    absl::Status status = done.ok() ? request->failed : done.status();
    if (status.ok() && request->cancelled) {
      status = MakeError(absl::StatusCode::kCancelled, "cancelled after it was issued");
    }
    EndLocked(*request, status);
    request = in_flight_.erase(request);
  }
}

void OffloadEngine::EndLocked(const Request& request, const absl::Status& status) {
  ended_.push_back({request.id, status, request.bytes});
  counts_.ended_bytes += request.bytes;
  if (status.ok()) {
    ++counts_.done;
  } else if (status.code() == absl::StatusCode::kCancelled) {
    ++counts_.cancelled;
  } else {
    ++counts_.failed;
  }
}

OffloadCounts OffloadEngine::counts() const {
  MutexLock lock(mutex_);
  return counts_;
}

absl::Status OffloadEngine::CheckBooks() const {
  MutexLock lock(mutex_);
  uint64_t queued = 0, in_flight = 0, in_streams = 0;
  for (const Request& request : queue_) queued += request.bytes;
  for (const Request& request : in_flight_) in_flight += request.bytes;
  for (const DirectedStream& directed : streams_) in_streams += directed.bytes;
  const OffloadCounts& c = counts_;
  const uint64_t ended = c.done + c.cancelled + c.failed;
  if (c.queued != queue_.size() || c.in_flight != in_flight_.size() ||
      c.submitted != c.queued + c.in_flight + ended) {
    return Internal("offloads do not add up: submitted={} queued={} in_flight={} ended={}",
                    c.submitted, c.queued, c.in_flight, ended);
  }
  if (queued != c.queued_bytes || in_flight != c.in_flight_bytes || in_streams != in_flight ||
      c.submitted_bytes != queued + in_flight + c.ended_bytes ||
      in_flight > options_.in_flight_bytes_max) {
    return Internal(
        "bytes of offloads do not add up: submitted={} queued={} in_flight={} in_streams={} "
        "ended={} in_flight_bytes_max={}",
        c.submitted_bytes, queued, in_flight, in_streams, c.ended_bytes,
        options_.in_flight_bytes_max);
  }
  return absl::OkStatus();
}

}  // namespace kvasir::device
