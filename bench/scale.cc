// bench_scale: what a session and a sequence cost the daemon, and whether many of them cost those
// who are at work. A tiny model (1 layer, 1 head, 16 dims), since it is the daemon's own memory
// that is looked at, and not the rows'.
//
// Sessions are connected up to 1,000, all of this process; then each opens sequences, up to
// 100,000, and one caches blocks. At each size: private memory (RssAnon) and descriptors of the
// daemon, by session, by sequence and by thousand blocks; the median of a call over the ring and of
// one by gRPC by one session while all others are idle, as a ratio to the same call when nobody
// else was there; and, at 100 sessions, the processor time of the daemon while nothing happens.
// Before that, how long calls of block borders wait for the core's lock while engines of several
// tenants call at once (bench/scale_lock.h).
//
// Not measured: sessions of processes of their own, and sessions of a daemon that all work at once.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "bench/report.h"
#include "bench/scale_engine.h"
#include "bench/scale_lock.h"
#include "bench/scale_plot.h"
#include "bench/scale_steps.h"
#include "bench/statistics.h"
#include "bench/watched_process.h"
#include "client/session.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/daemon_process.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace kvasir::bench {
namespace {

constexpr int kCallsOfARound = 200, kRounds = 9;

struct Options {
  uint64_t sessions = 1000;
  uint64_t sequences = 100'000;  // of all sessions
  uint64_t blocks = 102'400;     // cached, at most
  uint64_t idle_s = 60;
  bool lock_only = false;
};

Config MakeConfig(const std::string& folder, const Options& options) {
  Config config;
  config.server.control_socket = folder + "/control.sock";
  config.server.data_socket = folder + "/data.sock";
  config.server.log_level = "warn";
  config.memory.pool_bytes = 8 * kGiB;
  config.memory.lock = Config::Memory::Lock::kOff;
  config.memory.handover = Config::Memory::Handover::kOff;
  config.memory.pressure = Config::Memory::Pressure::kOff;  // other work is not what is measured
  config.limits.sequences_per_session_max = 1024;
  config.limits.sessions_max = static_cast<uint32_t>(options.sessions + 16);
  config.admin.uids = {::geteuid()};
  Config::Tenant tenant;
  tenant.name = "bench";
  tenant.uids = {::geteuid()};
  tenant.limit_bytes = config.memory.pool_bytes;
  tenant.retention = "full";
  config.tenants = {tenant};
  return config;
}

class Bench {
 public:
  Bench(const Options& options, const Config& config, int pid, Report* report)
      : options_(options), config_(config), daemon_(pid), report_(report) {}

