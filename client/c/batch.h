// The sequences of a call for many. Private to client/c/.
#ifndef KVASIR_CLIENT_C_BATCH_H_
#define KVASIR_CLIENT_C_BATCH_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include <absl/container/inlined_vector.h>
#include <absl/status/status.h>

#include "client/c/convert.h"
#include "client/c/handles.h"
#include "client/c/kvasir.h"
#include "client/sequence.h"

namespace kvasir::c {

// Sequences of a batch, and what each is answered: by index, then the first error for all.
class Batch {
 public:
  // Those that are missing are answered at once.
  Batch(kvasir_sequence* const* sequences, size_t count, int32_t* codes)
      : codes_(codes), first_index_(count) {
    for (size_t i = 0; i < count; ++i) {
      if (sequences[i] == nullptr) {
        Answer(i, Missing("sequences[]"));
        continue;
      }
      sequences_.push_back(&sequences[i]->sequence);
      indices_.push_back(i);
    }
  }
  std::span<Sequence* const> sequences() const { return sequences_; }
  size_t index(size_t i) const { return indices_[i]; }  // of the i-th of sequences()

  void Answer(size_t index, const absl::Status& status) {
    if (codes_ != nullptr) codes_[index] = static_cast<int32_t>(status.code());
    if (status.ok() || index > first_index_) return;
    first_index_ = index;
    first_error_ = status;
  }
  // One of `all`, which has one for each, for each of sequences().
  absl::InlinedVector<uint32_t, 16> Present(const uint32_t* all) const {
    absl::InlinedVector<uint32_t, 16> present;
    for (const size_t index : indices_) present.push_back(all[index]);
    return present;
  }
  const absl::Status& first_error() const { return first_error_; }

 private:
  int32_t* const codes_;
  absl::InlinedVector<Sequence*, 16> sequences_;
  absl::InlinedVector<size_t, 16> indices_;
  size_t first_index_;
  absl::Status first_error_;
};

}  // namespace kvasir::c

#endif  // KVASIR_CLIENT_C_BATCH_H_
