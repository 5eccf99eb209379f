// GatherRows, GatherPieces: copies with the next rows prefetched; a large destination is written
// past the caches.
#include "kernels/gather.h"

#include <algorithm>

#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gather.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what it is compiled for.
#include "kernels/copy_row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {

template <bool kStream>
void CopyRows(std::span<const std::byte* const> sources, uint64_t row_bytes, std::byte* destination,
              uint64_t stride) {
  const size_t ahead = static_cast<size_t>(kAheadBytes / row_bytes + 1);
  for (size_t row = 0; row < sources.size(); ++row) {
    if (row + ahead < sources.size()) {
      PrefetchRow(sources[row + ahead], row_bytes);
    }
    CopyRow<kStream>(sources[row], row_bytes, destination + row * stride);
  }
  if constexpr (kStream) {
    hwy::FlushStream();
  }
}

void GatherTarget(std::span<const std::byte* const> sources, uint64_t row_bytes,
                  std::byte* destination, uint64_t stride, uint64_t all_bytes) {
  // Half a cache line written past the caches costs a whole one.
  const bool whole =
      stride == row_bytes || (stride % kCacheLine == 0 && row_bytes % kCacheLine == 0);
  const uint64_t rows = std::max<uint64_t>(sources.size(), all_bytes / row_bytes);
  if (whole && WorthStreaming(destination, row_bytes, rows)) {
    CopyRows<true>(sources, row_bytes, destination, stride);
  } else {
    CopyRows<false>(sources, row_bytes, destination, stride);
  }
}

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels {

HWY_EXPORT(GatherTarget);

void GatherRows(std::span<const std::byte* const> sources, uint64_t row_bytes,
                std::byte* destination, uint64_t all_bytes) {
  KVASIR_CHECK(row_bytes > 0, "gathering rows of no bytes");
  HWY_DYNAMIC_DISPATCH(GatherTarget)(sources, row_bytes, destination, row_bytes, all_bytes);
}

void GatherPieces(std::span<const std::byte* const> sources, uint64_t piece_bytes,
                  std::byte* destination, uint64_t stride) {
  KVASIR_CHECK(piece_bytes > 0 && stride >= piece_bytes, "pieces of {} bytes at a stride of {}",
               piece_bytes, stride);
  HWY_DYNAMIC_DISPATCH(GatherTarget)(sources, piece_bytes, destination, stride, 0);
}

}  // namespace kvasir::kernels
#endif  // HWY_ONCE
