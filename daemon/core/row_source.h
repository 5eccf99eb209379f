// RowSource: the rows of a snapshot that has every one of them, in its one lane, as written or
// encoded; to be written again by who makes another form of them.
//
// Immutable once made; thread-safe. It shares the snapshot, so that its groups stay.
#ifndef KVASIR_DAEMON_CORE_ROW_SOURCE_H_
#define KVASIR_DAEMON_CORE_ROW_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <absl/status/statusor.h>

#include "daemon/core/snapshot.h"

namespace kvasir::core {

class RowSource {
 public:
  // Errors: kFailedPrecondition naming what is missing. Cost: O(its groups).
  static absl::StatusOr<RowSource> Of(std::shared_ptr<const Snapshot> snapshot);

  const Snapshot& snapshot() const { return *snapshot_; }
  // Rows that lie in one group with `row`, [first, last). REQUIRES: row < snapshot().rows, here and
  // below.
  struct Stretch {
    uint64_t first = 0, last = 0;
    bool encoded = false;  // decoded as a whole, however few are asked for
  };
  Stretch StretchOf(uint64_t row) const;
  TokenId TokenOf(uint64_t row) const;

  // Where rows go: the blocks of one lane of a sequence, and what the lane is.
  struct Destination {
    const shm::GroupGeometry* block = nullptr;
    const std::vector<uint32_t>* layers = nullptr;  // of the model, in lane order
    std::vector<std::byte*> blocks;                 // of the rows from first_block * slots on
    uint64_t first_block = 0;
    bool with_tokens = false;  // ids go into the trailers
  };
  // Writes the rows [first, last), bit for bit where they lie as written, decoded where they are
  // encoded. REQUIRES: they are of one stretch. Cost: of an encoded one, that of decoding it whole.
  void Write(uint64_t first, uint64_t last, const Destination& to) const;

 private:
  struct Place {
    uint64_t first_row = 0, rows = 0;
    const std::byte* group = nullptr;
    const shm::GroupGeometry* geometry = nullptr;
    uint64_t first_slot = 0;
    const LaneRecords* records = nullptr;  // null: as written
    const KeptSlot* slots = nullptr;       // of these rows; null: the snapshot has their ids
  };

  explicit RowSource(std::shared_ptr<const Snapshot> snapshot) : snapshot_(std::move(snapshot)) {}
  void AddKept(const KeptRun& run);
  const Place& PlaceOf(uint64_t row) const;
  void CopyRows(const Place& place, uint64_t first, uint64_t last, const Destination& to) const;
  void DecodeRows(const Place& place, uint64_t first, uint64_t last, const Destination& to) const;

  std::shared_ptr<const Snapshot> snapshot_;  // shared with the cache
  std::vector<Place> places_;                 // by row, without a gap
};

// A part of a job: Write() with these.
struct RowWriting {
  std::shared_ptr<const RowSource> source;  // shared with who has made the job
  uint64_t first = 0, last = 0;
  RowSource::Destination to;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_ROW_SOURCE_H_
