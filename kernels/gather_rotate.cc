// GatherRotateRows: the angles of a delta are made once and serve all heads of the row.
#include <algorithm>

#include "base/check.h"
#include "kernels/gather.h"
#include "kernels/rope_angles.h"
#include "kernels/row_convert.h"
#include "kernels/scratch.h"
#include "kernels/turn_row.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gather_rotate.cc"
#include <hwy/foreach_target.h>
// Behind foreach_target.h, which decides what these are compiled for.
#include "kernels/copy_row-inl.h"
#include "kernels/rotate_head-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvasir::kernels::HWY_NAMESPACE {
namespace {

#if KVASIR_VECTOR_TARGET

// Bytes of a row that are prefetched at once.
constexpr size_t kSmallRow = 512;

// Prefetches rows on their way: far ones into the second-level cache, near ones from there.
struct RowsAhead {
  HWY_INLINE void Prefetch(size_t row, size_t at, size_t bytes) const {
    // Over small gaps these were measured to cost more than they bring. It is the mean gap that
    // counts: among gaps of many sizes the rows behind the small ones come as late as the others.
    if (row + far < sources.size() &&
        (reinterpret_cast<uintptr_t>(sources[row + far]) -
         reinterpret_cast<uintptr_t>(sources[row])) > far * kSmallStep) {
      PrefetchRow(sources[row + far] + at, bytes);
    }
    if (row + near < sources.size()) {
      PrefetchNear(sources[row + near] + at, bytes);
    }
  }
  static constexpr size_t kSmallStep = 512;
  std::span<const std::byte* const> sources;
  size_t far, near;  // rows ahead
};

RopeAngles& ThreadAngles(RopePairing pairing) {
  thread_local RopeAngles interleaved, halves;
  return pairing == RopePairing::kInterleaved ? interleaved : halves;
}

// What the loops over rows have in common.
struct Job {
  const RopeShape& shape;
  std::span<const std::byte* const> sources;
  std::span<const int64_t> deltas;
  std::byte* destination;
};

// tail: factors of the pairs behind the last whole vector.
template <class T, bool kStream, RopePairing kPairing, size_t kHeads, class Source>
HWY_INLINE void RotateHeads(const RopeShape& shape, size_t pairs, const Heads& heads,
                            const Source& source, const Factors& tail) {
  const size_t done = kPairing == RopePairing::kInterleaved
                          ? RotateInterleaved<T, kStream, kHeads>(pairs, heads, source)
                          : RotateHalves<T, kStream, kHeads>(pairs, heads, source);
  const size_t rotated = 2 * pairs * sizeof(T);
  if (HWY_UNLIKELY(done < pairs || rotated < heads.bytes)) {
    for (size_t head = 0; head < kHeads; ++head) {
      const std::byte* from = heads.from + head * heads.bytes;
      std::byte* to = heads.to + head * heads.bytes;
      RotateTail<kPairing>(shape.type, pairs, from, tail, done, to);
      CopyRow<false>(from + rotated, heads.bytes - rotated, to + rotated);
    }
  }
}

// Rows of one or two heads: products are made anew for each row, which is cheaper than a way
// through memory.
template <class T, bool kStream, RopePairing kPairing, size_t kHeads>
HWY_NOINLINE void RotateFewHeads(const Job& job, RopeAngles& angles) {
  const auto [shape, sources, deltas, destination] = job;
  const size_t pairs = shape.rotated_dims / 2;
  const size_t whole = pairs / kLanes * kLanes;
  float* scratch = Scratch(2 * pairs + 1);
  const Factors tail = {.cosine = scratch, .sine = scratch + pairs, .doubled = nullptr};
  const size_t head_bytes = shape.head_dim * sizeof(T);
  const size_t row_bytes = head_bytes * kHeads;
  const RowsAhead rows{sources, kAheadBytes / row_bytes + 1, kNearBytes / row_bytes + 1};
  for (size_t row = 0; row < sources.size(); ++row) {
    std::byte* to = destination + row * row_bytes;
    rows.Prefetch(row, 0, row_bytes);
    if (deltas[row] == 0) {
      CopyRow<kStream>(sources[row], row_bytes, to);
      continue;
    }
    const RopeAngles::Turn turn = angles.Of(deltas[row], MultiplyTurns);
    if (whole < pairs) {
      MakeTail(turn, pairs, whole, tail);
    }
    RotateHeads<T, kStream, kPairing, kHeads>(shape, pairs, {head_bytes, sources[row], to},
                                              ProductFactors{turn, pairs}, tail);
  }
}

template <class T, bool kStream, RopePairing kPairing>
HWY_NOINLINE void RotateManyHeads(const Job& job, RopeAngles& angles) {
  const auto [shape, sources, deltas, destination] = job;
  const size_t pairs = shape.rotated_dims / 2;
  float* scratch = Scratch(6 * pairs + 1);
  const Factors factors = {
      .cosine = scratch + 4 * pairs, .sine = scratch + 5 * pairs, .doubled = scratch};
  const size_t head_bytes = shape.head_dim * sizeof(T);
  const size_t row_bytes = head_bytes * shape.kv_heads;
  const RowsAhead rows{sources, kAheadBytes / row_bytes + 1, kNearBytes / row_bytes + 1};
  int64_t made = 0;
  for (size_t row = 0; row < sources.size(); ++row) {
    std::byte* to = destination + row * row_bytes;
    if (deltas[row] == 0) {
      rows.Prefetch(row, 0, row_bytes);
      CopyRow<kStream>(sources[row], row_bytes, to);
      continue;
    }
    if (made != deltas[row]) {
      made = deltas[row];
      MakeFactors<kPairing>(angles.Of(made, MultiplyTurns), pairs, factors);
    }
    if (row_bytes <= kSmallRow) {
      rows.Prefetch(row, 0, row_bytes);
    }
    for (size_t at = 0; at < row_bytes; at += head_bytes) {
      // Not a long row at once: so many requests would hold up the loads of this one.
      if (row_bytes > kSmallRow) {
        rows.Prefetch(row, at, head_bytes);
      }
      RotateHeads<T, kStream, kPairing, 1>(shape, pairs, {head_bytes, sources[row] + at, to + at},
                                           StoredFactors{factors, pairs}, factors);
    }
  }
}

template <class T, bool kStream, RopePairing kPairing>
void RotateRows(const Job& job) {
  RopeAngles& angles = ThreadAngles(kPairing);
  angles.Use(job.shape.theta, job.shape.rotated_dims, OrderOf(kPairing));
  if (job.shape.kv_heads == 1) {
    RotateFewHeads<T, kStream, kPairing, 1>(job, angles);
  } else if (job.shape.kv_heads == 2) {
    RotateFewHeads<T, kStream, kPairing, 2>(job, angles);
  } else {
    RotateManyHeads<T, kStream, kPairing>(job, angles);
  }
  if constexpr (kStream) {
    hwy::FlushStream();
  }
}

template <class T, bool kStream>
void RotateStored(const Job& job) {
  if (job.shape.pairing == RopePairing::kInterleaved) {
    RotateRows<T, kStream, RopePairing::kInterleaved>(job);
  } else {
    RotateRows<T, kStream, RopePairing::kHalfSplit>(job);
  }
}

template <class T>
void RotateTyped(const Job& job) {
  const RopeShape& shape = job.shape;
  const size_t head_bytes = shape.head_dim * sizeof(T);
  // Every pair of vectors of a head must be aligned, its second half included.
  const bool even =
      head_bytes % kCacheLine == 0 && shape.rotated_dims / 2 * sizeof(T) % kCacheLine == 0;
  if (even && WorthStreaming(job.destination, head_bytes, job.sources.size() * shape.kv_heads)) {
    RotateStored<T, true>(job);
  } else {
    RotateStored<T, false>(job);
  }
}

// In the order of halves whatever the pairing: the numbers are the same.
void MakeTurnsInOrder(const RopeShape& shape, std::span<const int64_t> deltas, float* to) {
  constexpr RopePairing kInOrder = RopePairing::kHalfSplit;
  RopeAngles& angles = ThreadAngles(kInOrder);
  angles.Use(shape.theta, shape.rotated_dims, OrderOf(kInOrder));
  const size_t pairs = shape.rotated_dims / 2;
  for (const int64_t delta : deltas) {
    MakeFactors<kInOrder>(angles.Of(delta, MultiplyTurns), pairs,
                          {.cosine = to, .sine = to + pairs, .doubled = nullptr});
    to += shape.rotated_dims;
  }
}

// Elements that no vector load has: one pair at a time, by the factors of the others.
void RotateByPairs(const Job& job) {
  const auto [shape, sources, deltas, destination] = job;
  float* factors = Scratch(shape.rotated_dims + 1);
  const size_t row_bytes = size_t{shape.kv_heads} * shape.head_dim * ElementBytes(shape.type);
  int64_t made = 0;
  for (size_t row = 0; row < sources.size(); ++row) {
    std::byte* to = destination + row * row_bytes;
    if (deltas[row] == 0) {
      CopyRow<false>(sources[row], row_bytes, to);
      continue;
    }
    if (made != deltas[row]) {
      made = deltas[row];
      MakeTurnsInOrder(shape, deltas.subspan(row, 1), factors);
    }
    TurnRow(shape, factors, sources[row], to);
  }
}
#endif  // KVASIR_VECTOR_TARGET

}  // namespace

