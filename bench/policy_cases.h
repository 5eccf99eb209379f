// Cases of bench_policies: pairs of a kernel and its reference, and the rows that they run over.
//
// Not thread-safe: one thread registers and runs them.
#ifndef KVASIR_BENCH_POLICY_CASES_H_
#define KVASIR_BENCH_POLICY_CASES_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include "bench/kernel_data.h"
#include "bench/report.h"
#include "bench/statistics.h"

namespace kvasir::bench {

// What a case found, by its name: the rows of the report are made of these.
inline std::map<std::string, Row>& Found() {
  static std::map<std::string, Row> found;
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
  const MedianInterval ratio = MedianOf(ratios);
  Row row;
  row.value = MedianOf(values).median * (measure.unit.starts_with("ns") ? 1e9 : 1e-9);
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

// Steps from a kept row to the next.
enum class Gaps {
  kEven,
  kSeparators,  // random, as between rows that are kept with the same chance each
};

// Kept rows of a pool, in order, one in `every`.
struct Kept {
  Kept(size_t row_bytes, size_t every, Gaps gaps = Gaps::kEven) : pool(MakeRows(kPoolBytes)) {
    std::mt19937 random(1);
    std::geometric_distribution<size_t> dropped(1.0 / static_cast<double>(every));
    for (size_t row = 0; (row + 1) * row_bytes <= kPoolBytes;) {
      rows.push_back(row);
      sources.push_back(pool.get() + row * row_bytes);
      row += gaps == Gaps::kEven ? every : 1 + dropped(random);
    }
    bytes = sources.size() * row_bytes;
    target = AllocateMemory(bytes);
  }
  static constexpr size_t kPoolBytes = size_t{128} << 20U;
  Memory pool;
  std::vector<size_t> rows;
  std::vector<const std::byte*> sources;
  size_t bytes = 0;
  Memory target;
};

// Registers the cases rotate/...
void RegisterRotate();

// Registers the cases encode/..., scores/... and attend/...
void RegisterEncoding();

// Registers the cases encode/tm..., scores/tm... and sums/tm...
void RegisterTokenMixed();

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_POLICY_CASES_H_
