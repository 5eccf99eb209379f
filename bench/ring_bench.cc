// bench_ring: what a call over the command ring costs beside the hardware's limit, bare wake-ups,
// and the gRPC call that it is meant for. Two processes, each on a processor of its own; no work at
// the other end, so that what is timed is the way there and back.
//
// All rows run in turn in each round, in changing order. A row's value is the median over the
// rounds of the median call of a round (where nobody sleeps, of the mean of 50 calls); its ratio's
// interval is that of the ratios within rounds.
// Before each call of a row whose responder sleeps, the caller waits long enough for it to.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "bench/ratio_plot.h"
#include "bench/report.h"
#include "bench/ring_grpc.h"
#include "bench/ring_peers.h"
#include "bench/statistics.h"
#include "ring/pause.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <sched.h>

namespace kvasir::bench {
namespace {

using std::chrono::nanoseconds;

constexpr nanoseconds kAlwaysLooks = std::chrono::seconds(5);
constexpr nanoseconds kEngineSpin = std::chrono::microseconds(20);  // the default of a ring
constexpr nanoseconds kFallsAsleep = std::chrono::microseconds(60);
constexpr uint32_t kWarmUpCalls = 200, kCallsOfASample = 50;

struct Options {
  std::string json = "build/bench/ring.json";
  uint32_t rounds = 9;
  uint32_t calls = 1000;  // of a round; twenty times as many where nobody sleeps
  bool pin = true;
  std::vector<int> respond;  // of a responder
  std::string empty_server;  // of the empty gRPC server: its path
};

enum class Grpc : uint8_t { kNone, kVerb, kEmpty, kEmptyPrepared };

struct Case {
  std::string name;
  std::optional<PathSetting> setting;  // nothing: gRPC
  std::string reference;               // another case
  std::string goal;
  Grpc grpc = Grpc::kNone;
  bool again = false;  // what another case of this name has measured, beside another reference
};

std::vector<Case> Cases() {
  const auto of = [](Path path, bool asleep, nanoseconds spin) {
    return PathSetting{path, asleep, spin};
  };
  return {
      {"lines/two_there_and_back", of(Path::kLines, false, kAlwaysLooks), "", ""},
      {"ring/both_awake", of(Path::kRing, false, kAlwaysLooks), "lines/two_there_and_back",
       "ratio <= 2.5"},
      {"ring/both_awake_caller", of(Path::kCaller, false, kAlwaysLooks), "lines/two_there_and_back",
       ""},
      {"futex/both_asleep", of(Path::kFutex, true, nanoseconds(0)), "", ""},
      {"futex/responder_asleep", of(Path::kFutex, true, kEngineSpin), "futex/both_asleep", ""},
      {"eventfd_epoll/both_asleep", of(Path::kEventfd, true, nanoseconds(0)), "futex/both_asleep",
       ""},
      {"ring/daemon_asleep", of(Path::kRing, true, kEngineSpin), "futex/responder_asleep",
       "ratio <= 1.5"},
      {"ring/both_asleep", of(Path::kRing, true, nanoseconds(0)), "futex/both_asleep", ""},
      {"grpc/empty", std::nullopt, "futex/both_asleep", "", Grpc::kEmpty},
      {"grpc/empty_with_deadline_and_token", std::nullopt, "grpc/empty", "", Grpc::kEmptyPrepared},
      {"grpc/unary", std::nullopt, "grpc/empty", "ratio <= 1.2", Grpc::kVerb},
      {"grpc/unary", std::nullopt, "grpc/empty_with_deadline_and_token", "", Grpc::kVerb, true},
      {"grpc/unary", std::nullopt, "ring/daemon_asleep", "", Grpc::kVerb, true},
  };
}

struct Measured {
  std::vector<double> p50, p99;  // ns, by round
  uint64_t calls = 0, sleeps = 0;
};

double Percentile(std::vector<double>& samples, double share) {
  const auto at = static_cast<ptrdiff_t>(share * static_cast<double>(samples.size() - 1));
  std::nth_element(samples.begin(), samples.begin() + at, samples.end());
  return samples[static_cast<size_t>(at)];
}

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (!options.pin || ::sched_getaffinity(0, sizeof(set), &set) != 0) return;
    std::vector<int> cpus;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(static_cast<size_t>(cpu), &set)) cpus.push_back(cpu);
    }
    if (cpus.size() < 2) return;
    caller_cpu_ = cpus[0];
    responder_cpu_ = cpus[1];
  }

  absl::Status Run() {
    // The daemon's threads go where the others' responders are, gRPC's own may be anywhere.
    KVASIR_ASSIGN_OR_RETURN(grpc_, GrpcExchange::Start(responder_cpu_));
    KVASIR_ASSIGN_OR_RETURN(empty_grpc_, EmptyGrpcExchange::Start(responder_cpu_));
    PinTo(caller_cpu_);
    std::vector<Case> cases = Cases();
    std::mt19937 random(1);
    for (uint32_t round = 0; round < options_.rounds; ++round) {
      std::shuffle(cases.begin(), cases.end(), random);
      for (const Case& one : cases) {
        if (!one.again) KVASIR_RETURN_IF_ERROR(RunRound(one));
      }
    }
    for (const Case& one : Cases()) AddRow(one);
    fmt::print("{}", report_.ToTable());
    fmt::print(
        "not measured: more than two processes at once, payloads and answers, the core's work, "
        "a daemon with other sessions, energy, other machines\n");
    const absl::Status drawn =
        DrawRatios(report_, "Time of a round trip / time of the reference", options_.json);
    if (!drawn.ok()) fmt::print(stderr, "no plot: {}\n", MessageOf(drawn));
    return report_.Write(options_.json);
  }

 private:
  absl::Status RunRound(const Case& one) {
    if (!one.setting) {
      return Time(one, options_.calls, true, [this, &one] {
        if (one.grpc == Grpc::kVerb) return grpc_->Call();
        return one.grpc == Grpc::kEmpty ? empty_grpc_->CallBare() : empty_grpc_->CallPrepared();
      });
    }
    KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<Exchange> exchange,
                            Exchange::Start(*one.setting, responder_cpu_));
    const uint32_t calls = one.setting->asleep ? options_.calls : options_.calls * 20;
    KVASIR_RETURN_IF_ERROR(
        Time(one, calls, one.setting->asleep, [&exchange] { return exchange->Call(); }));
    measured_[one.name].calls += calls + kWarmUpCalls;
    measured_[one.name].sleeps += exchange->Sleeps();
    return absl::OkStatus();
  }

  absl::Status Time(const Case& one, uint32_t calls, bool falls_asleep,
                    const std::function<absl::Status()>& call) {
    // A look at the clock costs as much as part of a call where nobody sleeps.
    const uint32_t batch = falls_asleep ? 1 : kCallsOfASample;
    std::vector<double> samples;
    for (uint32_t i = 0; i < calls + kWarmUpCalls; i += batch) {
      if (falls_asleep) {
        const Instant until = SystemClock().Now() + kFallsAsleep;
        while (SystemClock().Now() < until) ring::Pause();
      }
      const Instant start = SystemClock().Now();
      for (uint32_t k = 0; k < batch; ++k) KVASIR_RETURN_IF_ERROR(call());
      const nanoseconds took = SystemClock().Now() - start;
      if (i >= kWarmUpCalls) samples.push_back(static_cast<double>(took.count()) / batch);
    }
    measured_[one.name].p50.push_back(Percentile(samples, 0.5));
    measured_[one.name].p99.push_back(Percentile(samples, 0.99));
    return absl::OkStatus();
  }

  void AddRow(const Case& one) {
    const Measured& own = measured_[one.name];
    const MedianInterval median = MedianOf(own.p50);
    Row row;
    row.name = one.name;
    row.value = median.median;
    row.unit = "ns";
    row.goal = one.goal;
    row.extra = {{"low", median.low}, {"high", median.high}, {"p99", MedianOf(own.p99).median}};
    if (!one.reference.empty()) {
      const Measured& reference = measured_[one.reference];
      std::vector<double> ratios;
      for (size_t i = 0; i < own.p50.size(); ++i) ratios.push_back(own.p50[i] / reference.p50[i]);
      const MedianInterval ratio = MedianOf(ratios);
      row.reference = MedianOf(reference.p50).median;
      row.extra["reference_name"] = one.reference;
      row.extra["ratio_median"] = ratio.median;
      row.extra["ratio_low"] = ratio.low;
      row.extra["ratio_high"] = ratio.high;
    }
    // Of the calls, how many found a responder that had gone to sleep.
    if (own.calls > 0 && own.sleeps > 0) {
      row.extra["slept"] = static_cast<double>(own.sleeps) / static_cast<double>(own.calls);
    }
    report_.Add(std::move(row));
  }

  const Options options_;
  int caller_cpu_ = -1, responder_cpu_ = -1;
  std::unique_ptr<GrpcExchange> grpc_;
  std::unique_ptr<EmptyGrpcExchange> empty_grpc_;
  std::map<std::string, Measured> measured_;
  Report report_;
};

