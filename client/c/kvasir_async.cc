#include "client/c/kvasir_async.h"

#include "client/c/batch.h"
#include "client/c/convert.h"
#include "client/c/handles.h"
#include "client/sequence.h"

using kvasir::c::Guarded;
using kvasir::c::Missing;

namespace {

// What is no word is found by the library.
kvasir::TimelinePoint ToPoint(const kvasir_timeline_point& done) {
  static_assert(sizeof(kvasir::device::DeviceWord) == sizeof(*done.word));
  return {reinterpret_cast<const kvasir::device::DeviceWord*>(done.word), done.value};
}

}  // namespace

extern "C" {

kvasir_code kvasir_commit_async(kvasir_sequence* sequence, const uint32_t* ids, size_t count,
                                const kvasir_timeline_point* done, kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (sequence == nullptr || ids == nullptr || done == nullptr) {
      return Missing("sequence, ids or done");
    }
    return sequence->sequence.CommitAsync({ids, count}, ToPoint(*done));
  });
}

kvasir_code kvasir_commit_many_async(kvasir_sequence* const* sequences, size_t count,
                                     const uint32_t* ids, const kvasir_timeline_point* done,
                                     int32_t* codes, kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (done == nullptr) return Missing("done");
    if (count > 0 && ids == nullptr) return Missing("ids");
    if (count > 0 && sequences == nullptr) return Missing("sequences");
    kvasir::c::Batch batch(sequences, count, codes);
    kvasir::Sequence::CommitManyAsync(
        batch.sequences(), batch.Present(ids), ToPoint(*done),
        [&](size_t i, const absl::Status& status) { batch.Answer(batch.index(i), status); });
    return batch.first_error();
  });
}

}  // extern "C"
