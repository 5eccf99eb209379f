// Kernels beside the plain pass over memory that bounds them, both timed in turn in the same run.
//
// Attention has the shape of a 135M model: 30 layers, 9 query heads on 3 kv heads of 64 dimensions,
// f16 rows of 384 bytes in blocks of 64. Layers are visited in turn, so a long context comes from
// memory. `of_read` is the speed as a share of reading the same bytes once, `of_memcpy` of copying
// the kept ones.
#include <algorithm>
#include <cstring>
#include <vector>

#include <benchmark/benchmark.h>

#include "bench/google_report.h"
#include "bench/kernel_data.h"
#include "kernels/attention.h"
#include "kernels/gather.h"

namespace kvasir::kernels {
namespace {

constexpr size_t kLayers = 30;
constexpr uint32_t kKvHeads = 3;
constexpr uint32_t kShared = 3;
constexpr uint32_t kDim = 64;
constexpr uint32_t kRowBytes = kKvHeads * kDim * 2;
constexpr uint32_t kBlockRows = 64;

using bench::AllocateMemory;
using bench::MakeQueries;
using bench::MakeRows;
using bench::Memory;
using bench::ReadOnce;
using bench::ThreadSeconds;

AttentionShape Shape(uint32_t kv_heads) {
  return {.heads = kShared, .scale = 0.125F, .kv_heads = kv_heads};
}

// A kv head's share of `rows` rows, one run a block.
std::vector<AttentionRun> Runs(const std::byte* k, const std::byte* v, uint32_t rows,
                               uint32_t head) {
  std::vector<AttentionRun> runs;
  for (uint32_t row = 0; row < rows; row += kBlockRows) {
    const size_t at = size_t{row} * kRowBytes + head * kDim * 2;
    runs.push_back({.k = k + at,
                    .v = v + at,
                    .k_stride = kRowBytes,
                    .v_stride = kRowBytes,
                    .rows = std::min(kBlockRows, rows - row)});
  }
  return runs;
}

// One layer of a decode step, with range(1) kv heads a call.
void BM_Decode(benchmark::State& state) {
  const auto together = static_cast<uint32_t>(state.range(1));
  const auto rows = static_cast<uint32_t>(state.range(0));
  const size_t layer_bytes = size_t{rows} * kRowBytes;
  const auto k = MakeRows(kLayers * layer_bytes);
  const auto v = MakeRows(kLayers * layer_bytes);
  const auto q = MakeQueries(size_t{kKvHeads} * kShared * kDim);
  AttentionState attention;
  std::vector<std::vector<AttentionRun>> runs;
  for (size_t layer = 0; layer < kLayers; ++layer) {
    for (uint32_t head = 0; head < kKvHeads; ++head) {
      runs.push_back(
          Runs(k.get() + layer * layer_bytes, v.get() + layer * layer_bytes, rows, head));
    }
  }
  std::vector<float> out(size_t{kKvHeads} * kShared * kDim);
  double attend = 0;
  double read = 0;
  size_t layer = 0;
  for (auto _ : state) {
    double since = ThreadSeconds();
    for (uint32_t head = 0; head < kKvHeads; head += together) {
      attention.Reset(together * kShared, kDim);
      AttendRuns(Shape(together), q.data() + size_t{head} * kShared * kDim,
                 runs[layer * kKvHeads + head], attention);
      FinishState(attention, kDim, out.data());
      benchmark::DoNotOptimize(out.data());
    }
    const double took = ThreadSeconds() - since;
    // Read the layer half a cache of layers away, so that neither warms the other.
    const size_t other = (layer + kLayers / 2) % kLayers;
    since = ThreadSeconds();
    benchmark::DoNotOptimize(ReadOnce(k.get() + other * layer_bytes, layer_bytes) +
                             ReadOnce(v.get() + other * layer_bytes, layer_bytes));
    read += ThreadSeconds() - since;
    attend += took;
    state.SetIterationTime(took);
    layer = (layer + 1) % kLayers;
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(2 * layer_bytes));
  state.counters["ns_per_row"] = attend * 1e9 / static_cast<double>(state.iterations()) / rows;
  state.counters["of_read"] = read / attend;
}
BENCHMARK(BM_Decode)->ArgsProduct({{512, 1024, 2048, 4096, 8192}, {1, 3}})->UseManualTime();

// One layer of a 512-token prefill chunk behind `range` rows, the chunk itself causal.
void BM_Prefill(benchmark::State& state) {
  const auto context = static_cast<uint32_t>(state.range(0));
  constexpr uint32_t kChunk = 512;
  const uint32_t rows = context + kChunk;
  const auto k = MakeRows(size_t{rows} * kRowBytes);
  const auto v = MakeRows(size_t{rows} * kRowBytes);
  const auto q = MakeQueries(size_t{kChunk} * kShared * kDim);
  AttentionState attention;
  std::vector<uint32_t> first(kChunk), last(kChunk);
  for (auto _ : state) {
    for (uint32_t head = 0; head < kKvHeads; ++head) {
      attention.Reset(kChunk * kShared, kDim);
      uint32_t begin = 0;
      for (const AttentionRun& run : Runs(k.get(), v.get(), rows, head)) {
        for (uint32_t t = 0; t < kChunk; ++t) {
          last[t] = std::clamp(context + t + 1, begin, begin + run.rows) - begin;
        }
        AttendTile(Shape(1), q.data(), kChunk, run, first, last, attention);
        begin += run.rows;
      }
      benchmark::DoNotOptimize(attention.acc.data());
    }
  }
  const double seen = double{kChunk} * context + double{kChunk} * (kChunk + 1) / 2;
  state.counters["flop/s"] = benchmark::Counter(seen * kKvHeads * kShared * kDim * 4,
                                                benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(BM_Prefill)->Arg(0)->Arg(1024)->Arg(8192)->Unit(benchmark::kMillisecond);

// Kept rows of a pool much larger than the caches, in order, one in `every`.
struct Kept {
  Kept(size_t row_bytes, size_t every) : pool(MakeRows(kPoolBytes)) {
    for (size_t at = 0; at + row_bytes <= kPoolBytes; at += row_bytes * every) {
      sources.push_back(pool.get() + at);
    }
    bytes = sources.size() * row_bytes;
    target = AllocateMemory(bytes);
  }
  static constexpr size_t kPoolBytes = size_t{192} << 20U;
  Memory pool;
  std::vector<const std::byte*> sources;
  size_t bytes = 0;
  Memory target;
};

// Times `gather` and, in turn, a memcpy of as many dense bytes.
template <class Gather>
void Compare(benchmark::State& state, const Kept& kept, const Gather& gather) {
  double copy = 0;
  double gathered = 0;
  for (auto _ : state) {
    double since = ThreadSeconds();
    gather();
    const double took = ThreadSeconds() - since;
    since = ThreadSeconds();
    std::memcpy(kept.target.get(), kept.pool.get(), kept.bytes);
    benchmark::ClobberMemory();
    copy += ThreadSeconds() - since;
    gathered += took;
    state.SetIterationTime(took);
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kept.bytes));
  state.counters["of_memcpy"] = copy / gathered;
}

void BM_Gather(benchmark::State& state) {
  const auto row_bytes = static_cast<size_t>(state.range(0));
  const Kept kept(row_bytes, static_cast<size_t>(state.range(1)));
  Compare(state, kept, [&] { GatherRows(kept.sources, row_bytes, kept.target.get()); });
}
BENCHMARK(BM_Gather)->ArgsProduct({{256, 384, 2048}, {1, 2, 5}})->UseManualTime();

// The delta grows with every row that was dropped before, as in a compaction.
void BM_Rotate(benchmark::State& state) {
  const auto every = static_cast<int64_t>(state.range(1));
  RopeShape shape;
  shape.kv_heads = static_cast<uint32_t>(state.range(0)) / (kDim * 2);
  shape.pairing = state.range(2) == 0 ? RopePairing::kInterleaved : RopePairing::kHalfSplit;
  const Kept kept(static_cast<size_t>(state.range(0)), static_cast<size_t>(every));
  std::vector<int64_t> deltas(kept.sources.size());
  for (size_t row = 0; row < deltas.size(); ++row) {
    deltas[row] = -static_cast<int64_t>(row % 8192 + 1) * (every - 1);
  }
  Compare(state, kept, [&] { GatherRotateRows(shape, kept.sources, deltas, kept.target.get()); });
}
BENCHMARK(BM_Rotate)->ArgsProduct({{256, 384, 2048}, {2, 5}, {0, 1}})->UseManualTime();

}  // namespace
}  // namespace kvasir::kernels

int main(int argc, char** argv) {
  return kvasir::bench::RunGoogleBenchmarks(argc, argv, "kernels");
}
