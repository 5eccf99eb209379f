// Copying and prefetching of one row. Included once per Highway target, hence the toggled guard.
#if defined(KVASIR_KERNELS_COPY_ROW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVASIR_KERNELS_COPY_ROW_INL_H_
#undef KVASIR_KERNELS_COPY_ROW_INL_H_
#else
#define KVASIR_KERNELS_COPY_ROW_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <hwy/cache_control.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using ByteTag = hn::ScalableTag<uint8_t>;

// Destinations from here on do not fit the cache beside their sources: written past it.
constexpr uint64_t kStreamBytes = uint64_t{1} << 20U;
constexpr uint64_t kCacheLine = 64;
// Source bytes requested ahead, about what one core keeps in flight.
constexpr uint64_t kAheadBytes = 8192;
// The same for PrefetchNear.
constexpr uint64_t kNearBytes = 2048;

// Into the second-level cache: on a Zen 4 prefetches into the first one cost a quarter of the
// speed, perhaps because they keep the processor from prefetching the rest of the row by itself.
HWY_INLINE void PrefetchRow(const std::byte* row, uint64_t bytes) {
  for (uint64_t at = 0; at < bytes; at += kCacheLine) {
    __builtin_prefetch(row + at, 0, 2);
  }
}

// Into the first-level cache: where a row takes long to work on, of what PrefetchRow brought near.
HWY_INLINE void PrefetchNear(const std::byte* row, uint64_t bytes) {
  for (uint64_t at = 0; at < bytes; at += kCacheLine) {
    hwy::Prefetch(row + at);
  }
}

// Whether all rows may be written with aligned streaming stores, and are enough to gain by it.
HWY_INLINE bool WorthStreaming(const std::byte* destination, uint64_t row_bytes, uint64_t rows) {
  const uint64_t vector_bytes = hn::Lanes(ByteTag());
  return reinterpret_cast<uintptr_t>(destination) % vector_bytes == 0 &&
         row_bytes % vector_bytes == 0 && rows * row_bytes >= kStreamBytes;
}

// Whole vectors, then the rest in halving pieces: each source byte is read once.
template <bool kStream>
HWY_INLINE void CopyRow(const std::byte* from, uint64_t bytes, std::byte* to) {
  const ByteTag d;
  const size_t lanes = hn::Lanes(d);
  const auto* source = reinterpret_cast<const uint8_t*>(from);
  auto* target = reinterpret_cast<uint8_t*>(to);
  uint64_t at = 0;
  for (; at + lanes <= bytes; at += lanes) {
    const auto vec = hn::LoadU(d, source + at);
    if constexpr (kStream) {
      hn::Stream(vec, d, target + at);
    } else {
      hn::StoreU(vec, d, target + at);
    }
  }
  for (size_t piece = lanes / 2; piece > 0; piece /= 2) {
    if ((bytes & piece) != 0) {
      std::memcpy(target + at, source + at, piece);
      at += piece;
    }
  }
}

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVASIR_KERNELS_COPY_ROW_INL_H_
