#include "device/address_ranges.h"

#include <iterator>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kernels/gather.h"
#include "kernels/row_convert.h"

namespace kvasir::device {
namespace {

// Of gathered rows: those of the kernels.
constexpr uint64_t kRowBytesMax = uint64_t{1} << 30;
constexpr uint32_t kHeadsMax = 1U << 12U;
constexpr uint32_t kHeadDimMax = 1U << 16U;

uint64_t Number(const std::byte* address) { return reinterpret_cast<uint64_t>(address); }

// From the first byte of the first row to the last byte of the last one; false: no such piece.
bool ExtentOf(uint64_t rows, uint64_t row_bytes, uint64_t stride, uint64_t* bytes) {
  if (rows == 0 || row_bytes == 0 || (rows > 1 && stride < row_bytes)) return false;
  uint64_t before = 0;
  return CheckedMultiply(rows - 1, stride, &before) &&
         !__builtin_add_overflow(before, row_bytes, bytes);
}

template <class Range>
bool Holds(const Range& range, uint64_t at, uint64_t bytes) {
  const uint64_t offset = at - range.first;  // wraps where it begins behind
  return offset <= range.second.bytes && bytes <= range.second.bytes - offset;
}

absl::Status CheckRope(uint64_t number, uint64_t row_bytes, const kernels::RopeShape& rope) {
  if (rope.type < kernels::RowType::kF16 || rope.type > kernels::RowType::kE4M3) {
    return InvalidArgument("GatherRows: row type unknown: gather={} type={} max=3", number,
                           static_cast<int>(rope.type));
  }
  if (rope.kv_heads > kHeadsMax || rope.head_dim > kHeadDimMax) {
    return InvalidArgument(
        "GatherRows: rope out of bounds: gather={} kv_heads={} max={} head_dim={} max={}", number,
        rope.kv_heads, kHeadsMax, rope.head_dim, kHeadDimMax);
  }
  const uint64_t expected =
      uint64_t{rope.kv_heads} * rope.head_dim * kernels::ElementBytes(rope.type);
  if (row_bytes != expected) {
    return InvalidArgument(
        "GatherRows: rope is of rows of another size: gather={} row_bytes={} expected={}", number,
        row_bytes, expected);
  }
  if (rope.rotated_dims % 2 != 0 || rope.rotated_dims > rope.head_dim) {
    return InvalidArgument(
        "GatherRows: rotated_dims out of bounds: gather={} rotated_dims={} max={} multiple_of=2",
        number, rope.rotated_dims, rope.head_dim);
  }
  return absl::OkStatus();
}

// Whether sizes and turns of a gather fit each other.
absl::Status CheckShapes(uint64_t number, const RowGather& gather) {
  if (gather.row_bytes == 0 || gather.row_bytes > kRowBytesMax) {
    return InvalidArgument(
        "GatherRows: row_bytes out of bounds: gather={} row_bytes={} min=1 max={}", number,
        gather.row_bytes, kRowBytesMax);
  }
  uint64_t turns = 0, element = 1;
  if (gather.rope != nullptr) {
    KVASIR_RETURN_IF_ERROR(CheckRope(number, gather.row_bytes, *gather.rope));
    const uint64_t dims = gather.rope->rotated_dims;
    turns = dims > 0 ? gather.turns.size() / dims : 0;
    element = kernels::ElementBytes(gather.rope->type);
  }
  for (uint64_t row = 0; row < gather.rows.size(); ++row) {
    const auto& [dst, src, turn] = gather.rows[row];
    if (turn != kNoTurn && turn >= turns) {
      return InvalidArgument(
          "GatherRows: there is no such turn: gather={} row={} turn={} turns={} has_rope={}",
          number, row, turn, turns, gather.rope != nullptr);
    }
    if ((Number(dst) | Number(src)) % element != 0) {
      return InvalidArgument(
          "GatherRows: elements are not aligned: gather={} row={} dst={:#x} src={:#x} element={}",
          number, row, Number(dst), Number(src), element);
    }
  }
  return absl::OkStatus();
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

AddressRanges::Ranges::const_iterator AddressRanges::HolderLocked(const std::byte* begin,
                                                                  uint64_t bytes) const {
  const uint64_t at = Number(begin);
  auto range = ranges_.upper_bound(at);
  if (range == ranges_.begin()) return ranges_.end();
  --range;
  return Holds(*range, at, bytes) ? range : ranges_.end();
}

AddressRanges::Found AddressRanges::FindLocked(const std::byte* begin, uint64_t bytes,
                                               bool host_only) const {
  const auto range = HolderLocked(begin, bytes);
  if (range == ranges_.end()) return Found::kNothing;
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

absl::Status AddressRanges::Check(std::span<const RowGather> gathers) const {
  for (uint64_t i = 0; i < gathers.size(); ++i) {
    KVASIR_RETURN_IF_ERROR(CheckShapes(i, gathers[i]));
  }
  MutexLock lock(mutex_);
  auto src_in = ranges_.end(), dst_in = ranges_.end();
  for (uint64_t i = 0; i < gathers.size(); ++i) {
    const uint64_t bytes = gathers[i].row_bytes;
    for (uint64_t row = 0; row < gathers[i].rows.size(); ++row) {
      const RowMove& move = gathers[i].rows[row];
      if (src_in == ranges_.end() || !Holds(*src_in, Number(move.src), bytes)) {
        src_in = HolderLocked(move.src, bytes);
      }
      if (dst_in == ranges_.end() || !Holds(*dst_in, Number(move.dst), bytes)) {
        dst_in = HolderLocked(move.dst, bytes);
      }
      if (src_in == ranges_.end() || dst_in == ranges_.end()) {
        return InvalidArgument(
            "GatherRows: {} lies in no extent and no registered memory: gather={} row={} src={:#x} "
            "dst={:#x} bytes={}",
            src_in == ranges_.end() ? "src" : "dst", i, row, Number(move.src), Number(move.dst),
            bytes);
      }
      if (dst_in->second.access == Access::kReadOnly) {
        return FailedPrecondition("GatherRows: dst is read-only: gather={} row={} dst={:#x}", i,
                                  row, Number(move.dst));
      }
    }
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
