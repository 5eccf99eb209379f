// The CPU walks the grid: blocks in order, and in each phase of a block its threads in order.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

#include "kernels/cuda/convert_rows-inl.h"
#include "kernels/cuda/copy_rows-inl.h"
#include "kernels/cuda/dot_keys-inl.h"
#include "kernels/cuda/int_decode-inl.h"
#include "kernels/cuda/int_encode-inl.h"
#include "kernels/cuda/move_planes-inl.h"
#include "kernels/cuda/pool_scores-inl.h"
#include "kernels/cuda/rotate_rows-inl.h"
#include "kernels/cuda/top_k-inl.h"
#include "kernels/cuda/window_mass-inl.h"
#include "tests/kernels/cuda/machine.h"

namespace kvasir::kernels::cuda::machine {
namespace {

// Calls body(block, thread) for all threads of all blocks.
template <class Body>
void Walk(uint64_t blocks, const Body& body) {
  for (uint64_t block = 0; block < blocks; ++block) {
    for (uint32_t thread = 0; thread < kThreads; ++thread) {
      body(block, thread);
    }
  }
}

// Calls phase(thread) for all threads of a block.
template <class Phase>
void WalkBlock(const Phase& phase) {
  for (uint32_t thread = 0; thread < kThreads; ++thread) {
    phase(thread);
  }
}

}  // namespace

std::string Missing() { return {}; }

// Exact sizes, so that a sanitizer sees what lies outside.
std::byte* Allocate(size_t bytes) {
  void* at = nullptr;
  if (posix_memalign(&at, 256, bytes) != 0) {
    std::abort();
  }
  return static_cast<std::byte*>(at);
}
void Free(std::byte* at) { std::free(at); }
void Upload(std::byte* to, const void* from, size_t bytes) {
  if (bytes > 0) {
    std::memcpy(to, from, bytes);
  }
}
void Download(void* to, const std::byte* from, size_t bytes) {
  if (bytes > 0) {
    std::memcpy(to, from, bytes);
  }
}

absl::Status Execute(const RowCopy& copy) {
  absl::Status checked = CheckRowCopy(copy);
  if (checked.ok()) {
    Walk(CopyBlocks(copy),
         [&](uint64_t block, uint32_t thread) { CopyRowsThread(copy, block, thread); });
  }
  return checked;
}

absl::Status Execute(const PlaneMove& move) {
  absl::Status checked = CheckPlaneMove(move);
  if (checked.ok()) {
    Walk(PlaneBlocks(move),
         [&](uint64_t block, uint32_t thread) { MovePlanesThread(move, block, thread); });
  }
  return checked;
}

absl::Status Execute(const RowRotation& rotation) {
  absl::Status checked = CheckRowRotation(rotation);
  if (checked.ok()) {
    Walk(RotateBlocks(rotation), [&](uint64_t block, uint32_t thread) {
      RotateRowsThread(rotation, rotation.shape.type, block, thread);
    });
  }
  return checked;
}

absl::Status Execute(const RecordEncoding& encoding) {
  absl::Status checked = CheckRecordEncoding(encoding);
  for (uint64_t block = 0; checked.ok() && block < EncodeBlocks(encoding); ++block) {
    std::vector<float> shared(EncodeSharedFloats(encoding.shape));
    const EncodeBlock in(encoding, block, shared.data());
    WalkBlock([&](uint32_t thread) { EncodeLoad(in, encoding.shape.type, thread); });
    WalkBlock([&](uint32_t thread) { EncodeTurn(in, thread); });
    WalkBlock([&](uint32_t thread) { EncodeScale(in, thread); });
    WalkBlock([&](uint32_t thread) { EncodeCodes(in, thread); });
  }
  return checked;
}

absl::Status Execute(const RecordDecoding& decoding) {
  absl::Status checked = CheckRecordDecoding(decoding);
  if (checked.ok()) {
    Walk(CeilDivide(DecodeChunks(decoding), kThreads), [&](uint64_t block, uint32_t thread) {
      DecodeThread(decoding, decoding.type, block, thread);
    });
  }
  return checked;
}

absl::Status Execute(const RowConversion& conversion) {
  absl::Status checked = CheckRowConversion(conversion);
  if (checked.ok()) {
    Walk(CeilDivide(ConvertChunks(conversion), kThreads), [&](uint64_t block, uint32_t thread) {
      ConvertThread(conversion, conversion.from_type, conversion.to_type, block, thread);
    });
  }
  return checked;
}

absl::Status Execute(const KeyDots& dots) {
  absl::Status checked = CheckKeyDots(dots);
  for (uint64_t row = 0; checked.ok() && row < dots.rows; ++row) {
    std::array<float, kWarp> sums;
    for (uint32_t lane = 0; lane < kWarp; ++lane) {
      sums[lane] = DotLane(dots, dots.shape.type, row, lane);
    }
    for (uint32_t ahead = kWarp / 2; ahead > 0; ahead /= 2) {
      for (uint32_t lane = 0; lane < ahead; ++lane) {
        sums[lane] += sums[lane + ahead];
      }
    }
    dots.out[row] = sums[0];
  }
  return checked;
}

absl::Status Execute(const KeyMass& mass) {
  KeyMass with = mass;
  std::vector<float> scratch(MassScratch(mass));
  with.scratch = scratch.data();
  absl::Status checked = CheckKeyMass(with);
  if (!checked.ok() || mass.rows == 0) {
    return checked;
  }
  for (uint64_t block = 0; block < ScoreBlocks(with); ++block) {
    std::vector<float> queries(kScoreShared);
    WalkBlock([&](uint32_t thread) { ScoreLoad(with, block, thread, queries.data()); });
    WalkBlock(
        [&](uint32_t thread) { ScoreKey(with, with.shape.type, block, thread, queries.data()); });
  }
  for (uint32_t query = 0; query < MassQueries(with); ++query) {
    SoftmaxShared shared = {};
    WalkBlock([&](uint32_t thread) { SoftmaxMost(with, query, thread, shared); });
    for (uint32_t half = kThreads / 2; half > 0; half /= 2) {
      WalkBlock([&](uint32_t thread) { FoldMost(half, thread, shared); });
    }
    WalkBlock([&](uint32_t thread) { SoftmaxSum(with, query, thread, shared); });
    for (uint32_t half = kThreads / 2; half > 0; half /= 2) {
      WalkBlock([&](uint32_t thread) { FoldSum(half, thread, shared); });
    }
    WalkBlock([&](uint32_t thread) { SoftmaxStore(with, query, thread, shared); });
  }
  Walk(CeilDivide(with.heads * with.rows, kThreads),
       [&](uint64_t block, uint32_t thread) { SumMass(with, block, thread); });
  return checked;
}

absl::Status Execute(const ScorePooling& pooling) {
  absl::Status checked = CheckScorePooling(pooling);
  if (checked.ok()) {
    Walk(CeilDivide(pooling.lists * pooling.size, kThreads),
         [&](uint64_t block, uint32_t thread) { PoolThread(pooling, block, thread); });
  }
  return checked;
}

// Sorts that are stable, as CUB's are, stand for it.
absl::Status Execute(const ScoreSelection& selection) {
  ScoreSelection with = selection;
  alignas(kScratchAlignment) std::byte scratch{};
  with.scratch = &scratch;
  absl::Status checked = CheckScoreSelection(with);
  if (!checked.ok()) {
    return checked;
  }
  std::vector<uint32_t> orders(with.size), indices(with.size);
  Walk(CeilDivide(with.size, kThreads), [&](uint64_t block, uint32_t thread) {
    OrderThread(with, block, thread, orders.data(), indices.data());
  });
  std::stable_sort(indices.begin(), indices.end(),
                   [&](uint32_t a, uint32_t b) { return orders[a] > orders[b]; });
  indices.resize(with.k);
  std::sort(indices.begin(), indices.end());
  std::copy(indices.begin(), indices.end(), with.out);
  return checked;
}

}  // namespace kvasir::kernels::cuda::machine
