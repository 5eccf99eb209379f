// bench_fairness: how fast and how exactly tenants that are other users get their parts of a pool.
//
// One daemon under a user of its own, engines under others, none of which gives anything back on
// its own. Lending: one tenant takes all that it gets while the others are idle, then the owner of
// a reservation wants its 512 MiB. Overload: three tenants of weights 1, 2 and 4, that all want
// more than there is, the lightest of them first. What each is charged is asked of the daemon every
// 20 ms; the picture shows it over time.
//
// Needs root, since the kernel's word is what tells the tenants apart.
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/gnuplot.h"
#include "base/status_macros.h"
#include "bench/report.h"
#include "client/session.h"
#include "tests/support/child_process.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/daemon_process.h"
#include "tests/support/raw_client.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace kvasir::bench {
namespace {

using std::chrono::milliseconds;

constexpr uint32_t kDaemonUid = 12000, kFirstUid = 12001, kSlots = 16;
constexpr milliseconds kSample{20};
constexpr size_t kTenants = 3;

struct Options {
  uint64_t pool_mib = 2048;
  uint64_t reserved_mib = 512;
  uint64_t overload_s = 8;
};

enum class Order : uint32_t { kIdle, kTake, kEnd };

// Shared with the engines' processes.
struct Orders {
  std::array<std::atomic<uint32_t>, kTenants> order{};
};

// 16 layers of 8 heads of 128: a group of 16 slots has 1 MiB.
ModelSpec Llama() {
  ModelSpec spec;
  spec.name = "fairness";
  spec.layers.assign(16, LayerSpec{.kv_heads = 8, .k_head_dim = 128, .v_head_dim = 128});
  spec.vocabulary_size = 1000;
  spec.slots_per_block = kSlots;
  spec.weights_digest = std::string(16, 'f');
  return spec;
}

// Takes rows of ever new sequences until the order changes; after a session that was ended, anew.
void Take(const ConnectOptions& connect, size_t tenant, Orders& orders) {
  const auto goes_on = [&] {
    return orders.order[tenant].load() == static_cast<uint32_t>(Order::kTake);
  };
  while (goes_on()) {
    absl::StatusOr<std::unique_ptr<Session>> session = Session::Connect(connect);
    if (!session.ok()) continue;
    const absl::StatusOr<ModelHandle> model = (*session)->RegisterModel(Llama());
    std::vector<Sequence> sequences;
    const std::vector<uint32_t> ids(kSlots, 5);
    absl::Status status = model.status();
    while (goes_on() &&
           (status.ok() || absl::IsResourceExhausted(status) || absl::IsDeadlineExceeded(status))) {
      if (!status.ok()) std::this_thread::sleep_for(milliseconds(10));
      if (!model.ok()) break;
      if (sequences.empty() || sequences.back().rows() >= 512) {
        OpenOptions open;
        open.model = *model;
        open.retention = "full";
        open.max_rows = 1024;
        absl::StatusOr<Sequence> sequence = (*session)->OpenSequence(open);
        status = sequence.status();
        if (sequence.ok()) sequences.push_back(*std::move(sequence));
        continue;
      }
      const absl::StatusOr<StepView> step = sequences.back().Begin(kSlots);
      status = step.status();
      if (step.ok()) status = sequences.back().Commit(ids);
      if (absl::IsAborted(status)) {  // it was taken back: on with another
        sequences.pop_back();
        status = absl::OkStatus();
      }
    }
  }
}

// The whole life of an engine's process.
[[noreturn]] void BeEngine(const ConnectOptions& connect, size_t tenant, Orders& orders) {
  (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const auto uid = static_cast<uid_t>(kFirstUid + tenant);
  if (::setresgid(uid, uid, uid) != 0 || ::setresuid(uid, uid, uid) != 0) ::_exit(1);
  for (;;) {
    switch (static_cast<Order>(orders.order[tenant].load())) {
      case Order::kTake:
        Take(connect, tenant, orders);
        break;
      case Order::kEnd:
        ::_exit(0);
      case Order::kIdle:
        std::this_thread::sleep_for(milliseconds(1));
    }
  }
}

class Bench {
 public:
  Bench(const Options& options, Report* report) : options_(options), report_(*report) {
    void* const shared =
        ::mmap(nullptr, sizeof(Orders), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    orders_ = new (shared) Orders();
  }
  ~Bench() {
    for (size_t i = 0; i < kTenants; ++i) Tell(i, Order::kEnd);
    for (const pid_t pid : engines_) (void)::waitpid(pid, nullptr, 0);
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  absl::Status Run() {
    KVASIR_RETURN_IF_ERROR(Start());
    KVASIR_RETURN_IF_ERROR(Lend());
    KVASIR_RETURN_IF_ERROR(Overload());
    return absl::OkStatus();
  }

  absl::Status Draw(const std::string& json) const {
    std::string script =
        "set title 'bench fairness: charged bytes by tenant'\nset xlabel 's'\n"
        "set ylabel 'MiB'\nset key outside\nset grid\nplot ";
    for (size_t i = 0; i < kTenants; ++i) {
      script += fmt::format("'-' with lines lw 2 title 'weight {}{}'{}", 1 << i,
                            i == 2 ? ", reserved" : "", i + 1 < kTenants ? ", " : "\n");
    }
    for (size_t i = 0; i < kTenants; ++i) {
      for (const Sample& sample : samples_) {
        script += fmt::format("{} {}\n", sample.s, static_cast<double>(sample.charged[i]) / kMiB);
      }
      script += "e\n";
    }
    return DrawPlot(script, 900, 400,
                    std::filesystem::path(json).replace_extension(".svg").string());
  }

 private:
  struct Sample {
    double s = 0;
    std::array<uint64_t, kTenants> charged{};
  };

  absl::Status Start() {
    // The build folder may be closed to other users.
    std::filesystem::copy_file(testing::SiblingProgram("kvasird"), folder_.path() + "/kvasird");
    const std::string run = folder_.path() + "/run";
    std::filesystem::create_directory(run);
    if (::chmod(folder_.path().c_str(), 0755) != 0 ||
        ::chown(run.c_str(), kDaemonUid, kDaemonUid) != 0 ||
        ::chmod((folder_.path() + "/notify.sock").c_str(), 0777) != 0) {
      return Internal("a folder for the daemon cannot be made");
    }
    Config config;
    config.server.control_socket = run + "/control.sock";
    config.server.data_socket = run + "/data.sock";
    config.server.log_level = "error";
    config.memory.pool_bytes = options_.pool_mib * kMiB;
    config.memory.extent_bytes = config.memory.recent_extent_bytes = 2 * kMiB;
    config.memory.lock = Config::Memory::Lock::kOff;
    config.memory.handover = Config::Memory::Handover::kOff;
    config.memory.pressure = Config::Memory::Pressure::kOff;
    for (size_t i = 0; i < kTenants; ++i) {
      Config::Tenant tenant;
      tenant.name = fmt::format("t{}", i);
      tenant.uids = {static_cast<uint32_t>(kFirstUid + i)};
      tenant.limit_bytes = config.memory.pool_bytes;
      tenant.weight = 1U << i;
      tenant.retention = "full";
      if (i == 2) tenant.reserved_bytes = options_.reserved_mib * kMiB;
      config.tenants.push_back(tenant);
    }
    const std::string id = std::to_string(kDaemonUid);
    daemon_.set_program(folder_.path() + "/kvasird");
    if (!daemon_.Start(config, {"/usr/bin/setpriv", "--reuid=" + id, "--regid=" + id,
                                "--clear-groups", "--"})) {
      return Internal("kvasird did not start: {}", daemon_.process().ReadErrors());
    }
    ConnectOptions connect;
    connect.control_socket = config.server.control_socket;
    connect.data_socket = config.server.data_socket;
    for (size_t i = 0; i < kTenants; ++i) {  // before this process has threads of gRPC's
      const pid_t pid = ::fork();
      if (pid == 0) BeEngine(connect, i, *orders_);
      engines_.push_back(pid);
    }
    admin_ = std::make_unique<testing::RawCalls>(config.server.control_socket, "");
    start_ = SystemClock().Now();
    return absl::OkStatus();
  }

  void Tell(size_t tenant, Order order) {
    orders_->order[tenant].store(static_cast<uint32_t>(order));
  }
  void TellAll(Order order) {
    for (size_t i = 0; i < kTenants; ++i) Tell(i, order);
  }
  double Now() const { return std::chrono::duration<double>(SystemClock().Now() - start_).count(); }

  absl::Status Look(Sample* sample) {
    v1::GetStatsResponse stats;
    const grpc::Status status =
        admin_->CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats);
    if (!status.ok() || stats.tenants_size() != static_cast<int>(kTenants)) {
      return Unavailable("no statistics: {}", status.error_message());
    }
    sample->s = Now();
    for (size_t i = 0; i < kTenants; ++i) {
      const v1::MemoryCounts& host = stats.tenants(static_cast<int>(i)).host();
      sample->charged[i] = host.charged_bytes() - host.taken_back_bytes();
    }
    samples_.push_back(*sample);
    return absl::OkStatus();
  }
  // Looks until `done` says so. Errors: after `seconds`.
  template <typename Done>
  absl::StatusOr<Sample> LookUntil(double seconds, const Done& done) {
    const double begin = Now();
    for (Sample sample;;) {
      KVASIR_RETURN_IF_ERROR(Look(&sample));
      if (done(sample)) return sample;
      if (Now() - begin > seconds) {
        return DeadlineExceeded("not after {} s: charged_bytes={}/{}/{}", seconds,
                                sample.charged[0], sample.charged[1], sample.charged[2]);
      }
      std::this_thread::sleep_for(kSample);
    }
  }

  void Add(const std::string& name, double value, const std::string& unit, double reference,
           Better better, const std::string& goal) {
    Row row;
    row.name = "fairness/" + name;
    row.value = value;
    row.unit = unit;
    row.reference = reference;
    row.better = better;
    row.goal = goal;
    report_.Add(row);
  }

  absl::Status Lend() {
    const double pool = static_cast<double>(options_.pool_mib) * kMiB;
    Tell(0, Order::kTake);
    uint64_t most = 0;
    double grown_at = Now();
    KVASIR_RETURN_IF_ERROR(LookUntil(60, [&](const Sample& sample) {
                             if (sample.charged[0] > most) grown_at = sample.s;
                             most = std::max(most, sample.charged[0]);
                             return sample.s - grown_at > 1;
                           }).status());
    Add("borrowed", static_cast<double>(most) / kMiB, "MiB", pool / kMiB, Better::kHigher,
        "ratio >= 0.95");
    const double asked_at = Now();
    const uint64_t own = options_.reserved_mib * kMiB;
    Tell(2, Order::kTake);
    KVASIR_ASSIGN_OR_RETURN(const Sample back, LookUntil(10, [&](const Sample& sample) {
                              return sample.charged[2] >= own;
                            }));
    Add("reservation back", back.s - asked_at, "s", 1, Better::kLower, "ratio <= 1");
    TellAll(Order::kIdle);
    return LookUntil(10,
                     [](const Sample& sample) {
                       return sample.charged[0] + sample.charged[1] + sample.charged[2] == 0;
                     })
        .status();
  }

  absl::Status Overload() {
    for (size_t i = 0; i < kTenants; ++i) {  // who comes first has the pool for a moment
      Tell(i, Order::kTake);
      const double begin = Now();
      (void)LookUntil(2, [&](const Sample& sample) { return sample.s - begin > 1; });
    }
    const double settle = Now() + static_cast<double>(options_.overload_s) / 2;
    const double end = Now() + static_cast<double>(options_.overload_s);
    std::array<double, kTenants> sum{};
    double all = 0;
    KVASIR_RETURN_IF_ERROR(LookUntil(60, [&](const Sample& sample) {
                             for (size_t i = 0; sample.s >= settle && i < kTenants; ++i) {
                               sum[i] += static_cast<double>(sample.charged[i]);
                               all += static_cast<double>(sample.charged[i]);
                             }
                             return sample.s >= end;
                           }).status());
    for (size_t i = 0; i < kTenants; ++i) {
      Add(fmt::format("share of weight {}", 1 << i), sum[i] / all, "of the pool",
          static_cast<double>(1 << i) / 7, Better::kHigher, "ratio >= 0.95");
    }
    TellAll(Order::kIdle);
    return absl::OkStatus();
  }

  const Options options_;
  Report& report_;
  const testing::TemporaryFolder folder_;
  testing::DaemonProcess daemon_{folder_.path()};
  Orders* orders_ = nullptr;
  std::vector<pid_t> engines_;
  std::unique_ptr<testing::RawCalls> admin_;
  Instant start_;
  std::vector<Sample> samples_;
};

}  // namespace
}  // namespace kvasir::bench

int main(int argc, char** argv) {
  CLI::App app{"bench_fairness: tenants' parts of a pool that is too small"};
  std::string json = "build/bench/fairness.json";
  kvasir::bench::Options options;
  app.add_option("--pool-mib", options.pool_mib, "Size of the pool")
      ->check(CLI::Range(512, 1 << 20));
  app.add_option("--reserved-mib", options.reserved_mib, "Of it, the owner's")
      ->check(CLI::Range(64, 1 << 20));
  app.add_option("--overload-s", options.overload_s, "How long all want more")
      ->check(CLI::Range(2, 600));
  CLI11_PARSE(app, argc, argv);
  if (const char* const path = std::getenv("KVASIR_BENCH_JSON")) json = path;
  if (::geteuid() != 0) {
    std::fputs("bench_fairness: needs root: tenants are told apart by their users\n", stderr);
    return 1;
  }
  kvasir::bench::Report report;
  absl::Status status;
  {
    kvasir::bench::Bench bench(options, &report);
    status = bench.Run();
    std::fputs(report.ToTable().c_str(), stdout);
    if (status.ok()) status = report.Write(json);
    if (status.ok()) status = bench.Draw(json);
  }
  if (!status.ok()) {
    std::fprintf(stderr, "bench_fairness: %s\n", kvasir::MessageOf(status).c_str());
    return 1;
  }
  return 0;
}
