// bench_isolation: what a tenant's attack does to the calls of another.
//
// One daemon under a user of its own, as configured by default but for a small pool; a victim, an
// engine at a steady pace of some 800 calls a second; and an attacker under a third user, a new
// process for each measurement. Each attack is followed by threads that burn as much processor time
// as those of the attacker have just used, each as much as one of them, in the same twentieth of a
// second and in pieces as long, and never talk to the daemon: the victim beside them is what the
// victim beside the attack is compared with. Rounds are interleaved; a ratio is
// that of one round.
//
// Not measured: attackers under several users at once, attacks through memory bandwidth and caches,
// which burning does not imitate, and a machine of more than the cores that it has.
//
// Needs root, since the kernel's word is what tells the tenants apart.
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "bench/isolation_attacks.h"
#include "bench/isolation_board.h"
#include "bench/isolation_use.h"
#include "bench/isolation_victim.h"
#include "bench/ratio_plot.h"
#include "bench/report.h"
#include "bench/statistics.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/daemon_process.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <time.h>

namespace kvasir::bench {
namespace {

using std::chrono::milliseconds;

constexpr uint32_t kDaemonUid = 12000;
constexpr size_t kModes = static_cast<size_t>(Mode::kCount);
constexpr std::array<const char*, kKinds> kKindNames = {"ring call", "gRPC call", "block", "open",
                                                        "connect"};
// A call that failed took for ever, as far as the victim is concerned.
constexpr double kFailedUs = 10e6;

struct Options {
  uint64_t rounds = 5;
  uint64_t window_ms = 4000;
  uint32_t threads = 4;
  std::string only;
  std::string json = "build/bench/isolation.json";
};

template <typename T>
T* Share() {
  void* const memory =
      ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return new (memory) T();
}

double ProcessSeconds(pid_t pid) {
  clockid_t clock = 0;
  timespec time{};
  if (::clock_getcpuclockid(pid, &clock) != 0 || ::clock_gettime(clock, &time) != 0) return 0;
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double ThreadsOf(pid_t pid) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("Threads:")) return std::stod(line.substr(8));
  }
  return 0;
}

double Percentile(std::vector<double> samples, double part) {
  if (samples.empty()) return 0;
  std::sort(samples.begin(), samples.end());
  return samples[static_cast<size_t>(part * static_cast<double>(samples.size() - 1))];
}

// The victim beside one attacker, in one round.
struct Window {
  std::array<std::vector<double>, kKinds> us;
  std::array<uint64_t, kKinds> failed{};
  double attacker_cores = 0, daemon_cores = 0, daemon_threads = 0;
  std::vector<ThreadUse> use;  // of the attacker
  double done_per_s = 0, refused_per_s = 0, calls_per_s = 0;

  std::vector<double> All() const {
    std::vector<double> all;
    for (const std::vector<double>& kind : us) all.insert(all.end(), kind.begin(), kind.end());
    return all;
  }
};

class Bench {
 public:
  Bench(const Options& options, Report* report)
      : options_(options), report_(*report), board_(Share<VictimBoard>()) {}
  ~Bench() { Kill(victim_); }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  absl::Status Run() {
    KVASIR_RETURN_IF_ERROR(Start());
    for (uint64_t round = 0; round < options_.rounds; ++round) {
      for (size_t i = 1; i < kModes; ++i) {
        const Mode mode = static_cast<Mode>(i);
        if (!options_.only.empty() && options_.only != NameOf(mode)) continue;
        KVASIR_ASSIGN_OR_RETURN(Window attack, Measure(mode, {}));
        KVASIR_ASSIGN_OR_RETURN(Window burn, Measure(Mode::kBurn, attack.use));
        std::fprintf(stderr, "round %lu: %s p99 %.0f us, beside a burner %.0f us\n", round + 1,
                     NameOf(mode), Percentile(attack.All(), 0.99), Percentile(burn.All(), 0.99));
        measured_[mode].emplace_back(std::move(attack), std::move(burn));
      }
    }
    for (const auto& [mode, rounds] : measured_) AddMode(mode);
    AddWorst();
    return absl::OkStatus();
  }