  absl::Status Run() {
    KVASIR_ASSIGN_OR_RETURN(Engine ring, Connect(config_.server, true));
    KVASIR_ASSIGN_OR_RETURN(Engine grpc, Connect(config_.server, false));
    KVASIR_RETURN_IF_ERROR(AddCalls("0 others", ring, grpc));
    private_before_ = daemon_.PrivateBytes();
    descriptors_before_ = daemon_.Descriptors();
    for (const uint64_t count : {10, 100, 1000, 10'000}) {
      if (count > options_.sessions) break;
      KVASIR_RETURN_IF_ERROR(ConnectUpTo(count));
      KVASIR_RETURN_IF_ERROR(AddCalls(fmt::format("{} sessions", count), ring, grpc));
      if (count == 100) AddIdle();
    }
    const double private_before = daemon_.PrivateBytes();
    const double descriptors_before = daemon_.Descriptors();
    uint64_t opened = 0;
    for (const uint64_t share : {100U, 10U, 1U}) {
      const uint64_t wanted = options_.sequences / share / engines_.size();
      const Instant start = SystemClock().Now();
      const uint64_t before = opened;
      for (Engine& engine : engines_) {
        while (engine.sequences.size() < wanted) {
          KVASIR_ASSIGN_OR_RETURN(Sequence sequence, Open(engine));
          engine.sequences.push_back(std::move(sequence));
          ++opened;
        }
      }
      if (opened == before) continue;
      const std::string of = fmt::format("{} sequences", opened);
      Add("scale/open/" + of, Seconds(start) * 1e6 / static_cast<double>(opened - before),
          "us a sequence");
      const auto count = static_cast<double>(opened);
      Add("scale/private_memory/" + of, (daemon_.PrivateBytes() - private_before) / count,
          "B a sequence");
      Add("scale/descriptors/" + of, (daemon_.Descriptors() - descriptors_before) / count,
          "a sequence");
      KVASIR_RETURN_IF_ERROR(AddCalls(of, ring, grpc));
    }
    KVASIR_RETURN_IF_ERROR(AddBlocks(ring));
    // Last: what its sequences leave free in the daemon's heap would hide what others take.
    return AddSteps(ring, report_);
  }

 private:
  static double Seconds(Instant start) {
    return std::chrono::duration<double>(SystemClock().Now() - start).count();
  }

  absl::Status ConnectUpTo(uint64_t count) {
    const Instant start = SystemClock().Now();
    const size_t before = engines_.size();
    while (engines_.size() < count) {
      KVASIR_ASSIGN_OR_RETURN(Engine engine, Connect(config_.server, true));
      engines_.push_back(std::move(engine));
    }
    const std::string of = fmt::format("{} sessions", count);
    Add("scale/connect/" + of, Seconds(start) * 1e3 / static_cast<double>(count - before),
        "ms a session");
    const auto sessions = static_cast<double>(count);
    Add("scale/private_memory/" + of, (daemon_.PrivateBytes() - private_before_) / sessions,
        "B a session");
    Add("scale/descriptors/" + of, (daemon_.Descriptors() - descriptors_before_) / sessions,
        "a session");
    return absl::OkStatus();
  }

  // A look at a prefix that nobody has: the same work however many there are.
  absl::StatusOr<double> MedianCall(Engine& engine) const {
    PrefixOptions prefix;
    prefix.tokens.assign(32, 7);
    std::vector<double> microseconds;
    for (int call = 0; call < kCallsOfARound; ++call) {
      const Instant start = SystemClock().Now();
      KVASIR_RETURN_IF_ERROR(engine.session->MatchPrefix(engine.model, prefix).status());
      microseconds.push_back(Seconds(start) * 1e6);
    }
    return MedianOf(std::move(microseconds)).median;
  }

  // What has begun (the pool's stock, e.g.) comes to its end.
  void WaitForRest() const {
    constexpr std::chrono::milliseconds kStill{300};
    for (double before = -1; before < daemon_.ProcessorSeconds();) {
      before = daemon_.ProcessorSeconds();
      std::this_thread::sleep_for(kStill);
    }
  }

  absl::Status AddCalls(const std::string& beside, Engine& ring, Engine& grpc) {
    WaitForRest();
    std::vector<double> by_ring, by_grpc;
    for (int round = 0; round < kRounds; ++round) {
      KVASIR_ASSIGN_OR_RETURN(const double first, MedianCall(ring));
      KVASIR_ASSIGN_OR_RETURN(const double second, MedianCall(grpc));
      if (round == 0) continue;  // warm-up
      by_ring.push_back(first);
      by_grpc.push_back(second);
    }
    AddCall("scale/ring_call/" + beside, by_ring, &alone_ring_);
    AddCall("scale/grpc_call/" + beside, by_grpc, &alone_grpc_);
    return absl::OkStatus();
  }

  void AddCall(const std::string& name, const std::vector<double>& samples, double* alone) {
    const MedianInterval value = MedianOf(samples);
    if (*alone <= 0) *alone = value.median;
    Row row;
    row.name = name;
    row.value = value.median;
    row.unit = "us";
    row.reference = *alone;
    row.extra = {{"low", value.low}, {"high", value.high}, {"samples", samples.size()}};
    report_->Add(std::move(row));
  }

  // Memory about blocks that are cached, beside the rows themselves.
  absl::Status AddBlocks(Engine& engine) {
    constexpr uint32_t kRows = 4096;
    const double before = daemon_.PrivateBytes();
    uint64_t blocks = 0;
    for (const uint64_t wanted : {1'024, 10'240, 102'400}) {
      if (wanted > options_.blocks) break;
      for (; blocks < wanted; blocks += std::min<uint64_t>(kRows / kScaleSlots, wanted - blocks)) {
        OpenOptions open;
        open.model = engine.model;
        open.retention = "full";
        const uint64_t rows = std::min<uint64_t>(kRows, (wanted - blocks) * kScaleSlots);
        std::vector<uint32_t> tokens(rows);
        for (uint64_t i = 0; i < rows; ++i) tokens[i] = static_cast<uint32_t>((blocks + i) % 1000);
        tokens[0] = static_cast<uint32_t>(blocks % 997);  // no prefix begins as another one
        tokens[1] = static_cast<uint32_t>(blocks / 997);
        open.prefix = PrefixOptions{tokens, {}, "", 0, std::nullopt};
        KVASIR_ASSIGN_OR_RETURN(Sequence sequence, engine.session->OpenSequence(open));
        if (sequence.rows() != 0) return Internal("a prefix is cached before it is published");
        while (sequence.rows() < rows) {
          const std::span left = std::span(tokens).subspan(sequence.rows());
          KVASIR_ASSIGN_OR_RETURN(const StepView view,
                                  sequence.Begin(static_cast<uint32_t>(left.size())));
          KVASIR_RETURN_IF_ERROR(sequence.Commit(left.first(view.count)));
        }
        KVASIR_ASSIGN_OR_RETURN(const Sequence::Published published, sequence.PublishPrefix());
        if (published.rows != rows)
          return Internal("published {} of {} rows", published.rows, rows);
      }
      Add(fmt::format("scale/private_memory/{} cached blocks", blocks),
          (daemon_.PrivateBytes() - before) * 1000 / static_cast<double>(blocks),
          "B a thousand blocks");
    }
    return absl::OkStatus();
  }

  // Behind thousands of calls, whose deadlines gRPC's timers still come by; then behind those.
  void AddIdle() {
    for (const bool first : {true, false}) {
      const double before = daemon_.ProcessorSeconds();
      const Instant start = SystemClock().Now();
      std::this_thread::sleep_for(std::chrono::seconds(options_.idle_s));
      Row row;
      row.name = first ? "scale/idle_processor_behind_calls/100 sessions"
                       : "scale/idle_processor/100 sessions";
      row.value = (daemon_.ProcessorSeconds() - before) / Seconds(start);
      row.unit = "of a core";
      if (!first) row.goal = "value < 0.001";
      row.extra = {{"seconds", options_.idle_s}};
      report_->Add(std::move(row));
    }
  }

  void Add(const std::string& name, double value, const std::string& unit) {
    Row row;
    row.name = name;
    row.value = value;
    row.unit = unit;
    report_->Add(std::move(row));
  }

  const Options& options_;
  const Config& config_;
  const WatchedProcess daemon_;
  Report* const report_;
  std::vector<Engine> engines_;
  double private_before_ = 0, descriptors_before_ = 0, alone_ring_ = 0, alone_grpc_ = 0;
};

absl::Status Run(const Options& options, Report* report) {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {  // of this process and of the daemon
    files.rlim_cur = files.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &files);
  }
  AddLockRows(report);
  if (options.lock_only) return absl::OkStatus();
  const testing::TemporaryFolder folder;
  const Config config = MakeConfig(folder.path(), options);
  testing::DaemonProcess daemon(folder.path());
  if (!daemon.Start(config)) return Internal("kvasird did not start");
  return Bench(options, config, daemon.process().pid(), report).Run();
}

}  // namespace
}  // namespace kvasir::bench