void GatherRotateTarget(const RopeShape& shape, std::span<const std::byte* const> sources,
                        std::span<const int64_t> deltas, std::byte* destination) {
#if KVASIR_VECTOR_TARGET
  const Job job = {shape, sources, deltas, destination};
  switch (shape.type) {
    case RowType::kF16:
      return RotateTyped<hwy::float16_t>(job);
    case RowType::kBF16:
      return RotateTyped<hwy::bfloat16_t>(job);
    case RowType::kF32:
      return RotateTyped<float>(job);
    case RowType::kE4M3:
      return RotateByPairs(job);
  }
#endif
  scalar::GatherRotateRows(shape, sources, deltas, destination);
}

void MakeTurnsTarget(const RopeShape& shape, std::span<const int64_t> deltas, float* to) {
#if KVASIR_VECTOR_TARGET
  MakeTurnsInOrder(shape, deltas, to);
#else
  scalar::MakeTurns(shape, deltas, to);
#endif
}

}  // namespace kvasir::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvasir::kernels {

HWY_EXPORT(GatherRotateTarget);
HWY_EXPORT(MakeTurnsTarget);

void GatherRotateRows(const RopeShape& shape, std::span<const std::byte* const> sources,
                      std::span<const int64_t> deltas, std::byte* destination) {
  KVASIR_CHECK(deltas.size() == sources.size(), "{} rows with {} deltas", sources.size(),
               deltas.size());
  KVASIR_CHECK(shape.rotated_dims % 2 == 0 && shape.rotated_dims <= shape.head_dim,
               "{} rotated of {} dimensions", shape.rotated_dims, shape.head_dim);
  KVASIR_CHECK(shape.head_dim > 0 && shape.kv_heads > 0, "rows of no bytes");
  HWY_DYNAMIC_DISPATCH(GatherRotateTarget)(shape, sources, deltas, destination);
}

void MakeTurns(const RopeShape& shape, std::span<const int64_t> deltas, float* to) {
  KVASIR_CHECK(shape.rotated_dims % 2 == 0, "{} rotated dimensions", shape.rotated_dims);
  HWY_DYNAMIC_DISPATCH(MakeTurnsTarget)(shape, deltas, to);
}

}  // namespace kvasir::kernels
#endif  // HWY_ONCE
