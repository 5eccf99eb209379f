// Encoding of blocks beside a copy of their rows, and attention over records beside attention over
// the f16 rows that they are made of. Blocks of 64 rows, 3 kv heads of 64 dimensions, 3 query heads
// on each.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "bench/policy_cases.h"
#include "kernels/attention.h"
#include "kernels/encoding/record.h"
#include "kernels/encoding/record_attention.h"

#include <fmt/format.h>

namespace kvasir::bench {
namespace {

using kernels::Codec;
using kernels::RecordPlane;

constexpr uint32_t kRows = 64;
constexpr uint32_t kDims = 64;
constexpr uint32_t kKvHeads = 3;
constexpr uint32_t kHeads = 3;
constexpr size_t kHeadBytes = kDims * 2;
constexpr size_t kRowBytes = kKvHeads * kHeadBytes;

// Rows of a cache that fits the second-level cache as f16, and of one that fits none as int4.
constexpr size_t kFewRows = 512;
constexpr size_t kManyRows = size_t{512} << 10U;

kernels::RecordShape Shape(Codec codec, RecordPlane plane) {
  return {.codec = codec, .plane = plane, .rows = kRows, .dims = kDims};
}

// K or V of `count` rows, [row][kv_head][dim], and their records, [block][kv_head].
struct Plane {
  Plane(Codec codec, RecordPlane plane, size_t count)
      : shape(Shape(codec, plane)),
        record_bytes(kernels::RecordBytes(shape)),
        blocks(count / kRows),
        rows(MakeRows(count * kRowBytes)),
        records(AllocateMemory(blocks * kKvHeads * record_bytes)) {}

  void Encode() {
    std::vector<const std::byte*> sources(kRows);
    for (size_t block = 0; block < blocks; ++block) {
      for (size_t head = 0; head < kKvHeads; ++head) {
        for (size_t row = 0; row < kRows; ++row) {
          sources[row] = rows.get() + (block * kRows + row) * kRowBytes + head * kHeadBytes;
        }
        kernels::EncodeRecord(shape, sources, {}, {}, Record(block, head));
      }
    }
  }
  std::byte* Record(size_t block, size_t head) const {
    return records.get() + (block * kKvHeads + head) * record_bytes;
  }
  size_t Bytes() const { return blocks * kRows * kRowBytes; }

