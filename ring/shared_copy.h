// Copies out of memory that a peer may write at the same time: each word is loaded once, and what
// is judged later is the copy. Relaxed atomic loads, so that no compiler reads the source again.
//
// Sources are 8-byte aligned and reach to the next multiple of 8.
#ifndef KVASIR_RING_SHARED_COPY_H_
#define KVASIR_RING_SHARED_COPY_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace kvasir::ring {

inline void CopyFromShared(std::byte* to, const std::byte* from, size_t bytes) {
  const auto* const words = reinterpret_cast<const uint64_t*>(from);
  const size_t whole = bytes / 8;
  for (size_t i = 0; i < whole; ++i) {
    const uint64_t word = __atomic_load_n(words + i, __ATOMIC_RELAXED);
    std::memcpy(to + 8 * i, &word, 8);
  }
  if (bytes % 8 != 0) {
    const uint64_t word = __atomic_load_n(words + whole, __ATOMIC_RELAXED);
    std::memcpy(to + 8 * whole, &word, bytes % 8);
  }
}

template <typename Struct>
Struct CopyStructFromShared(const std::byte* from) {
  Struct copy;
  CopyFromShared(reinterpret_cast<std::byte*>(&copy), from, sizeof(copy));
  return copy;
}

// Entry by entry; the peer looks at it only after a release store that follows.
template <typename Struct>
void CopyStructToShared(std::byte* to, const Struct& from) {
  uint64_t words[sizeof(Struct) / 8];
  static_assert(sizeof(words) == sizeof(from));
  std::memcpy(words, &from, sizeof(words));
  for (size_t i = 0; i < sizeof(Struct) / 8; ++i) {
    __atomic_store_n(reinterpret_cast<uint64_t*>(to) + i, words[i], __ATOMIC_RELAXED);
  }
}

// `to.size()` bytes from `off` on of an area whose end is followed by its start.
// REQUIRES: to.size() <= area_bytes, off < area_bytes, both areas' multiples as above.
inline void CopyFromArea(std::span<std::byte> to, const std::byte* area, uint32_t area_bytes,
                         uint32_t off) {
  const size_t first = std::min<size_t>(to.size(), area_bytes - off);
  CopyFromShared(to.data(), area + off, first);
  CopyFromShared(to.data() + first, area, to.size() - first);
}

// Writes pieces one behind the other into such an area; returns the offset behind them. The peer
// looks only after a release store that follows.
inline uint32_t CopyToArea(std::byte* area, uint32_t area_bytes, uint32_t off,
                           std::span<const std::byte> piece) {
  const size_t first = std::min<size_t>(piece.size(), area_bytes - off);
  if (first > 0) std::memcpy(area + off, piece.data(), first);
  if (first < piece.size()) std::memcpy(area, piece.data() + first, piece.size() - first);
  return static_cast<uint32_t>((off + piece.size()) % area_bytes);
}

}  // namespace kvasir::ring

#endif  // KVASIR_RING_SHARED_COPY_H_
