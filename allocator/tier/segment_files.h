// SegmentFiles: the folder of a disk tier: a lock, a format file, the index's folder and segment
// files of one size.
//
//   lock            held by one process for as long as it lives
//   format          text: version, layout fingerprint, bytes of a unit and of a segment
//   index/          RocksDB (disk_index.h)
//   segment-000000  preallocated; opened with O_DIRECT where the file system has it
//
// Thread-safe after Open(). A folder of another format is emptied: it is a cache. Only names of
// this list are ever removed, and a folder that has a file but no format of ours is refused.
#ifndef KVASIR_ALLOCATOR_TIER_SEGMENT_FILES_H_
#define KVASIR_ALLOCATOR_TIER_SEGMENT_FILES_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/posix.h"

namespace kvasir {

struct SegmentOptions {
  std::string path;            // absolute; made when it is missing, its parent is not
  uint64_t fingerprint = 0;    // of the layout
  uint64_t unit_bytes = 0;     // multiple of a page
  uint64_t segment_bytes = 0;  // multiple of unit_bytes
  uint32_t segments = 0;
};

class SegmentFiles {
 public:
  static constexpr uint32_t kFormatVersion = 1;

  // Locks the folder, makes or checks it, and reserves the space of every segment, so that a full
  // disk is met here. What the file system has too little room for is refused before anything of
  // the folder changes; segments that were new when another could not be had are removed again.
  // Errors: kInvalidArgument (path), kAlreadyExists (another process has it), kFailedPrecondition
  // (the folder holds something else), kResourceExhausted (no space, with what there is).
  static absl::StatusOr<SegmentFiles> Open(const SegmentOptions& options);

  // Removes the index's folder, after it was found damaged.
  absl::Status RemoveIndex() const;

  std::string index_path() const { return path_ + "/index"; }
  std::span<const int> fds() const { return fds_; }
  bool direct() const { return direct_; }  // O_DIRECT

 private:
  absl::Status Lock();
  absl::Status CheckRoom(const SegmentOptions& options) const;
  absl::Status CheckFormat(const SegmentOptions& options);
  absl::Status Empty() const;
  // Removes segments that so many segments have no use for.
  absl::Status RemoveBeyond(uint32_t segments) const;
  absl::StatusOr<UniqueFd> OpenSegment(const std::string& name, uint64_t bytes);
  absl::Status OpenSegments(const SegmentOptions& options);

  std::string path_;
  UniqueFd lock_;
  std::vector<UniqueFd> files_;
  std::vector<int> fds_;
  bool direct_ = true;
};

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_SEGMENT_FILES_H_