  kernels::RecordShape shape;
  uint64_t record_bytes;
  size_t blocks;
  Memory rows, records;
};

void Encode(benchmark::State& state, const std::string& name, Codec codec, RecordPlane plane) {
  Plane it(codec, plane, size_t{160} << 10U);
  const Memory copy = AllocateMemory(it.Bytes());
  Compare(
      state, name,
      {.unit = "GB/s",
       .amount = static_cast<double>(it.Bytes()),
       .speed = true,
       .against = "memcpy of the rows",
       .goal = "ratio >= 0.5"},
      [&] { it.Encode(); },
      [&] {
        std::memcpy(copy.get(), it.rows.get(), it.Bytes());
        benchmark::ClobberMemory();
      });
}

// Scores of three queries on every record of keys.
void Scores(benchmark::State& state, const std::string& name, Codec codec, size_t rows) {
  Plane it(codec, RecordPlane::kKey, rows);
  Plane plain(Codec::kAsWritten, RecordPlane::kKey, rows);
  it.Encode();
  plain.Encode();
  const auto q = MakeQueries(size_t{kHeads} * kDims);
  std::vector<float> scores(size_t{kHeads} * kRows);
  const auto score = [&](const Plane& keys) {
    for (size_t record = 0; record < keys.blocks * kKvHeads; ++record) {
      kernels::RecordScores(keys.shape, keys.Record(0, record), q.data(), kHeads, scores.data());
      benchmark::ClobberMemory();
    }
  };
  const size_t rounds = std::max<size_t>(1, kManyRows / 8 / rows);
  const auto repeat = [&](const Plane& keys) {
    for (size_t round = 0; round < rounds; ++round) {
      score(keys);
    }
  };
  Compare(
      state, name,
      {.unit = "ns/row",
       .amount = static_cast<double>(rounds * rows * kKvHeads),
       .against = "scores of f16 rows"},
      [&] { repeat(it); }, [&] { repeat(plain); });
}

// A decode step.
void Attend(benchmark::State& state, const std::string& name, Codec codec, size_t rows,
            const std::string& goal) {
  Plane k(codec, RecordPlane::kKey, rows);
  Plane v(codec, RecordPlane::kValue, rows);
  k.Encode();
  v.Encode();
  std::vector<kernels::RecordRun> records;
  std::vector<kernels::AttentionRun> runs;
  for (size_t block = 0; block < k.blocks; ++block) {
    records.push_back({.k = k.Record(block, 0), .v = v.Record(block, 0), .last = kRows});
    const size_t at = block * kRows * kRowBytes;
    runs.push_back({.k = k.rows.get() + at,
                    .v = v.rows.get() + at,
                    .k_stride = kRowBytes,
                    .v_stride = kRowBytes,
                    .rows = kRows});
  }
  const auto q = MakeQueries(size_t{kKvHeads} * kHeads * kDims);
  const kernels::RecordAttention attend_records = {
      .k = k.shape, .v = v.shape, .heads = kHeads, .kv_heads = kKvHeads, .scale = 0.125F};
  const kernels::AttentionShape attend_rows = {
      .heads = kHeads, .k_dim = kDims, .v_dim = kDims, .scale = 0.125F, .kv_heads = kKvHeads};
  kernels::AttentionState attention;
  const size_t rounds = std::max<size_t>(1, kManyRows / 8 / rows);
  const auto repeat = [&](const auto& attend) {
    for (size_t round = 0; round < rounds; ++round) {
      attention.Reset(kKvHeads * kHeads, kDims);
      attend();
    }
  };
  Compare(
      state, name,
      {.unit = "ns/row",
       .amount = static_cast<double>(rounds * rows),
       .against = "attention over f16 rows in place",
       .goal = goal},
      [&] {
        repeat([&] { kernels::AttendRecords(attend_records, q.data(), records, attention); });
      },
      [&] { repeat([&] { kernels::AttendRuns(attend_rows, q.data(), runs, attention); }); });
}

constexpr std::pair<Codec, const char*> kInts[] = {{Codec::kInt8, "int8"}, {Codec::kInt4, "int4"}};
constexpr std::pair<size_t, const char*> kSizes[] = {{kFewRows, "L2"}, {kManyRows, "memory"}};

void RegisterInts() {
  for (const auto& [codec, name] : kInts) {
    for (const auto& [plane, plane_name] :
         {std::pair{RecordPlane::kKey, "keys"}, {RecordPlane::kValue, "values"}}) {
      Register(fmt::format("encode/{}/{}", name, plane_name), 21,
               [codec = codec, plane = plane](benchmark::State& state, const std::string& as) {
                 Encode(state, as, codec, plane);
               });
    }
    for (const auto& [rows, size] : kSizes) {
      Register(fmt::format("scores/{}/{}", name, size), 21,
               [codec = codec, rows = rows](benchmark::State& state, const std::string& as) {
                 Scores(state, as, codec, rows);
               });
    }
  }
  for (const auto& [codec, name] :
       {std::pair{Codec::kAsWritten, "f16"}, {Codec::kInt8, "int8"}, {Codec::kInt4, "int4"}}) {
    for (const auto& [rows, size] : kSizes) {
      const char* goal = codec != Codec::kInt4 ? ""
                         : rows == kFewRows    ? "ratio <= 1.1"
                                               : "ratio <= 0.87";
      Register(fmt::format("attend/{}/{}", name, size), 21,
               [codec = codec, rows = rows, goal](benchmark::State& state, const std::string& as) {
                 Attend(state, as, codec, rows, goal);
               });
    }
  }
}

}  // namespace

void RegisterEncoding() { RegisterInts(); }

}  // namespace kvasir::bench
