// kvasird: reads its configuration, runs a Server, waits for a signal.
#include <signal.h>
#include <systemd/sd-daemon.h>

#include <cstring>
#include <iostream>
#include <string>

#include <google/protobuf/stubs/logging.h>

#include "base/error.h"
#include "base/log.h"
#include "base/thread_slice.h"
#include "daemon/config.h"
#include "daemon/server.h"
#include "policies/degrade_ladder.h"
#include "policies/policy_registry.h"

#include <CLI/CLI.hpp>
#include <time.h>

namespace kvasir {
namespace {

// Sockets that systemd has opened for us (kvasird.socket), and what it has kept, by name.
Inherited TakeInherited() {
  Inherited inherited;
  char** names = nullptr;
  const int count = ::sd_listen_fds_with_names(1, &names);
  for (int i = 0; i < count; ++i) {
    UniqueFd fd(SD_LISTEN_FDS_START + i);
    if (std::strcmp(names[i], "control") == 0)
      inherited.control = std::move(fd);
    else if (std::strcmp(names[i], "data") == 0)
      inherited.data = std::move(fd);
    else
      inherited.kept.push_back({names[i], std::move(fd)});
    ::free(names[i]);
  }
  ::free(names);
  return inherited;
}

absl::StatusOr<Config> ReadConfig(const std::string& path) {
  return LoadConfig(path, CheckPolicySpec, CheckDegradeLadder);
}

// All or nothing: what it says is in the log.
void Reload(Server& server, const std::string& path) {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  (void)::sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld",
                     static_cast<long long>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1000);
  const absl::StatusOr<Config> config = ReadConfig(path);
  const absl::Status status = config.ok() ? server.Reload(*config) : config.status();
  if (status.ok()) {
    spdlog::info("configuration reloaded: path={}", path);
  } else {
    spdlog::error("configuration not reloaded, nothing has changed: path={} {}", path,
                  MessageOf(status));
  }
  (void)::sd_notify(0, "READY=1\nSTATUS=serving");
}

int Run(const Config& config, const std::string& path) {
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGTERM);
  ::sigaddset(&signals, SIGINT);
  ::sigaddset(&signals, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before any thread starts
  ::signal(SIGPIPE, SIG_IGN);
  SetThreadSlice(ThreadSlice::kShort);  // before any thread starts: calls are short, and waited for
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(config, TakeInherited());
  if (!server.ok()) {
    spdlog::critical("kvasird cannot start: {}", MessageOf(server.status()));
    return 1;
  }
  spdlog::info("kvasird serves: control={} data={} version={}", config.server.control_socket,
               config.server.data_socket, KVASIR_VERSION);
  (void)::sd_notify(0, "READY=1\nSTATUS=serving");
  int signal_number = 0;
  while (::sigwait(&signals, &signal_number) != 0 || signal_number == SIGHUP) {
    if (signal_number == SIGHUP) Reload(**server, path);
  }
  spdlog::info("kvasird stops: signal={}", signal_number);
  (void)::sd_notify(0, "STOPPING=1");
  server->reset();
  return 0;
}

}  // namespace
}  // namespace kvasir

int main(int argc, char** argv) {
  CLI::App app{"kvasird: owns the KV memory of a host and keeps it compact"};
  std::string path = "/etc/kvasir/kvasird.toml";
  bool check = false;
  app.add_option("--config", path, "Configuration file (TOML)");
  app.add_flag("--check-config", check, "Check the file, print the effective configuration, exit");
  app.set_version_flag("--version", KVASIR_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const absl::StatusOr<kvasir::Config> config = kvasir::ReadConfig(path);
  if (!config.ok()) {
    std::cerr << kvasir::MessageOf(config.status()) << '\n';
    return 2;
  }
  if (check) {
    std::cout << kvasir::EffectiveConfigToml(*config);
    return 0;
  }
  // It would write a line for each message that is no UTF-8, past the log's level and its bounds;
  // the caller has the error.
  google::protobuf::SetLogHandler(nullptr);
  const absl::Status log = kvasir::SetUpLog(config->server.log_level, config->server.log_format);
  if (!log.ok()) {
    std::cerr << kvasir::MessageOf(log) << '\n';
    return 2;
  }
  for (const std::string& warning : kvasir::ConfigWarnings(*config)) spdlog::warn("{}", warning);
  return kvasir::Run(*config, path);
}
