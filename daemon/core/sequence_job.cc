// What a worker does for a sequence, part by part.
#include <algorithm>
#include <cstring>
#include <vector>

#include "allocator/device_memory.h"
#include "daemon/core/device_copy.h"
#include "daemon/core/sequence.h"

namespace kvasir::core {
namespace {

constexpr size_t kCopiesAtOnce = 64;  // of which those on a device are one batch

absl::Status RunCopies(SequenceJob& job) {
  const size_t end = std::min(job.copies.size(), job.copied + kCopiesAtOnce);
  DeviceMemory* device = nullptr;  // one: the sequence's
  std::vector<device::CopyPiece> pieces;
  for (; job.copied < end; ++job.copied) {
    const BlockCopy& copy = job.copies[job.copied];
    if (copy.device == nullptr) {
      std::memcpy(copy.to, copy.from, copy.bytes);
      if (device == nullptr) {  // of host memory one alone is a part
        ++job.copied;
        break;
      }
      continue;
    }
    device = copy.device;
    pieces.push_back({copy.to, copy.from, copy.bytes});
  }
  return device == nullptr ? absl::OkStatus() : device->Copy(pieces);
}

}  // namespace

bool RunPart(SequenceJob& job) {
  if (job.scored < job.scorings.size()) {
    if (!ScoreNextLayer(job.scorings[job.scored])) ++job.scored;
  } else if (job.selecting) {
    RunSelecting(*job.selecting);
    return false;
  } else if (job.lookup) {
    RunLookup(*job.lookup);
    return false;
  } else if (job.sealed < job.sealings.size()) {
    RunSealing(job.sealings[job.sealed++]);
  } else if (job.filled < job.items.size()) {
    const SequenceJob::Item& item = job.items[job.filled++];
    job.status = item.fill.group->group().extent->device_rows() == nullptr
                     ? (FillGroup(item.fill, *item.rope), absl::OkStatus())
                     : FillOnDevice(item.fill, *item.rope);
    if (!job.status.ok()) return false;
  } else if (job.copied < job.copies.size()) {
    job.status = RunCopies(job);
    if (!job.status.ok()) return false;
  } else if (job.written < job.writings.size()) {
    const RowWriting& writing = job.writings[job.written++];
    writing.source->Write(writing.first, writing.last, writing.to);
  }
  return job.scored < job.scorings.size() || job.sealed < job.sealings.size() ||
         job.filled < job.items.size() || job.copied < job.copies.size() ||
         job.written < job.writings.size();
}

}  // namespace kvasir::core
