// What policies cost beside the plain passes over memory that bound them.
//
// Every row is a ratio: case and reference run in turn, in changing order, on one thread; the ratio
// is the median over the pairs, `ratio_low` and `ratio_high` its 95% interval. Times are processor
// time of the thread. Compaction and re-rotation read rows of a pool much larger than the caches,
// in order, every second or every fifth; re-rotation also rows at the gaps of separators, and, for
// information, with deltas that no policy asks for: each row another one of two million.
#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "base/check.h"
#include "bench/google_report.h"
#include "bench/kernel_data.h"
#include "bench/policy_cases.h"
#include "bench/statistics.h"
#include "kernels/gather.h"
#include "kernels/scores.h"
#include "policies/policy_registry.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

using bench::Compare;
using bench::Found;
using bench::Kept;
using bench::Measure;
using bench::Memory;
using bench::Register;
using bench::ThreadSeconds;

// ---- compaction

void RegisterCompact() {
  for (const auto& [row_bytes, goal] : {std::pair{2048U, "0.8"}, {256U, "0.45"}}) {
    for (const size_t every : {2U, 5U}) {
      const auto name = fmt::format("compact/{}{}", row_bytes, every == 2 ? "" : "/one_in_5");
      const Measure measure = {.unit = "GB/s",
                               .speed = true,
                               .against = "memcpy of as many dense bytes",
                               .goal = fmt::format("ratio >= {}", goal)};
      Register(name, 21, [=, size = row_bytes](benchmark::State& state, const std::string& as) {
        const Kept kept(size, every);
        Measure it = measure;
        it.amount = static_cast<double>(kept.bytes);
        Compare(
            state, as, it, [&] { kernels::GatherRows(kept.sources, size, kept.target.get()); },
            [&] {
              std::memcpy(kept.target.get(), kept.pool.get(), kept.bytes);
              benchmark::ClobberMemory();
            });
      });
    }
  }
}

// ---- decisions

// A static SepLLM decision for tokens that come one by one, all layers sharing one lane.
void SepLlm(benchmark::State& state, const std::string& name) {
  constexpr size_t kTokens = 32768;
  // As many separators as a tokenizer has, one token in eight, as in English text.
  PolicyContext context;
  context.layers = 32;
  for (TokenId id = 0; id < 13; ++id) {
    context.separators.push_back(100 + id * 37);
  }
  std::vector<TokenId> ids(kTokens);
  uint32_t random = 1;
  for (TokenId& id : ids) {
    random = random * 1664525U + 1013904223U;
    id = (random >> 29U) == 0 ? context.separators[(random >> 20U) % 13] : 1000 + (random >> 16U);
  }
  std::vector<double> times;
  uint64_t kept = 0;
  for (auto _ : state) {
    auto lanes = MakeLanes("sepllm:form=static", context);
    KVASIR_CHECK(lanes.ok() && lanes->lanes.size() == 1, "no single lane for sepllm");
    RetentionPolicy& policy = *lanes->lanes[0];
    const double since = ThreadSeconds();
    for (size_t at = 0; at < kTokens; ++at) {
      policy.Append({ids.data() + at, 1});
      while (const auto plan = policy.NextPlan({})) {
        kept += plan->append.size();
      }
    }
    times.push_back((ThreadSeconds() - since) / kTokens);
    state.SetIterationTime(times.back() * kTokens);
  }
  KVASIR_CHECK(kept > 0, "a policy that keeps nothing was measured");
  const bench::MedianInterval time = bench::MedianOf(times);
  bench::Row row;
  row.value = time.median * 1e9;
  row.unit = "ns/token";
  row.goal = "value <= 20";
  row.extra = {
      {"value_low", time.low * 1e9}, {"value_high", time.high * 1e9}, {"pairs", times.size()}};
  state.counters["ns_per_token"] = row.value;
  Found()[name] = row;
}

// Scores, pooling and choice of GemFilter over 128 Ki keys of 8 heads of 128 dimensions in blocks
// of 64 rows.
void GemFilter(benchmark::State& state, const std::string& name) {
  constexpr uint32_t kKeys = 128U << 10U;
  constexpr uint32_t kBlockRows = 64;
  const kernels::KeyShape shape = {.kv_heads = 8, .dim = 128};
  const uint32_t row_bytes = shape.kv_heads * shape.dim * 2;
  const size_t bytes = size_t{kKeys} * row_bytes;
  const Memory keys = bench::MakeRows(bytes);
  const auto q = bench::MakeQueries(size_t{shape.kv_heads} * shape.dim);
  std::vector<kernels::KeyRun> runs;
  for (uint32_t row = 0; row < kKeys; row += kBlockRows) {
    runs.push_back({keys.get() + size_t{row} * row_bytes, row_bytes, kBlockRows});
  }
  std::vector<float> scores(kKeys), pooled(kKeys);
  Compare(
      state, name, {.unit = "ns", .against = "one read of the keys", .goal = "ratio <= 1.5"},
      [&] {
        kernels::DotRows(shape, q.data(), runs, scores.data());
        kernels::PoolScores(scores, 5, kernels::Pooling::kAverage, pooled);
        benchmark::DoNotOptimize(kernels::TopK(pooled, 1024).data());
      },
      [&] { benchmark::DoNotOptimize(bench::ReadOnce(keys.get(), bytes)); });
}

