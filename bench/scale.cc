// bench_scale: what a session and a sequence cost the daemon, and whether many of them cost those
// who are at work. A tiny model (1 layer, 1 head, 16 dims), since it is the daemon's own memory
// that is looked at, and not the rows'.
//
// Sessions are connected up to 1,000, all of this process; then each opens sequences, up to
// 100,000. At each size: private memory (RssAnon) and descriptors of the daemon, by session and by
// sequence; the median of a call over the ring and of one by gRPC by one session while all others
// are idle, as a ratio to the same call when nobody else was there; and, at 100 sessions, the
// processor time of the daemon while nothing happens. Before that, how long calls of block borders
// wait for the core's lock while engines of several tenants call at once (bench/scale_lock.h).
//
// Not measured: sessions of processes of their own, and sessions of a daemon that all work at once.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
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
#include "bench/scale_lock.h"
#include "bench/statistics.h"
#include "client/session.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/daemon_process.h"

#include <CLI/CLI.hpp>
#include <dirent.h>
#include <fmt/format.h>

namespace kvasir::bench {
namespace {

constexpr int kCallsOfARound = 200, kRounds = 9, kStepRows = 2000;
constexpr uint32_t kSlots = 16;

struct Options {
  uint64_t sessions = 1000;
  uint64_t sequences = 100'000;  // of all sessions
  uint64_t idle_s = 60;
  bool lock_only = false;
};

ModelSpec TinyModel() {
  ModelSpec spec;
  spec.name = "tiny";
  spec.layers.assign(1, LayerSpec{.kv_heads = 1, .k_head_dim = 16, .v_head_dim = 16});
  spec.vocabulary_size = 1000;
  spec.slots_per_block = kSlots;
  spec.weights_digest = std::string(16, 't');
  return spec;
}

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

struct Engine {
  std::unique_ptr<Session> session;
  ModelHandle model;
  std::vector<Sequence> sequences;
};

absl::StatusOr<Engine> Connect(const Config& config, bool use_ring) {
  ConnectOptions options;
  options.control_socket = config.server.control_socket;
  options.data_socket = config.server.data_socket;
  options.deadline = std::chrono::seconds(60);
  options.use_ring = use_ring;
  Engine engine;
  KVASIR_ASSIGN_OR_RETURN(engine.session, Session::Connect(options));
  KVASIR_ASSIGN_OR_RETURN(engine.model, engine.session->RegisterModel(TinyModel()));
  return engine;
}

absl::StatusOr<Sequence> Open(Engine& engine) {
  OpenOptions open;
  open.model = engine.model;
  open.retention = "full";
  open.max_rows = 4096;
  return engine.session->OpenSequence(open);
}

// A process from outside.
class Watched {
 public:
  explicit Watched(int pid) : proc_(fmt::format("/proc/{}/", pid)) {}

  // Memory that is no other's: without segments and extents.
  double PrivateBytes() const {
    std::ifstream status(proc_ + "status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("RssAnon:")) return std::stod(line.substr(8)) * kKiB;
    }
    return 0;
  }
  double Descriptors() const {
    DIR* const folder = ::opendir((proc_ + "fd").c_str());
    if (folder == nullptr) return 0;
    int count = -2;  // . and ..
    while (::readdir(folder) != nullptr) ++count;
    ::closedir(folder);
    return count;
  }
  double ProcessorSeconds() const {
    std::ifstream stat(proc_ + "stat");
    std::string text((std::istreambuf_iterator<char>(stat)), std::istreambuf_iterator<char>());
    text.erase(0, text.rfind(')') + 2);
    std::vector<std::string> fields(1);
    for (const char c : text) {
      if (c == ' ') {
        fields.emplace_back();
      } else {
        fields.back() += c;
      }
    }
    // utime and stime, the 14th and 15th field of all; the state, the third, is fields[0].
    return (std::stod(fields.at(11)) + std::stod(fields.at(12))) /
           static_cast<double>(::sysconf(_SC_CLK_TCK));
  }

 private:
  const std::string proc_;
};

class Bench {
 public:
  Bench(const Options& options, const Config& config, int pid, Report* report)
      : options_(options), config_(config), daemon_(pid), report_(report) {}