 private:
  absl::Status Start() {
    // The build folder may be closed to other users.
    const std::string program = folder_.path() + "/kvasird", run = folder_.path() + "/run";
    std::filesystem::copy_file(testing::SiblingProgram("kvasird"), program);
    std::filesystem::create_directory(run);
    if (::chmod(folder_.path().c_str(), 0755) != 0 ||
        ::chown(run.c_str(), kDaemonUid, kDaemonUid) != 0 ||
        ::chmod((folder_.path() + "/notify.sock").c_str(), 0777) != 0) {
      return Internal("a folder for the daemon cannot be made");
    }
    Config config;
    config.server.control_socket = run + "/control.sock";
    config.server.data_socket = run + "/data.sock";
    config.memory.pool_bytes = 512 * kMiB;
    config.memory.lock = Config::Memory::Lock::kOff;
    config.memory.handover = Config::Memory::Handover::kOff;
    config.memory.pressure = Config::Memory::Pressure::kOff;  // other work is not what is measured
    for (const auto& [name, uid] : {std::pair{"victim", kVictimUid}, {"attacker", kAttackerUid}}) {
      Config::Tenant tenant;
      tenant.name = name;
      tenant.uids = {uid};
      tenant.limit_bytes = config.memory.pool_bytes / 2;
      tenant.retention = "full";
      config.tenants.push_back(tenant);
    }
    const std::string id = std::to_string(kDaemonUid);
    daemon_.set_program(program);
    // What it logs is written, as on any host, and not read by anybody here.
    if (!daemon_.Start(config, {"/usr/bin/setsid", "/usr/bin/setpriv", "--reuid=" + id,
                                "--regid=" + id, "--clear-groups", "--", "/bin/sh", "-c",
                                "exec \"$@\" 2>" + run + "/log", "sh"})) {
      return Internal("kvasird did not start: see its log");
    }
    connect_.control_socket = config.server.control_socket;
    connect_.data_socket = config.server.data_socket;
    victim_ = ::fork();  // this process never has threads
    if (victim_ == 0) {
      (void)::setsid();
      BeVictim(connect_, *board_);
    }
    for (int i = 0; i < 1000 && !board_->ready; ++i) Sleep(10);
    if (!board_->ready) return Internal("the victim did not start: {}", board_->error.data());
    Sleep(500);
    return absl::OkStatus();
  }

  static void Sleep(uint64_t ms) { std::this_thread::sleep_for(milliseconds(ms)); }
  static void Kill(pid_t pid) {
    if (pid <= 0) return;
    (void)::kill(pid, SIGKILL);
    (void)::waitpid(pid, nullptr, 0);
  }

  // What an attacker held is given back, and that takes the daemon a while.
  void WaitForRest() {
    for (int i = 0; i < 40; ++i) {
      const double before = ProcessSeconds(daemon_.process().pid());
      Sleep(500);
      if (ProcessSeconds(daemon_.process().pid()) - before < 0.1) return;
    }
  }

  absl::StatusOr<Window> Measure(Mode mode, const std::vector<ThreadUse>& burn) {
    AttackBoard* const attack = Share<AttackBoard>();
    const pid_t pid = ::fork();
    if (pid == 0) {
      (void)::setsid();
      BeAttacker({mode, connect_.control_socket, connect_.data_socket, options_.threads, burn},
                 *attack);
    }
    for (int i = 0; i < 1000 && !attack->ready; ++i) Sleep(10);
    const bool ready = attack->ready;
    std::vector<std::map<std::string, Used>> looks{UsedBy(pid)};
    const auto look_for = [&](uint64_t ms) {
      const Instant end = SystemClock().Now() + milliseconds(ms);
      for (Instant next = SystemClock().Now(); next < end;) {
        std::this_thread::sleep_until(next += ThreadUse::kBin);
        looks.push_back(UsedBy(pid));
      }
    };
    look_for(300);
    board_->count = 0;
    const uint64_t done = attack->done, refused = attack->refused;
    const double attacker = ProcessSeconds(pid), daemon = ProcessSeconds(daemon_.process().pid());
    const Instant start = SystemClock().Now();
    board_->window = ++window_;
    look_for(options_.window_ms);
    board_->window = 0;
    const double s = std::chrono::duration<double>(SystemClock().Now() - start).count();
    Window window;
    window.use = UseOf(looks);
    window.attacker_cores = (ProcessSeconds(pid) - attacker) / s;
    window.daemon_cores = (ProcessSeconds(daemon_.process().pid()) - daemon) / s;
    window.daemon_threads = ThreadsOf(daemon_.process().pid());
    window.done_per_s = static_cast<double>(attack->done - done) / s;
    window.refused_per_s = static_cast<double>(attack->refused - refused) / s;
    // The call under way counts, however long it takes: its deadline is ten seconds.
    for (int i = 0; i < 1200 && board_->current != 0; ++i) Sleep(10);
    Kill(pid);
    (void)::munmap(attack, sizeof(*attack));
    WaitForRest();
    if (!ready) return Internal("the attacker did not start: mode={}", NameOf(mode));
    if (board_->ended) return Internal("the victim has ended: {}", board_->error.data());
    const uint32_t count = board_->count;
    for (uint32_t i = 0; i < count; ++i) {
      const Sample& sample = board_->samples[i];
      if (sample.window != window_) continue;
      const auto kind = static_cast<size_t>(sample.kind);
      window.us[kind].push_back(sample.failed ? kFailedUs : static_cast<double>(sample.us));
      window.failed[kind] += sample.failed ? 1 : 0;
      window.calls_per_s += 1 / s;
    }
    return window;
  }