// ---- masses, for information: beside decode attention over the same rows

constexpr uint32_t kDim = 64;
constexpr uint32_t kShared = 3;  // query heads of a kv head

std::vector<kernels::AttentionRun> Blocks(const Memory& k, const Memory& v, uint32_t rows,
                                          uint32_t row_bytes) {
  std::vector<kernels::AttentionRun> runs;
  for (uint32_t row = 0; row < rows; row += 64) {
    const size_t at = size_t{row} * row_bytes;
    runs.push_back({.k = k.get() + at,
                    .v = v.get() + at,
                    .k_stride = row_bytes,
                    .v_stride = row_bytes,
                    .rows = 64});
  }
  return runs;
}

// The mass of one decode step behind 8,192 rows of 3 kv heads, beside the step's attention.
void Mass(benchmark::State& state, const std::string& name) {
  constexpr uint32_t kRows = 8192;
  const kernels::AttentionShape shape = {.heads = kShared, .scale = 0.125F, .kv_heads = 3};
  const uint32_t row_bytes = shape.kv_heads * kDim * 2;
  const Memory k = bench::MakeRows(size_t{kRows} * row_bytes);
  const Memory v = bench::MakeRows(size_t{kRows} * row_bytes);
  const auto q = bench::MakeQueries(size_t{shape.kv_heads} * kShared * kDim);
  const auto runs = Blocks(k, v, kRows, row_bytes);
  std::vector<float> mass(size_t{shape.kv_heads} * kRows);
  std::vector<kernels::MassRun> mass_runs;
  for (const kernels::AttentionRun& run : runs) {
    mass_runs.push_back({run, mass.data() + mass_runs.size() * 64, kRows});
  }
  kernels::AttentionState attention;
  const auto attend = [&] {
    attention.Reset(shape.kv_heads * kShared, kDim);
    kernels::AttendRuns(shape, q.data(), runs, attention);
  };
  attend();
  Compare(
      state, name, {.unit = "ns/row", .amount = kRows, .against = "attention over the same rows"},
      [&] {
        kernels::AddMassRuns(shape, q.data(), mass_runs, attention, 1.0F);
        benchmark::ClobberMemory();
      },
      attend);
}

// Mass of the last 32 rows' queries over 8,192 keys of one kv head, beside decode attention of as
// many queries.
void Window(benchmark::State& state, const std::string& name) {
  constexpr uint32_t kRows = 8192;
  constexpr uint32_t kWindow = 32;
  const Memory k = bench::MakeRows(size_t{kRows} * kDim * 2);
  const Memory v = bench::MakeRows(size_t{kRows} * kDim * 2);
  const auto q = bench::MakeQueries(size_t{kShared} * kWindow * kDim);
  const auto runs = Blocks(k, v, kRows, kDim * 2);
  const kernels::KeyRun keys = {k.get(), kDim * 2, kRows};
  std::vector<float> mass(size_t{kShared} * kRows);
  kernels::AttentionState attention;
  Compare(
      state, name, {.unit = "ns/row", .amount = kRows, .against = "attention of as many queries"},
      [&] {
        kernels::WindowMass({.dim = kDim}, kShared, kWindow, 0.125F, q.data(), {&keys, 1},
                            mass.data());
        benchmark::ClobberMemory();
      },
      [&] {
        for (size_t query = 0; query < kWindow; ++query) {
          attention.Reset(kShared, kDim);
          kernels::AttendRuns({.heads = kShared, .scale = 0.125F},
                              q.data() + query * kShared * kDim, runs, attention);
        }
      });
}

}  // namespace
}  // namespace kvasir

int main(int argc, char** argv) {
  using namespace kvasir;
  RegisterCompact();
  bench::RegisterRotate();
  bench::RegisterEncoding();
  bench::RegisterTokenMixed();
  Register("sepllm", 41, SepLlm);
  Register("gemfilter", 21, GemFilter);
  Register("mass", 101, Mass);
  Register("window_mass", 41, Window);
  return bench::RunGoogleBenchmarks(argc, argv, "policies",
                                    [](const benchmark::BenchmarkReporter::Run& run) {
                                      bench::Row row = Found().at(run.run_name.function_name);
                                      row.name = run.run_name.function_name;
                                      return row;
                                    });
}
