// The token-mixed code beside a copy of the rows, and its readers beside those of int4 records.
//
// 64 rows of 64 channels a record, f16, three queries. From memory: more records than the caches
// hold; from the second-level cache: as many as fit it.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "bench/policy_cases.h"
#include "kernels/encoding/record.h"
#include "kernels/row_convert.h"

#include <fmt/format.h>

namespace kvasir::bench {
namespace {

constexpr uint32_t kRows = 64;
constexpr uint32_t kDims = 64;
constexpr uint32_t kQueries = 3;
constexpr size_t kBlockBytes = size_t{kRows} * kDims * 2;

constexpr kernels::RecordShape ShapeOf(kernels::Codec codec, kernels::RecordPlane plane,
                                       uint32_t code_planes) {
  return {.codec = codec, .plane = plane, .rows = kRows, .dims = kDims, .code_planes = code_planes};
}

constexpr size_t kDistinct = 64;

// Blocks whose channels differ as those of a model do: else all get equally many planes.
// kDistinct of them, over and over.
Memory MakeBlocks(size_t blocks) {
  Memory memory = AllocateMemory(blocks * kBlockBytes);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (size_t block = 0; block < std::min(blocks, kDistinct); ++block) {
    float spread[kDims];
    for (float& of : spread) {
      of = std::exp(normal(random));
    }
    for (size_t i = 0; i < kRows * kDims; ++i) {
      kernels::StoreElement(kernels::RowType::kF16, memory.get() + block * kBlockBytes, i,
                            normal(random) * spread[i % kDims]);
    }
  }
  for (size_t block = kDistinct; block < blocks; ++block) {
    std::memcpy(memory.get() + block * kBlockBytes, memory.get() + block % kDistinct * kBlockBytes,
                kBlockBytes);
  }
  return memory;
}

void EncodeBlock(const kernels::RecordShape& shape, const std::byte* block, std::byte* record) {
  const std::byte* sources[kRows];
  for (size_t row = 0; row < kRows; ++row) {
    sources[row] = block + row * kDims * 2;
  }
  kernels::EncodeRecord(shape, sources, {}, {}, record);
}

void Encode(benchmark::State& state, const std::string& name, const kernels::RecordShape& shape) {
  constexpr size_t kBlocks = (size_t{64} << 20U) / kBlockBytes;
  const Memory blocks = MakeBlocks(kBlocks);
  const uint64_t record_bytes = kernels::RecordBytes(shape);
  const Memory records = AllocateMemory(kBlocks * record_bytes);
  const Memory copy = AllocateMemory(kBlocks * kBlockBytes);
  Compare(
      state, name,
      {.unit = "ns/block",
       .amount = kBlocks,
       .against = "memcpy of the rows",
       .goal = "ratio <= 8"},
      [&] {
        for (size_t block = 0; block < kBlocks; ++block) {
          EncodeBlock(shape, blocks.get() + block * kBlockBytes,
                      records.get() + block * record_bytes);
        }
      },
      [&] {
        std::memcpy(copy.get(), blocks.get(), kBlocks * kBlockBytes);
        benchmark::ClobberMemory();
      });
}

// Records of one shape, one behind the other, and what their readers take and make.
struct Records {
  Records(const kernels::RecordShape& of, size_t records)
      : shape(of),
        count(records),
        bytes(kernels::RecordBytes(of)),
        memory(AllocateMemory(count * bytes)) {
    const Memory blocks = MakeBlocks(std::min(count, kDistinct));
    for (size_t i = 0; i < count; ++i) {
      EncodeBlock(shape, blocks.get() + i % kDistinct * kBlockBytes, memory.get() + i * bytes);
    }
  }
  void Read(size_t rounds) {
    const auto read = shape.plane == kernels::RecordPlane::kKey ? kernels::RecordScores
                                                                : kernels::AddRecordValues;
    for (size_t i = 0; i < count * rounds; ++i) {
      read(shape, memory.get() + i % count * bytes, given.data(), kQueries, made.data());
      benchmark::ClobberMemory();
    }
  }
  kernels::RecordShape shape;
  size_t count;
  uint64_t bytes;
  Memory memory;
  std::vector<float> given = MakeQueries(size_t{kQueries} * kDims);
  std::vector<float> made = std::vector<float>(size_t{kQueries} * kDims);
};

struct Size {
  const char* name;
  size_t records, rounds;
  const char* goal;
};
constexpr Size kSizes[] = {{"L2", 128, 16, "ratio <= 2"}, {"memory", 65536, 1, "ratio <= 1"}};

// Scores of keys, or sums of values.
void Read(benchmark::State& state, const std::string& name, const kernels::RecordShape& shape,
          const Size& size) {
  Records mixed(shape, size.records);
  Records ints(ShapeOf(kernels::Codec::kInt4, shape.plane, 0), size.records);
  Compare(
      state, name,
      {.unit = "ns/row",
       .amount = static_cast<double>(size.records * size.rounds * kRows),
       .against = "the same of int4 records",
       .goal = shape.code_planes == 2 * kDims ? size.goal : ""},
      [&] { mixed.Read(size.rounds); }, [&] { ints.Read(size.rounds); });
}

}  // namespace

void RegisterTokenMixed() {
  using kernels::RecordPlane;
  for (const auto& [plane, plane_name, work] :
       {std::tuple{RecordPlane::kKey, "keys", "scores"}, {RecordPlane::kValue, "values", "sums"}}) {
    for (const uint32_t bits : {1U, 2U, 3U}) {
      const auto shape = ShapeOf(kernels::Codec::kTokenMixed, plane, bits * kDims);
      Register(fmt::format("encode/tm{}/{}", bits, plane_name), 21,
               [=](benchmark::State& state, const std::string& as) { Encode(state, as, shape); });
      for (const Size& size : kSizes) {
        Register(
            fmt::format("{}/tm{}/{}", work, bits, size.name), 21,
            [=](benchmark::State& state, const std::string& as) { Read(state, as, shape, size); });
      }
    }
  }
}

}  // namespace kvasir::bench