  absl::Status Run() {
    KVASIR_ASSIGN_OR_RETURN(Engine ring, Connect(config_, true));
    KVASIR_ASSIGN_OR_RETURN(Engine grpc, Connect(config_, false));
    KVASIR_RETURN_IF_ERROR(AddCalls("0 others", ring, grpc));
    private_before_ = daemon_.PrivateBytes();
    descriptors_before_ = daemon_.Descriptors();
    for (const uint64_t count : {10, 100, 1000, 10'000}) {
      if (count > options_.sessions) break;
      KVASIR_RETURN_IF_ERROR(ConnectUpTo(count));
      KVASIR_RETURN_IF_ERROR(AddCalls(fmt::format("{} sessions", count), ring, grpc));
      if (count == 100) AddIdle();
    }
    KVASIR_RETURN_IF_ERROR(AddSteps(ring));
    const double private_before = daemon_.PrivateBytes();
    const double descriptors_before = daemon_.Descriptors();
    uint64_t opened = 0;
    for (const uint64_t share : {100, 10, 1}) {
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
    return absl::OkStatus();
  }

 private:
  static double Seconds(Instant start) {
    return std::chrono::duration<double>(SystemClock().Now() - start).count();
  }

  absl::Status ConnectUpTo(uint64_t count) {
    const Instant start = SystemClock().Now();
    const size_t before = engines_.size();
    while (engines_.size() < count) {
      KVASIR_ASSIGN_OR_RETURN(Engine engine, Connect(config_, true));
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

  // What the client does of a decode step between two block borders: begin and commit, one row of
  // each sequence of a batch.
  absl::Status AddSteps(Engine& engine) {
    for (const size_t batch : {1, 32, 1024}) {
      while (engine.sequences.size() < batch) {
        KVASIR_ASSIGN_OR_RETURN(Sequence sequence, Open(engine));
        engine.sequences.push_back(std::move(sequence));
      }
      constexpr uint32_t token = 7;
      std::vector<double> nanoseconds;  // a sequence
      for (int step = 0; step < kStepRows; ++step) {
        const Instant start = SystemClock().Now();
        for (size_t i = 0; i < batch; ++i) {
          KVASIR_RETURN_IF_ERROR(engine.sequences[i].Begin(1).status());
          KVASIR_RETURN_IF_ERROR(engine.sequences[i].Commit(std::span(&token, 1)));
        }
        const double each = Seconds(start) * 1e9 / static_cast<double>(batch);
        const uint64_t row = engine.sequences[0].rows() % kSlots;
        if (row > 2) nanoseconds.push_back(each);  // no border was near
      }
      const MedianInterval value = MedianOf(nanoseconds);
      Row row;
      row.name = fmt::format("scale/step/{} sequences", batch);
      row.value = value.median;
      row.unit = "ns a sequence";
      row.goal = "value <= 20";
      row.extra = {{"low", value.low}, {"high", value.high}, {"samples", nanoseconds.size()}};
      report_->Add(std::move(row));
      for (Sequence& sequence : engine.sequences) KVASIR_RETURN_IF_ERROR(sequence.Truncate(0));
    }
    engine.sequences.clear();
    return absl::OkStatus();
  }

  void AddIdle() {
    const double before = daemon_.ProcessorSeconds();
    const Instant start = SystemClock().Now();
    std::this_thread::sleep_for(std::chrono::seconds(options_.idle_s));
    Row row;
    row.name = "scale/idle_processor/100 sessions";
    row.value = (daemon_.ProcessorSeconds() - before) / Seconds(start);
    row.unit = "of a core";
    row.goal = "value < 0.001";
    row.extra = {{"seconds", options_.idle_s}};
    report_->Add(std::move(row));
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
  const Watched daemon_;
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
  app.add_option("--sessions", options.sessions, "Sessions in all")->check(CLI::Range(1, 10'000));
  app.add_option("--sequences", options.sequences, "Sequences of all sessions")
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
  const absl::Status written = report.Write(json);
  if (!written.ok()) {
    std::fprintf(stderr, "bench_scale: %s\n", kvasir::MessageOf(written).c_str());
    return 1;
  }
  return 0;
}
