// HandoverIndex: the book of what lies in the extents that outlive the process, in a memfd.
//
// An append-only log of records behind a page of header; a record that is no longer so is struck
// out in place. Little endian; offsets are multiples of 64.
//
//   header   0 u64 magic  8 u32 version  12 u32 record_header_bytes  16 u64 bytes  24 u64 layout
//            32 u64 epoch  40 u8 secret[16]  56 u64 sum of bytes 0 to 55    64 A64 tail
//   record   0 u32 magic  4 A32 state (1 live, 2 struck out)  8 u64 bytes  16 u64 sum   64 payload
//
// Order: payload, sum and state of a record before the tail that reaches behind it (release), so
// that a process that dies between any two stores leaves whole records up to the tail. The sum
// (XXH3-64, seeded by offset and epoch) is for what order cannot promise. Whoever reads it trusts
// no number in it.
#ifndef KVASIR_DAEMON_HANDOVER_HANDOVER_INDEX_H_
#define KVASIR_DAEMON_HANDOVER_HANDOVER_INDEX_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/mapped_region.h"
#include "base/posix.h"
#include "index/chain_hasher.h"

namespace kvasir {

// Not thread-safe. Move-only by pointer; the memfd is unmapped and closed with it.
class HandoverIndex {
 public:
  struct Record {
    uint64_t at = 0;      // its offset, and its name
    std::string payload;  // copied out and verified
  };

  // An empty one; `bytes` is a page multiple, of which only what is written takes memory.
  // Errors: the kernel's.
  static absl::StatusOr<std::unique_ptr<HandoverIndex>> Create(uint64_t bytes, uint64_t layout,
                                                               const ChainHasher::Secret& secret,
                                                               uint64_t epoch);
  // One of a process before, which nobody writes any more. Errors: kDataLoss naming the field that
  // is damaged, kFailedPrecondition for another version or layout; the kernel's.
  static absl::StatusOr<std::unique_ptr<HandoverIndex>> Open(UniqueFd fd, uint64_t layout);

  // Live records, the oldest first; those that are damaged are struck out and left out.
  std::vector<Record> Read();

  // Where the record lies. Errors: kResourceExhausted when it is full.
  absl::StatusOr<uint64_t> Append(std::string_view payload);
  // REQUIRES: Append() or Read() gave it, and it is not struck out.
  void Strike(uint64_t at);

  const UniqueFd& fd() const { return fd_; }
  const ChainHasher::Secret& secret() const { return secret_; }
  uint64_t epoch() const { return epoch_; }
  uint64_t bytes() const { return map_.bytes(); }
  uint64_t live_bytes() const { return live_bytes_; }
  uint64_t used_bytes() const;  // live and struck out

 private:
  HandoverIndex(UniqueFd fd, MappedRegion map) : fd_(std::move(fd)), map_(std::move(map)) {}

  uint64_t SumOf(uint64_t at, std::string_view payload) const;

  UniqueFd fd_;
  MappedRegion map_;
  ChainHasher::Secret secret_{};
  uint64_t epoch_ = 0;
  uint64_t tail_ = 0;  // ours; the one in the header is for readers
  uint64_t live_bytes_ = 0;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_HANDOVER_HANDOVER_INDEX_H_
