// What a worker does for a sequence, part by part.
#include <cstring>

#include "daemon/core/device_copy.h"
#include "daemon/core/sequence.h"

namespace kvasir::core {

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
    const BlockCopy& copy = job.copies[job.copied++];
    std::memcpy(copy.to, copy.from, copy.bytes);
  } else if (job.written < job.writings.size()) {
    const RowWriting& writing = job.writings[job.written++];
    writing.source->Write(writing.first, writing.last, writing.to);
  }
  return job.scored < job.scorings.size() || job.sealed < job.sealings.size() ||
         job.filled < job.items.size() || job.copied < job.copies.size() ||
         job.written < job.writings.size();
}

}  // namespace kvasir::core