absl::Status RunResponder(const std::vector<int>& values) {
  if (values.size() != 9) return InvalidArgument("a responder takes 9 numbers: {}", values.size());
  PathSetting setting;
  setting.path = static_cast<Path>(values[0]);
  setting.asleep = values[1] != 0;
  PinTo(values[2]);
  SharedParts parts;
  UniqueFd* const fds[] = {&parts.words,     &parts.d,           &parts.e,
                           &parts.call_bell, &parts.answer_bell, &parts.stop};
  for (size_t i = 0; i < std::size(fds); ++i) fds[i]->reset(values[3 + i]);
  return Respond(setting, parts);
}

int Main(int argc, char** argv) {
  Options options;
  if (const char* const path = std::getenv("KVASIR_BENCH_JSON")) options.json = path;
  CLI::App app("Round trips over the command ring, beside bare wake-ups and gRPC.");
  app.add_option("--rounds", options.rounds, "rounds of all rows")->check(CLI::Range(5, 1000));
  app.add_option("--calls", options.calls, "calls of a row in a round")
      ->check(CLI::Range(100, 1'000'000));
  app.add_flag("!--no-pin", options.pin, "leave both processes where the scheduler puts them");
  app.add_option("--respond", options.respond, "")->group("");
  app.add_option(EmptyGrpcExchange::kOption, options.empty_server, "")->group("");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = !options.empty_server.empty()
                                  ? EmptyGrpcExchange::Serve(options.empty_server)
                              : options.respond.empty() ? Bench(options).Run()
                                                        : RunResponder(options.respond);
  if (!status.ok()) std::fprintf(stderr, "bench_ring: %s\n", MessageOf(status).c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace kvasir::bench

int main(int argc, char** argv) { return kvasir::bench::Main(argc, argv); }
