// What policies cost beside the plain passes over memory that bound them.
//
// Every row is a ratio: case and reference run in turn, in changing order, on one thread; the ratio
// is the median over the pairs, `ratio_low` and `ratio_high` its 95% interval. Times are processor
// time of the thread. Compaction and re-rotation read rows of a pool much larger than the caches,
// in order, every second or every fifth.
#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "base/check.h"
#include "bench/google_report.h"
#include "bench/kernel_data.h"
#include "bench/statistics.h"
#include "kernels/gather.h"
#include "kernels/scores.h"
#include "policies/policy_registry.h"

#include <fmt/format.h>
#include <hwy/targets.h>

namespace kvasir {
namespace {

using bench::Better;
using bench::Memory;
using bench::ThreadSeconds;

// What a case found, by its name: the rows of the report are made of these.
std::map<std::string, bench::Row>& Found() {
  static std::map<std::string, bench::Row> found;
  return found;
}

struct Measure {
  std::string unit = {};     // of value and reference, which are amount / seconds or the inverse
  double amount = 1;         // of an iteration: bytes, tokens
  bool speed = false;        // amount / seconds; else seconds / amount
  std::string against = {};  // what the reference is
  std::string goal = {};
};

// Runs both in turn, once before without a look at the clock.
template <class Case, class Reference>
void Compare(benchmark::State& state, const std::string& name, const Measure& measure,
             const Case& run, const Reference& reference) {
  std::vector<double> ratios, values;
  run();
  reference();
  for (auto _ : state) {
    double took[2] = {};
    for (const size_t turn : {ratios.size() % 2, (ratios.size() + 1) % 2}) {
      const double since = ThreadSeconds();
      if (turn == 0) {
        run();
      } else {
        reference();
      }
      took[turn] = ThreadSeconds() - since;
    }
    state.SetIterationTime(took[0]);
    ratios.push_back(measure.speed ? took[1] / took[0] : took[0] / took[1]);
    values.push_back(measure.speed ? measure.amount / took[0] : took[0] / measure.amount);
  }
  const bench::MedianInterval ratio = bench::MedianOf(ratios);
  bench::Row row;
  row.value = bench::MedianOf(values).median * (measure.unit.starts_with("ns") ? 1e9 : 1e-9);
  row.unit = measure.unit;
  row.reference = row.value / ratio.median;
  row.better = measure.speed ? Better::kHigher : Better::kLower;
  row.goal = measure.goal;
  row.extra = {{"reference_name", measure.against},
               {"ratio_low", ratio.low},
               {"ratio_high", ratio.high},
               {"pairs", ratios.size()}};
  state.counters["ratio"] = ratio.median;
  Found()[name] = row;
}

template <class Body>
void Register(const std::string& name, int64_t pairs, const Body& body) {
  benchmark::RegisterBenchmark(name.c_str(),
                               [name, body](benchmark::State& state) { body(state, name); })
      ->UseManualTime()
      ->Iterations(pairs)
      ->Unit(benchmark::kMillisecond);
}

// ---- compaction

// Kept rows of a pool, in order, one in `every`.
struct Kept {
  Kept(size_t row_bytes, size_t every) : pool(bench::MakeRows(kPoolBytes)) {
    for (size_t at = 0; at + row_bytes <= kPoolBytes; at += row_bytes * every) {
      sources.push_back(pool.get() + at);
    }
    bytes = sources.size() * row_bytes;
    target = bench::AllocateMemory(bytes);
  }
  static constexpr size_t kPoolBytes = size_t{128} << 20U;
  Memory pool;
  std::vector<const std::byte*> sources;
  size_t bytes = 0;
  Memory target;
};

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

// ---- re-rotation

// Lets the kernels choose among `targets` alone while it lives.
class OnlyTarget {
 public:
  explicit OnlyTarget(int64_t target) { Set(target); }
  ~OnlyTarget() { Set(0); }
  OnlyTarget(const OnlyTarget&) = delete;
  OnlyTarget& operator=(const OnlyTarget&) = delete;

 private:
  static void Set(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

// The delta grows with every row that was dropped before, as in a compaction.
void Rotate(benchmark::State& state, const std::string& name, int64_t target, size_t row_bytes,
            kernels::RopePairing pairing, int64_t every) {
  const OnlyTarget only(target);
  kernels::RopeShape shape;
  // Heads of a small and of a large model.
  shape.head_dim = shape.rotated_dims = row_bytes < 1024 ? 64 : 128;
  shape.kv_heads = static_cast<uint32_t>(row_bytes / (2 * shape.head_dim));
  shape.pairing = pairing;
  const Kept kept(row_bytes, static_cast<size_t>(every));
  std::vector<int64_t> deltas(kept.sources.size());
  for (size_t row = 0; row < deltas.size(); ++row) {
    deltas[row] = -static_cast<int64_t>(row % 8192 + 1) * (every - 1);
  }
  Compare(
      state, name,
      {.unit = "GB/s",
       .amount = static_cast<double>(kept.bytes),
       .speed = true,
       .against = "gather of the same rows",
       .goal = "ratio >= 0.7"},
      [&] { kernels::GatherRotateRows(shape, kept.sources, deltas, kept.target.get()); },
      [&] { kernels::GatherRows(kept.sources, row_bytes, kept.target.get()); });
}

void RegisterRotate() {
  const std::pair<int64_t, const char*> targets[] = {{HWY_AVX3, "avx512"}, {HWY_AVX2, "avx2"}};
  for (const size_t row_bytes : {2048U, 256U}) {
    for (const auto& [target, target_name] : targets) {
      if ((hwy::SupportedTargets() & target) == 0) {
        continue;
      }
      for (const auto pairing :
           {kernels::RopePairing::kHalfSplit, kernels::RopePairing::kInterleaved}) {
        for (const int64_t every : {2, 5}) {
          const auto name = fmt::format(
              "rotate/{}/{}/{}{}", row_bytes, target_name,
              pairing == kernels::RopePairing::kHalfSplit ? "half_split" : "interleaved",
              every == 2 ? "" : "/one_in_5");
          Register(name, 21, [=, only = target](benchmark::State& state, const std::string& as) {
            Rotate(state, as, only, row_bytes, pairing, every);
          });
        }
      }
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
  RegisterRotate();
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
