// What threads of MassOfWindow() do, in three launches: scores of every query and key; largest
// score and sum of exponentials of every query; sums over queries. Where threads of a block wait
// for each other there is a function for each phase.
#ifndef KVASIR_KERNELS_CUDA_WINDOW_MASS_INL_H_
#define KVASIR_KERNELS_CUDA_WINDOW_MASS_INL_H_

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/cuda/element-inl.h"
#include "kernels/cuda/grid.h"
#include "kernels/cuda/key_shape.h"
#include "kernels/cuda/window_mass.h"

namespace kvasir::kernels::cuda {

inline constexpr uint32_t kTileQueries = 16;  // of a block of scores: sums in registers
inline constexpr uint32_t kScoreShared = kTileQueries * kKeyDimMax;  // floats

KVASIR_HOST_DEVICE inline uint32_t MassQueries(const KeyMass& mass) {
  return mass.heads * mass.window;
}
KVASIR_HOST_DEVICE inline uint32_t QueryTiles(const KeyMass& mass) {
  return static_cast<uint32_t>(CeilDivide(MassQueries(mass), kTileQueries));
}
KVASIR_HOST_DEVICE inline uint64_t ScoreBlocks(const KeyMass& mass) {
  return CeilDivide(mass.rows, kThreads) * QueryTiles(mass);
}

// Rows that a query sees.
KVASIR_HOST_DEVICE inline uint64_t VisibleTo(const KeyMass& mass, uint32_t query) {
  const uint32_t ahead = mass.window - 1 - query % mass.window;
  return mass.rows > ahead ? mass.rows - ahead : 0;
}

// --- scores: blocks of the same keys follow each other ---

KVASIR_HOST_DEVICE inline void ScoreLoad(const KeyMass& mass, uint64_t block, uint32_t thread,
                                         float* shared) {
  const uint32_t dim = mass.shape.dim;
  const auto first = static_cast<uint32_t>(block % QueryTiles(mass)) * kTileQueries;
  const uint32_t left = MassQueries(mass) - first;
  for (uint32_t i = thread; i < kTileQueries * dim; i += kThreads) {
    shared[i] = i / dim < left ? mass.q[uint64_t{first} * dim + i] : 0.0F;
  }
}

KVASIR_HOST_DEVICE inline void ScoreKey(const KeyMass& mass, RowType type, uint64_t block,
                                        uint32_t thread, const float* shared) {
  const uint32_t dim = mass.shape.dim;
  const uint64_t row = block / QueryTiles(mass) * kThreads + thread;
  if (row >= mass.rows) {
    return;
  }
  const std::byte* key = mass.keys.At(row);
  float sums[kTileQueries] = {};
  for (uint32_t at = 0; at < dim; at += 8) {
    const Eight eight = LoadEight(type, key + uint64_t{at} * ElementBytes(type), dim - at);
    KVASIR_DEVICE_UNROLL
    for (uint32_t query = 0; query < kTileQueries; ++query) {
      KVASIR_DEVICE_UNROLL
      for (uint32_t i = 0; i < 8; ++i) {
        if (at + i < dim) {
          sums[query] = std::fma(shared[query * dim + at + i], eight.x[i], sums[query]);
        }
      }
    }
  }
  const auto first = static_cast<uint32_t>(block % QueryTiles(mass)) * kTileQueries;
  KVASIR_DEVICE_UNROLL
  for (uint32_t query = 0; query < kTileQueries; ++query) {
    if (first + query < MassQueries(mass)) {
      const float score = sums[query] * mass.scale;
      constexpr float kMost = std::numeric_limits<float>::max();
      mass.scratch[(first + query) * mass.rows + row] = kMost < score ? kMost : score;
    }
  }
}

// --- what a softmax needs: a block has a query ---

struct SoftmaxShared {
  float most[kThreads];
  float sum[kThreads];
};

KVASIR_HOST_DEVICE inline void SoftmaxMost(const KeyMass& mass, uint32_t query, uint32_t thread,
                                           SoftmaxShared& shared) {
  const uint64_t visible = VisibleTo(mass, query);
  float most = std::numeric_limits<float>::lowest();
  for (uint64_t row = thread; row < visible; row += kThreads) {
    const float score = mass.scratch[query * mass.rows + row];
    most = most < score ? score : most;
  }
  shared.most[thread] = most;
}

// For half = kThreads / 2, / 4, ... 1, each a phase.
KVASIR_HOST_DEVICE inline void FoldMost(uint32_t half, uint32_t thread, SoftmaxShared& shared) {
  if (thread < half && shared.most[thread] < shared.most[thread + half]) {
    shared.most[thread] = shared.most[thread + half];
  }
}

KVASIR_HOST_DEVICE inline void SoftmaxSum(const KeyMass& mass, uint32_t query, uint32_t thread,
                                          SoftmaxShared& shared) {
  const uint64_t visible = VisibleTo(mass, query);
  float sum = 0;
  for (uint64_t row = thread; row < visible; row += kThreads) {
    sum += std::exp(mass.scratch[query * mass.rows + row] - shared.most[0]);
  }
  shared.sum[thread] = sum;
}

KVASIR_HOST_DEVICE inline void FoldSum(uint32_t half, uint32_t thread, SoftmaxShared& shared) {
  if (thread < half) {
    shared.sum[thread] += shared.sum[thread + half];
  }
}

KVASIR_HOST_DEVICE inline void SoftmaxStore(const KeyMass& mass, uint32_t query, uint32_t thread,
                                            const SoftmaxShared& shared) {
  if (thread == 0) {
    float* of_queries = mass.scratch + MassQueries(mass) * mass.rows;
    of_queries[query] = shared.most[0];
    of_queries[MassQueries(mass) + query] = shared.sum[0];
  }
}

// --- sums over the queries of a head ---

KVASIR_HOST_DEVICE inline void SumMass(const KeyMass& mass, uint64_t block, uint32_t thread) {
  const uint64_t item = block * kThreads + thread;
  const uint64_t head = item / mass.rows;
  const uint64_t row = item - head * mass.rows;
  if (head >= mass.heads) {
    return;
  }
  const float* of_queries = mass.scratch + MassQueries(mass) * mass.rows;
  float sum = 0;
  for (uint32_t i = 0; i < mass.window; ++i) {
    const auto query = static_cast<uint32_t>(head) * mass.window + i;
    if (row < VisibleTo(mass, query)) {
      const float score = mass.scratch[query * mass.rows + row];
      sum += std::exp(score - of_queries[query]) / of_queries[MassQueries(mass) + query];
    }
  }
  mass.out[item] = sum;
}

}  // namespace kvasir::kernels::cuda

#endif  // KVASIR_KERNELS_CUDA_WINDOW_MASS_INL_H_