int main(int argc, char** argv) {
  CLI::App app{"bench_scale: many sessions and sequences"};
  std::string json = "build/bench/scale.json";
  kvasir::bench::Options options;
  app.add_option("--sessions", options.sessions, "Sessions in all")->check(CLI::Range(10, 10'000));
  app.add_option("--sequences", options.sequences, "Sequences of all sessions")
      ->check(CLI::Range(0, 1'000'000));
  app.add_option("--blocks", options.blocks, "Cached blocks at most")
      ->check(CLI::Range(0, 1'000'000));
  app.add_option("--idle-s", options.idle_s, "How long nothing happens")
      ->check(CLI::Range(1, 3600));
  app.add_flag("--lock-only", options.lock_only, "Only how long calls wait for the core's lock");
  CLI11_PARSE(app, argc, argv);
  if (const char* const path = std::getenv("KVASIR_BENCH_JSON")) json = path;
  kvasir::bench::Report report;
  const absl::Status status = kvasir::bench::Run(options, &report);
  std::fputs(report.ToTable().c_str(), stdout);
  if (!status.ok()) {
    std::fprintf(stderr, "bench_scale: %s\n", kvasir::MessageOf(status).c_str());
    return 1;
  }
  std::puts("not measured: sessions of processes of their own, and sessions that all work at once");
  const absl::Status written = report.Write(json);
  if (!written.ok()) {
    std::fprintf(stderr, "bench_scale: %s\n", kvasir::MessageOf(written).c_str());
    return 1;
  }
  if (options.lock_only) return 0;
  const absl::Status drawn = kvasir::bench::DrawScale(report, json);
  if (!drawn.ok()) {
    std::fprintf(stderr, "bench_scale: no plot: %s\n", kvasir::MessageOf(drawn).c_str());
  }
  return 0;
}
