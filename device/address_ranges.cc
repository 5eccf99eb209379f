#include "device/address_ranges.h"

#include <iterator>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir::device {
namespace {

uint64_t Number(const std::byte* address) { return reinterpret_cast<uint64_t>(address); }

// From the first byte of the first row to the last byte of the last one; false: no such piece.
bool ExtentOf(uint64_t rows, uint64_t row_bytes, uint64_t stride, uint64_t* bytes) {
  if (rows == 0 || row_bytes == 0 || (rows > 1 && stride < row_bytes)) return false;
  uint64_t before = 0;
  return CheckedMultiply(rows - 1, stride, &before) &&
         !__builtin_add_overflow(before, row_bytes, bytes);
}

}  // namespace

absl::Status AddressRanges::Add(const std::byte* begin, uint64_t bytes, Access access, bool host) {
  const uint64_t at = Number(begin);
  MutexLock lock(mutex_);
  const auto next = ranges_.lower_bound(at);
  const bool meets_next = next != ranges_.end() && next->first - at < bytes;
  const bool meets_last =
      next != ranges_.begin() && at - std::prev(next)->first < std::prev(next)->second.bytes;
  if (meets_next || meets_last) {
    return InvalidArgument("memory is known to the device already: address={:#x} bytes={}", at,
                           bytes);
  }
  ranges_.emplace_hint(next, at, Range{bytes, access, host});
  return absl::OkStatus();
}

void AddressRanges::Remove(const std::byte* begin) {
  MutexLock lock(mutex_);
  KVASIR_CHECK(ranges_.erase(Number(begin)) == 1, "a range that was never added");
}

AddressRanges::Found AddressRanges::FindLocked(const std::byte* begin, uint64_t bytes,
                                               bool host_only) const {
  const uint64_t at = Number(begin);
  auto range = ranges_.upper_bound(at);
  if (range == ranges_.begin()) return Found::kNothing;
  --range;
  const uint64_t offset = at - range->first;
  if (offset > range->second.bytes || bytes > range->second.bytes - offset) return Found::kNothing;
  if (host_only && !range->second.host) return Found::kNothing;
  return range->second.access == Access::kReadWrite ? Found::kWritable : Found::kReadOnly;
}

absl::Status AddressRanges::CheckLocked(const char* call, uint64_t piece, const std::byte* dst,
                                        uint64_t dst_bytes, const std::byte* src,
                                        uint64_t src_bytes) const {
  if (FindLocked(src, src_bytes, false) == Found::kNothing) {
    return InvalidArgument(
        "{}: src lies in no extent and no registered memory: piece={} src={:#x} bytes={}", call,
        piece, Number(src), src_bytes);
  }
  const Found found = FindLocked(dst, dst_bytes, false);
  if (found == Found::kNothing) {
    return InvalidArgument(
        "{}: dst lies in no extent and no registered memory: piece={} dst={:#x} bytes={}", call,
        piece, Number(dst), dst_bytes);
  }
  if (found == Found::kReadOnly) {
    return FailedPrecondition("{}: dst is read-only: piece={} dst={:#x} bytes={}", call, piece,
                              Number(dst), dst_bytes);
  }
  return absl::OkStatus();
}

absl::Status AddressRanges::Check(std::span<const CopyPiece> pieces) const {
  MutexLock lock(mutex_);
  for (uint64_t i = 0; i < pieces.size(); ++i) {
    const CopyPiece& piece = pieces[i];
    if (piece.bytes == 0) return InvalidArgument("Copy: bytes is 0: piece={} bytes_min=1", i);
    KVASIR_RETURN_IF_ERROR(CheckLocked("Copy", i, piece.dst, piece.bytes, piece.src, piece.bytes));
  }
  return absl::OkStatus();
}

absl::Status AddressRanges::Check(std::span<const StridedPiece> pieces) const {
  MutexLock lock(mutex_);
  for (uint64_t i = 0; i < pieces.size(); ++i) {
    const StridedPiece& piece = pieces[i];
    uint64_t dst_bytes = 0, src_bytes = 0;
    if (!ExtentOf(piece.rows, piece.row_bytes, piece.dst_stride, &dst_bytes) ||
        !ExtentOf(piece.rows, piece.row_bytes, piece.src_stride, &src_bytes)) {
      return InvalidArgument(
          "CopyStrided: rows and row_bytes are at least 1, strides at least row_bytes: piece={} "
          "rows={} row_bytes={} dst_stride={} src_stride={}",
          i, piece.rows, piece.row_bytes, piece.dst_stride, piece.src_stride);
    }
    KVASIR_RETURN_IF_ERROR(
        CheckLocked("CopyStrided", i, piece.dst, dst_bytes, piece.src, src_bytes));
  }
  return absl::OkStatus();
}

absl::Status AddressRanges::CheckWord(const char* call, const DeviceWord& word) const {
  const auto* const address = reinterpret_cast<const std::byte*>(&word);
  if (Number(address) % sizeof(word) != 0) {
    return InvalidArgument("{}: word is not aligned: address={:#x} alignment=8", call,
                           Number(address));
  }
  MutexLock lock(mutex_);
  const Found found = FindLocked(address, sizeof(word), true);
  if (found == Found::kNothing) {
    return InvalidArgument("{}: word lies in no registered memory: address={:#x}", call,
                           Number(address));
  }
  if (found == Found::kReadOnly) {
    return FailedPrecondition("{}: word is registered read-only: address={:#x}", call,
                              Number(address));
  }
  return absl::OkStatus();
}

}  // namespace kvasir::device