  // One row: a percentile beside that of the burner, by round.
  template <typename Get>
  void Add(Mode mode, const std::string& name, const std::string& goal, const Get& get,
           const nlohmann::ordered_json& extra = nlohmann::ordered_json::object()) {
    std::vector<double> own, beside, ratios;
    for (const auto& [attack, burn] : measured_[mode]) {
      own.push_back(get(attack));
      beside.push_back(get(burn));
      ratios.push_back(own.back() / std::max(beside.back(), 1e-3));
    }
    const MedianInterval ratio = MedianOf(ratios);
    Row row;
    row.name = fmt::format("isolation/{}/{}", NameOf(mode), name);
    row.value = MedianOf(own).median;
    row.unit = "us";
    row.reference = MedianOf(beside).median;
    row.reference_name = "burner";
    row.goal = goal;
    row.extra = {{"ratio_median", ratio.median}, {"low", ratio.low}, {"high", ratio.high}};
    row.extra.update(extra);
    report_.Add(std::move(row));
  }

  void AddMode(Mode mode) {
    const auto median = [this, mode](const auto& get) {
      std::vector<double> values;
      for (const auto& each : measured_[mode]) values.push_back(get(each));
      return MedianOf(values).median;
    };
    Add(mode, "victim p99", "ratio <= 2",
        [](const Window& window) { return Percentile(window.All(), 0.99); },
        {{"victim_calls_per_s", median([](const auto& w) { return w.first.calls_per_s; })},
         {"attacker_cores", median([](const auto& w) { return w.first.attacker_cores; })},
         {"burner_cores", median([](const auto& w) { return w.second.attacker_cores; })},
         {"daemon_cores", median([](const auto& w) { return w.first.daemon_cores; })},
         {"daemon_cores_alone", median([](const auto& w) { return w.second.daemon_cores; })},
         {"daemon_threads", median([](const auto& w) { return w.first.daemon_threads; })},
         {"attacks_per_s", median([](const auto& w) { return w.first.done_per_s; })},
         {"refused_per_s", median([](const auto& w) { return w.first.refused_per_s; })}});
    Add(mode, "victim p50", "", [](const Window& w) { return Percentile(w.All(), 0.5); });
    for (size_t kind = 0; kind < kKinds; ++kind) {
      uint64_t failed = 0, calls = 0;
      for (const auto& [attack, burn] : measured_[mode]) {
        failed += attack.failed[kind];
        calls += attack.us[kind].size();
      }
      Add(mode, fmt::format("{} p99", kKindNames[kind]), "",
          [=](const Window& w) { return Percentile(w.us[kind], 0.99); },
          {{"calls", calls}, {"failed", failed}});
    }
  }

  void AddWorst() {
    const Row* worst = nullptr;
    for (const Row& row : report_.rows()) {
      if (!row.name.ends_with("/victim p99")) continue;
      if (worst == nullptr || row.extra["ratio_median"] > worst->extra["ratio_median"]) {
        worst = &row;
      }
    }
    if (worst == nullptr) return;
    Row row = *worst;
    row.extra = {{"ratio_median", worst->extra["ratio_median"]}, {"mode", worst->name}};
    row.name = "isolation/victim p99";
    report_.Add(std::move(row));
  }

  const Options options_;
  Report& report_;
  const testing::TemporaryFolder folder_;
  testing::DaemonProcess daemon_{folder_.path()};
  ConnectOptions connect_;
  VictimBoard* const board_;
  pid_t victim_ = -1;
  uint32_t window_ = 0;
  std::map<Mode, std::vector<std::pair<Window, Window>>> measured_;  // by round: attack, burner
};

absl::Status Run(const Options& options) {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {  // of the daemon: what its unit gives it
    files.rlim_cur = std::min<rlim_t>(65'536, files.rlim_max);
    (void)::setrlimit(RLIMIT_NOFILE, &files);
  }
  Report report;
  absl::Status status = Bench(options, &report).Run();
  std::fputs(report.ToTable().c_str(), stdout);
  std::puts(
      "not measured: attackers under several users at once, memory bandwidth and caches, which "
      "burning does not imitate, other machines");
  KVASIR_RETURN_IF_ERROR(status);
  KVASIR_RETURN_IF_ERROR(report.Write(options.json));
  return DrawRatios(report, "bench isolation: the victim beside an attack, and beside a burner",
                    options.json);
}

}  // namespace
}  // namespace kvasir::bench

int main(int argc, char** argv) {
  CLI::App app{"bench_isolation: what one tenant's attack does to another's calls"};
  kvasir::bench::Options options;
  app.add_option("--rounds", options.rounds, "Rounds")->check(CLI::Range(1, 99));
  app.add_option("--window-ms", options.window_ms, "Length of a measurement")
      ->check(CLI::Range(100, 60'000));
  app.add_option("--threads", options.threads, "Of the attacker")->check(CLI::Range(1, 64));
  app.add_option("--only", options.only, "One attack: ring, grpc, connections, huge or silent");
  CLI11_PARSE(app, argc, argv);
  if (const char* const path = std::getenv("KVASIR_BENCH_JSON")) options.json = path;
  if (::geteuid() != 0) {
    std::fputs("bench_isolation: needs root: tenants are told apart by their users\n", stderr);
    return 1;
  }
  const absl::Status status = kvasir::bench::Run(options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "bench_isolation: %s\n", kvasir::MessageOf(status).c_str());
  return 1;
}
