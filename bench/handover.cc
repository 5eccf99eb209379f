// bench_handover: how long a killed daemon with a full pool is away, and what its cache is worth
// after that.
//
// A pool of 4 GiB is filled with prefixes of Llama-3-8B's shape. Then, several times: SIGKILL, a
// new kvasird (with the stand-in for the service manager that tests have), and timed from its
// start: until it says READY=1; until an engine has connected, registered its model and attached a
// prefix of 128 MiB, all bytes of it verified; until everything is verified. Beside them, in the
// same run: reading as many bytes of memory once, on one thread.
//
// Not measured: systemd itself, and a pool that is locked (a user's limit is small).
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "bench/report.h"
#include "bench/statistics.h"
#include "client/session.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/daemon_process.h"
#include "tests/support/raw_client.h"

#include <CLI/CLI.hpp>
#include <xxhash.h>

namespace kvasir::bench {
namespace {

constexpr uint64_t kPromptRows = 1024;
constexpr uint64_t kRowBytes = 32 * 2 * 8 * 128 * 2;  // 32 layers, K and V, 8 heads of 128, f16

ModelSpec LlamaShape() {
  ModelSpec spec;
  spec.name = "the shape of Llama-3-8B";
  spec.layers.assign(
      32, LayerSpec{.kv_heads = 8, .k_head_dim = 128, .v_head_dim = 128, .query_heads = 32});
  spec.vocabulary_size = 128'256;
  spec.weights_digest = std::string(16, 'w');
  return spec;
}

std::vector<uint32_t> PromptOf(uint32_t number) {
  std::vector<uint32_t> tokens(kPromptRows);
  for (uint32_t i = 0; i < kPromptRows; ++i) tokens[i] = (number * 7919 + i * 31) % 128'000;
  return tokens;
}

Config MakeConfig(const std::string& folder, uint64_t pool_bytes) {
  Config config;
  config.server.control_socket = folder + "/control.sock";
  config.server.data_socket = folder + "/data.sock";
  config.server.log_level = "warn";
  config.memory.pool_bytes = pool_bytes;
  config.memory.lock = Config::Memory::Lock::kOff;
  config.admin.uids = {::geteuid()};
  Config::Tenant tenant;
  tenant.name = "bench";
  tenant.uids = {::geteuid()};
  tenant.limit_bytes = pool_bytes;
  tenant.retention = "full";
  config.tenants = {tenant};
  return config;
}

struct Engine {
  std::unique_ptr<Session> session;
  ModelHandle model;
};

absl::StatusOr<Engine> Connect(const Config& config) {
  ConnectOptions options;
  options.control_socket = config.server.control_socket;
  options.data_socket = config.server.data_socket;
  options.deadline = std::chrono::seconds(60);
  Engine engine;
  KVASIR_ASSIGN_OR_RETURN(engine.session, Session::Connect(options));
  KVASIR_ASSIGN_OR_RETURN(engine.model, engine.session->RegisterModel(LlamaShape()));
  return engine;
}

absl::StatusOr<Sequence> Open(Engine& engine, const std::vector<uint32_t>& tokens) {
  OpenOptions open;
  open.model = engine.model;
  open.retention = "full";
  open.prefix = PrefixOptions{};
  open.prefix->tokens = tokens;
  return engine.session->OpenSequence(open);
}

absl::Status Publish(Engine& engine, const std::vector<uint32_t>& tokens) {
  KVASIR_ASSIGN_OR_RETURN(Sequence sequence, Open(engine, tokens));
  while (sequence.rows() < tokens.size()) {  // the rows' bytes do not matter
    KVASIR_ASSIGN_OR_RETURN(const StepView step,
                            sequence.Begin(static_cast<uint32_t>(
                                std::min<uint64_t>(256, tokens.size() - sequence.rows()))));
    KVASIR_RETURN_IF_ERROR(sequence.Commit(std::span(tokens).subspan(step.row, step.count)));
  }
  return sequence.PublishPrefix().status();
}

size_t PrefixesIn(const Config& config, const std::string& place) {
  v1::ListPrefixesResponse response;
  const grpc::Status status =
      testing::RawCalls(config.server.control_socket, "")
          .CallAdmin(&v1::Admin::Stub::ListPrefixes, v1::ListPrefixesRequest(), &response);
  if (!status.ok()) return 0;
  return static_cast<size_t>(
      std::count_if(response.prefixes().begin(), response.prefixes().end(),
                    [&](const v1::PrefixInfo& prefix) { return prefix.place() == place; }));
}

double MillisecondsSince(Instant start) {
  return std::chrono::duration<double, std::milli>(SystemClock().Now() - start).count();
}

void Add(const std::string& name, const std::vector<double>& samples, double reference,
         const std::string& goal, Report* report) {
  const MedianInterval value = MedianOf(samples);
  Row row;
  row.name = name;
  row.value = value.median;
  row.unit = "ms";
  row.reference = reference;
  row.goal = goal;
  row.extra = {{"low", value.low}, {"high", value.high}, {"samples", samples.size()}};
  report->Add(std::move(row));
}

absl::Status Run(uint64_t pool_bytes, int rounds, Report* report) {
  const testing::TemporaryFolder folder;
  const Config config = MakeConfig(folder.path(), pool_bytes);
  testing::DaemonProcess daemon(folder.path());
  testing::FdKeeper& keeper = daemon.KeepDescriptors();
  if (!daemon.Start(config)) return Internal("kvasird did not start");
  const uint64_t prompts = pool_bytes / 100 * 93 / (kPromptRows * kRowBytes);
  {
    KVASIR_ASSIGN_OR_RETURN(Engine engine, Connect(config));
    for (uint32_t i = 0; i < prompts; ++i) KVASIR_RETURN_IF_ERROR(Publish(engine, PromptOf(i)));
  }
  while (keeper.Count("kvasir-extent-") * config.memory.extent_bytes <
         prompts * kPromptRows * kRowBytes / 100 * 95) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  std::this_thread::sleep_for(std::chrono::seconds(1));  // the last record
  const std::vector<uint64_t> memory(kGiB / sizeof(uint64_t), 1);
  std::vector<double> ready, first, all, read;
  for (int round = 0; round < rounds; ++round) {
    daemon.process().Signal(SIGKILL);
    (void)daemon.process().Wait();
    Instant start = SystemClock().Now();
    if (!daemon.Start(config)) return Internal("kvasird did not start again");
    ready.push_back(MillisecondsSince(start));
    KVASIR_ASSIGN_OR_RETURN(Engine engine, Connect(config));
    {
      KVASIR_ASSIGN_OR_RETURN(Sequence sequence,
                              Open(engine, PromptOf(static_cast<uint32_t>(prompts / 2))));
      if (sequence.rows() != kPromptRows) {
        return Internal("a prefix is not there: rows={}", sequence.rows());
      }
      KVASIR_RETURN_IF_ERROR(sequence.Begin(1).status());
      first.push_back(MillisecondsSince(start));
    }
    while (PrefixesIn(config, "handover") > 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    all.push_back(MillisecondsSince(start));
    const size_t there = PrefixesIn(config, "memory");
    if (there != prompts) return Internal("prefixes are gone: count={} of={}", there, prompts);
    start = SystemClock().Now();
    const uint64_t sum = XXH3_64bits(memory.data(), kGiB);
    const double once = MillisecondsSince(start);
    if (sum == 0) return Internal("a digest of nothing");
    read.push_back(once * static_cast<double>(prompts * kPromptRows * kRowBytes) / kGiB);
  }
  const double reading = MedianOf(read).median;
  Add("handover/read_and_digest_once", read, reading, "", report);
  Add("handover/ready", ready, reading, "value < 1000", report);
  Add("handover/first_attach", first, reading, "", report);
  Add("handover/all_verified", all, reading, "", report);
  Row size;
  size.name = "handover/bytes";
  size.value = static_cast<double>(prompts * kPromptRows * kRowBytes);
  size.unit = "bytes of prefixes";
  report->Add(std::move(size));
  return absl::OkStatus();
}

}  // namespace
}  // namespace kvasir::bench

int main(int argc, char** argv) {
  CLI::App app{"bench_handover: a killed daemon with a full pool comes back"};
  std::string json = "build/bench/handover.json";
  uint64_t pool_gib = 4;
  int rounds = 7;
  app.add_option("--pool-gib", pool_gib, "Size of the pool")->check(CLI::Range(1, 1024));
  app.add_option("--rounds", rounds, "Kills")->check(CLI::Range(1, 1000));
  CLI11_PARSE(app, argc, argv);
  if (const char* const path = std::getenv("KVASIR_BENCH_JSON")) json = path;
  kvasir::bench::Report report;
  const absl::Status status = kvasir::bench::Run(pool_gib * kvasir::kGiB, rounds, &report);
  if (!status.ok()) {
    std::fprintf(stderr, "bench_handover: %s\n", kvasir::MessageOf(status).c_str());
    return 1;
  }
  std::fputs(report.ToTable().c_str(), stdout);
  const absl::Status written = report.Write(json);
  if (!written.ok()) {
    std::fprintf(stderr, "bench_handover: %s\n", kvasir::MessageOf(written).c_str());
    return 1;
  }
  return 0;
}
