// bench_alloc: what it costs to free a block group and allocate one, beside OffsetAllocator
// (Sebastian Aaltonen, MIT), at three occupancies, fresh and after a million random steps.
//
// A pool of 16,384 groups of Llama-3-8B's shape (32 GiB, of which no page is touched) is filled,
// and random groups are freed down to the occupancy; then, in steps, random groups are freed, 32 at
// a time, and as many allocated, the same ones by both (alloc_workload.h). In each round both begin
// anew; batches of both take turns, in changing order, each of 65,536 places that were drawn
// before. A row's value is the median over the rounds of the median batch; the ratio's interval is
// that of the ratios within rounds. The same loop with an allocator that does nothing is a row of
// its own.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "allocator/group_allocator.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "bench/alloc_workload.h"
#include "bench/ratio_plot.h"
#include "bench/report.h"
#include "bench/statistics.h"

#include <CLI/CLI.hpp>
#include <dlfcn.h>
#include <fmt/format.h>

namespace kvasir::bench {
namespace {

constexpr uint64_t kGroupBytes = 2'101'248;  // 16 tokens of Llama-3-8B in f16, and a page
constexpr uint32_t kGroups = 16'384;
constexpr uint32_t kBatch = 65'536, kBatches = 15;
constexpr uint32_t kAgeingSteps = 1 << 20;         // a million
constexpr uint32_t kOccupancies[] = {50, 90, 99};  // percent

struct Options {
  std::string json = "build/bench/alloc.json";
  std::string peer;  // library of bench/peers/offset_allocator.cc; empty: not measured
  uint32_t rounds = 9;
};

// Memory without a limit, and without a page: nothing is ever written there.
class UntouchedSource final : public ExtentSource {
 public:
  absl::StatusOr<std::unique_ptr<Extent>> TakeExtent(uint64_t bytes, ExtentUse use) override {
    KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<Extent> extent,
                            Extent::Create({bytes, /*prefault=*/false, -1, false}, next_id_++));
    KVASIR_RETURN_IF_ERROR(extent->Seal(use));
    return extent;
  }
  void ReturnExtent(std::unique_ptr<Extent>) override {}

 private:
  uint64_t next_id_ = 1;
};

// One allocator with its workload; how many groups are held was said when it was made.
using Steps = std::function<void(const uint32_t* places, size_t count)>;

struct OurPool {
  using Held = Group;
  OurPool() : allocator({.group_bytes = kGroupBytes, .use = ExtentUse::kKept}, source) {}
  Held Allocate() {
    absl::StatusOr<Group> group = allocator.Allocate();
    KVASIR_CHECK(group.ok(), "bench: {}", MessageOf(group.status()));
    return *group;
  }
  void Free(const Held& group) { allocator.Free(group); }
  UntouchedSource source;
  GroupAllocator allocator;
};

template <typename Pool>
struct PoolRun {
  PoolRun(const std::vector<uint32_t>& order, uint32_t held)
      : workload(pool, order.data(), kGroups, held) {}
  Pool pool;
  AllocWorkload<Pool> workload;
};

template <typename Pool>
Steps StartOf(const std::vector<uint32_t>& order, uint32_t held) {
  const auto run = std::make_shared<PoolRun<Pool>>(order, held);
  return
      [run](const uint32_t* places, size_t count) { run->workload.FreeAndAllocate(places, count); };
}

// What the loop itself costs.
struct NoPool {
  using Held = Group;
  Held Allocate() { return {nullptr, ++last}; }
  void Free(const Held& group) { freed += group.offset; }
  uint64_t last = 0, freed = 0;
};

class Peer {
 public:
  static absl::StatusOr<Peer> Load(const std::string& path) {
    void* const library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return NotFound("no library of the peer: {}", ::dlerror());
    Peer peer;
    peer.start_ = reinterpret_cast<decltype(start_)>(::dlsym(library, "kvasir_peer_start"));
    peer.steps_ = reinterpret_cast<decltype(steps_)>(::dlsym(library, "kvasir_peer_steps"));
    peer.end_ = reinterpret_cast<decltype(end_)>(::dlsym(library, "kvasir_peer_end"));
    if (peer.start_ == nullptr || peer.steps_ == nullptr || peer.end_ == nullptr) {
      return NotFound("not a library of a peer: path={}", path);
    }
    return peer;
  }
  Steps Start(const std::vector<uint32_t>& order, uint32_t held) const {
    const std::shared_ptr<void> run(start_(order.data(), kGroups, held), end_);
    return [run, steps = steps_](const uint32_t* places, size_t count) {
      steps(run.get(), places, count);
    };
  }

 private:
  void* (*start_)(const uint32_t*, uint32_t, uint32_t) = nullptr;
  void (*steps_)(void*, const uint32_t*, size_t) = nullptr;
  void (*end_)(void*) = nullptr;
};

// Medians of rounds, in ns.
struct Measured {
  std::vector<double> fresh, aged;
};

double NanosecondsOf(const Steps& steps, const std::vector<uint32_t>& places) {
  const Instant start = SystemClock().Now();
  steps(places.data(), places.size());
  const std::chrono::nanoseconds took = SystemClock().Now() - start;
  return static_cast<double>(took.count()) / static_cast<double>(places.size());
}

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options) {}

  absl::Status Run() {
    if (!options_.peer.empty()) {
      KVASIR_ASSIGN_OR_RETURN(peer_, Peer::Load(options_.peer));
    }
    for (uint32_t round = 0; round < options_.rounds; ++round) {
      for (const uint32_t percent : kOccupancies) RunRound(percent);
    }
    for (const uint32_t percent : kOccupancies) AddRows(percent);
    fmt::print("{}", report_.ToTable());
    fmt::print(
        "not measured: extents being made and given back, other sizes than one (OffsetAllocator "
        "allocates ranges of any size, which is more than a group allocator can do), several "
        "threads, caches full of other data\n");
    if (!peer_) fmt::print("OffsetAllocator is not here: no ratios\n");
    const absl::Status drawn =
        DrawRatios(report_, "Time of a pair / time of the reference", options_.json);
    if (!drawn.ok()) fmt::print(stderr, "no plot: {}\n", MessageOf(drawn));
    return report_.Write(options_.json);
  }

 private:
  void RunRound(uint32_t percent) {
    const uint32_t held = static_cast<uint32_t>(uint64_t{kGroups} * percent / 100);
    std::vector<uint32_t> order(kGroups);
    std::iota(order.begin(), order.end(), 0U);
    std::shuffle(order.begin(), order.end(), random_);
    const std::vector<uint32_t> places = DrawPlaces(kBatch, held);
    std::vector<std::pair<Measured*, Steps>> runs = {
        {&ours_[percent], StartOf<OurPool>(order, held)},
        {&nothing_[percent], StartOf<NoPool>(order, held)}};
    if (peer_) runs.emplace_back(&theirs_[percent], peer_->Start(order, held));
    for (const bool aged : {false, true}) {
      std::map<Measured*, std::vector<double>> batches;
      for (uint32_t batch = 0; batch < kBatches; ++batch) {
        std::shuffle(runs.begin(), runs.end(), random_);
        for (auto& [measured, steps] : runs) {
          batches[measured].push_back(NanosecondsOf(steps, places));
        }
      }
      for (auto& [measured, samples] : batches) {
        samples.erase(samples.begin());  // the first one warms up
        (aged ? measured->aged : measured->fresh).push_back(MedianOf(samples).median);
      }
      if (aged) break;
      const std::vector<uint32_t> more = DrawPlaces(kAgeingSteps, held);
      for (auto& [measured, steps] : runs) steps(more.data(), more.size());
    }
  }

  // No place twice in one burst.
  std::vector<uint32_t> DrawPlaces(size_t count, uint32_t held) {
    constexpr size_t kBurst = AllocWorkload<OurPool>::kBurst;
    std::vector<uint32_t> places;
    while (places.size() < count) {
      const auto place = static_cast<uint32_t>(random_() % held);
      const auto burst = places.begin() + static_cast<ptrdiff_t>(places.size() / kBurst * kBurst);
      if (std::find(burst, places.end(), place) == places.end()) places.push_back(place);
    }
    return places;
  }

  void AddRows(uint32_t percent) {
    const Measured& ours = ours_[percent];
    const Measured& theirs = theirs_[percent];
    Add(fmt::format("pair/fresh/{}", percent), ours.fresh, theirs.fresh, "offset_allocator",
        "ratio <= 0.25");
    Add(fmt::format("pair/aged/{}", percent), ours.aged, theirs.aged, "offset_allocator",
        "ratio <= 0.25");
    Add(fmt::format("aging/{}", percent), ours.aged, ours.fresh, "itself, fresh",
        "ratio <= 1, within its interval");
    Add(fmt::format("loop_alone/{}", percent), nothing_[percent].fresh, {}, "", "");
    if (peer_) {
      Add(fmt::format("aging/{}/offset_allocator", percent), theirs.aged, theirs.fresh,
          "itself, fresh", "");
    }
  }

  void Add(const std::string& name, const std::vector<double>& own,
           const std::vector<double>& reference, const std::string& reference_name,
           const std::string& goal) {
    const MedianInterval median = MedianOf(own);
    Row row;
    row.name = name;
    row.value = median.median;
    row.unit = "ns a pair";
    row.extra = {{"low", median.low}, {"high", median.high}};
    if (!reference.empty()) {
      std::vector<double> ratios;
      for (size_t i = 0; i < own.size(); ++i) ratios.push_back(own[i] / reference[i]);
      const MedianInterval ratio = MedianOf(ratios);
      row.goal = goal;
      row.reference = MedianOf(reference).median;
      row.reference_name = reference_name;
      row.extra["ratio_median"] = ratio.median;
      row.extra["ratio_low"] = ratio.low;
      row.extra["ratio_high"] = ratio.high;
    }
    report_.Add(std::move(row));
  }

  const Options options_;
  std::optional<Peer> peer_;
  std::map<uint32_t, Measured> ours_, theirs_, nothing_;  // by percent
  std::mt19937 random_{1};
  Report report_;
};

// The pool has an open file for each of its extents, of which there are about a thousand.
absl::Status RaiseFileLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return ErrnoStatus(errno, "getrlimit");
  if (limit.rlim_max < 2048) return ResourceExhausted("open files: limit={}", limit.rlim_max);
  limit.rlim_cur = std::max<rlim_t>(limit.rlim_cur, 2048);
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) return ErrnoStatus(errno, "setrlimit");
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Options options;
  if (const char* const path = std::getenv("KVASIR_BENCH_JSON")) options.json = path;
  if (const char* const path = std::getenv("KVASIR_OFFSET_ALLOCATOR")) options.peer = path;
  CLI::App app("Freeing and allocating a block group, beside OffsetAllocator.");
  app.add_option("--rounds", options.rounds, "rounds of all rows")->check(CLI::Range(5, 1000));
  CLI11_PARSE(app, argc, argv);
  absl::Status status = RaiseFileLimit();
  if (status.ok()) status = Bench(options).Run();
  if (!status.ok()) std::fprintf(stderr, "bench_alloc: %s\n", MessageOf(status).c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace kvasir::bench

int main(int argc, char** argv) { return kvasir::bench::Main(argc, argv); }
