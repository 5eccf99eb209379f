#include "client/ctl/doctor.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "client/ctl/terminal_text.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace kvasir::ctl {
namespace {

constexpr uint64_t kDefaultPoolBytes = kGiB;
constexpr uint64_t kOpenFilesWanted = 4096;  // an extent is one file, and passing it on another

std::string LimitText(uint64_t bytes) {
  return bytes == kUnlimited ? "unlimited" : HumanBytes(bytes);
}

Diagnosis DaemonAnswers(const DaemonFacts& daemon) {
  if (!daemon.stats.ok()) {
    return {Health::kWarn, "daemon", MessageOf(daemon.stats.status()),
            "start it: systemctl start kvasird, or name its socket with --socket; what follows "
            "is judged for the default pool"};
  }
  return {Health::kOk, "daemon",
          fmt::format("version {} answers, pool of {}", daemon.stats->version(),
                      HumanBytes(daemon.stats->pool_bytes())),
          ""};
}

Diagnosis SocketRights(const HostFacts& facts) {
  switch (facts.socket) {
    case SocketState::kUsable:
      return {Health::kOk, "control socket", facts.socket_path + " may be opened by this user", ""};
    case SocketState::kMissing:
      return {Health::kWarn, "control socket", facts.socket_path + " does not exist",
              "it appears when the daemon starts; a daemon elsewhere: --socket=PATH"};
    case SocketState::kNotASocket:
      return {Health::kFail, "control socket", facts.socket_path + " is not a socket",
              "remove the file, then restart the daemon"};
    case SocketState::kNoAccess:
      break;
  }
  return {Health::kFail, "control socket", "no right to open " + facts.socket_path,
          "widen server.socket_mode, or join the group that owns the socket"};
}

// A limit of the daemon's that only administrators may see: nothing to judge then.
bool IsHidden(const DaemonFacts& daemon) { return daemon.stats.ok() && !daemon.host.ok(); }

Diagnosis Hidden(const std::string& name, const DaemonFacts& daemon) {
  return {Health::kOk, name,
          fmt::format("not shown by the daemon: {}", MessageOf(daemon.host.status())), ""};
}

Diagnosis LockedMemory(const HostFacts& facts, const DaemonFacts& daemon, uint64_t pool_bytes) {
  constexpr char kAdvice[] =
      "LimitMEMLOCK=infinity in the unit, or memlock in /etc/security/limits.d; without it the "
      "pool may be swapped out";
  if (daemon.stats.ok()) {
    const bool locked = daemon.stats->memory_locked();
    std::string text = fmt::format("the daemon's pool is {}", locked ? "locked" : "not locked");
    if (daemon.host.ok()) {
      text += fmt::format("; its limit is {}, memory.lock = {}",
                          LimitText(daemon.host->memlock_limit_bytes()),
                          daemon.host->memory_lock_mode());
    }
    return {locked ? Health::kOk : Health::kWarn, "locked memory", text, locked ? "" : kAdvice};
  }
  const bool well = facts.memlock_limit_bytes >= pool_bytes;
  return {well ? Health::kOk : Health::kWarn, "locked memory",
          fmt::format("this user may lock {}, the pool has {}",
                      LimitText(facts.memlock_limit_bytes), HumanBytes(pool_bytes)),
          well ? "" : kAdvice};
}

// Before the daemon has its memory, what is free must hold the pool; afterwards it need not.
Diagnosis Memory(const HostFacts& facts, bool running, uint64_t pool_bytes) {
  const std::string text =
      fmt::format("{} of {} available, the pool has {}", HumanBytes(facts.memory_available_bytes),
                  HumanBytes(facts.memory_total_bytes), HumanBytes(pool_bytes));
  if (facts.memory_total_bytes < pool_bytes) {
    return {Health::kFail, "memory", text, "make memory.pool_bytes smaller than the host's memory"};
  }
  if (!running && facts.memory_available_bytes < pool_bytes) {
    return {Health::kWarn, "memory", text,
            "stop other programs, or make memory.pool_bytes smaller"};
  }
  return {Health::kOk, "memory", text, ""};
}

Diagnosis ControlGroup(const HostFacts& facts, const DaemonFacts& daemon, uint64_t pool_bytes) {
  if (IsHidden(daemon)) return Hidden("control group", daemon);
  const uint64_t limit =
      daemon.host.ok() ? daemon.host->cgroup_limit_bytes() : facts.cgroup_limit_bytes;
  if (limit == 0) return {Health::kOk, "control group", "no memory limit", ""};
  const std::string text =
      fmt::format("memory limit {}, the pool has {}", HumanBytes(limit), HumanBytes(pool_bytes));
  if (limit >= pool_bytes) return {Health::kOk, "control group", text, ""};
  return {
      Health::kFail, "control group", text,
      "raise MemoryMax of the unit or the container's limit, or make memory.pool_bytes smaller"};
}

Diagnosis HugePages(const HostFacts& facts) {
  const std::string text = fmt::format("{} reserved, {} free, of {} each", facts.huge_pages_total,
                                       facts.huge_pages_free, HumanBytes(facts.huge_page_bytes));
  if (facts.huge_pages_total > 0) return {Health::kOk, "huge pages", text, ""};
  return {Health::kOk, "huge pages", text,
          "optional: for memory.huge_pages reserve them with sysctl vm.nr_hugepages"};
}

Diagnosis NumaNodes(const HostFacts& facts, const DaemonFacts& daemon) {
  if (facts.numa_nodes <= 1) {
    return {Health::kOk, "NUMA", facts.numa_nodes == 1 ? "one node" : "not known", ""};
  }
  if (IsHidden(daemon)) return Hidden("NUMA", daemon);
  const std::string nodes = fmt::format("{} nodes", facts.numa_nodes);
  if (!daemon.host.ok()) return {Health::kOk, "NUMA", nodes, ""};
  if (daemon.host->numa_node() >= 0) {
    return {
        Health::kOk, "NUMA",
        fmt::format("{}, the daemon and its pool are on node {}", nodes, daemon.host->numa_node()),
        ""};
  }
  return {Health::kOk, "NUMA", nodes + ", the pool is on any of them",
          "optional: memory.numa_node, and a daemon for each node that engines run on"};
}

Diagnosis Seals(const HostFacts& facts) {
  if (facts.future_write_seal) {
    return {Health::kOk, "memfd seals", "F_SEAL_FUTURE_WRITE works", ""};
  }
  return {Health::kFail, "memfd seals", "F_SEAL_FUTURE_WRITE does not work",
          "needs Linux 5.1 or later: without it tenants cannot be kept apart"};
}

Diagnosis Leases(const HostFacts& facts) {
  if (facts.lease_probe) {
    return {Health::kOk, "file leases", "the kernel says who still maps an extent", ""};
  }
  return {Health::kFail, "file leases",
          facts.leases_enabled ? "F_SETLEASE on a memfd does not work" : "fs.leases-enable is off",
          facts.leases_enabled ? "a kernel or sandbox without file leases cannot take memory back"
                               : "sysctl fs.leases-enable=1"};
}

Diagnosis OpenFiles(const HostFacts& facts, const DaemonFacts& daemon) {
  if (IsHidden(daemon)) return Hidden("open files", daemon);
  const uint64_t limit =
      daemon.host.ok() ? daemon.host->open_files_limit() : facts.open_files_limit;
  const bool well = limit >= kOpenFilesWanted;
  return {well ? Health::kOk : Health::kWarn, "open files",
          limit == kUnlimited ? "unlimited" : fmt::format("at most {}", limit),
          well ? "" : fmt::format("LimitNOFILE={} in the unit: extents are files", 65536)};
}

std::string_view Word(Health health) {
  return health == Health::kOk ? "ok" : health == Health::kWarn ? "warn" : "fail";
}

std::string Badge(Health health, bool color) {
  const char* word = health == Health::kOk ? "OK  " : health == Health::kWarn ? "WARN" : "FAIL";
  if (!color) return word;
  const int number = health == Health::kOk ? 32 : health == Health::kWarn ? 33 : 31;
  return fmt::format("\x1b[1;{}m{}\x1b[0m", number, word);
}

}  // namespace

std::vector<Diagnosis> Diagnose(const HostFacts& facts, const DaemonFacts& daemon) {
  const bool running = daemon.stats.ok();
  const uint64_t pool_bytes = running ? daemon.stats->pool_bytes() : kDefaultPoolBytes;
  std::vector<Diagnosis> list = {DaemonAnswers(daemon),
                                 SocketRights(facts),
                                 LockedMemory(facts, daemon, pool_bytes),
                                 Memory(facts, running, pool_bytes),
                                 ControlGroup(facts, daemon, pool_bytes),
                                 HugePages(facts),
                                 NumaNodes(facts, daemon),
                                 Seals(facts),
                                 Leases(facts),
                                 OpenFiles(facts, daemon)};
  for (Diagnosis& entry : DiagnoseGpus(facts.gpu)) list.push_back(std::move(entry));
  return list;
}

Health WorstOf(const std::vector<Diagnosis>& list) {
  Health worst = Health::kOk;
  for (const Diagnosis& entry : list) worst = std::max(worst, entry.health);
  return worst;
}

std::string RenderDiagnosis(const std::vector<Diagnosis>& list, bool color) {
  std::string out;
  for (const Diagnosis& entry : list) {
    out += fmt::format("{}  {}: {}\n", Badge(entry.health, color), entry.name,
                       EscapeForTerminal(entry.finding));
    if (!entry.advice.empty()) out += fmt::format("      -> {}\n", entry.advice);
  }
  return out;
}

std::string RenderDiagnosisJson(const std::vector<Diagnosis>& list) {
  nlohmann::ordered_json checks = nlohmann::ordered_json::array();
  for (const Diagnosis& entry : list) {
    checks.push_back({{"health", Word(entry.health)},
                      {"name", entry.name},
                      {"finding", EscapeForTerminal(entry.finding)},
                      {"advice", entry.advice}});
  }
  return nlohmann::ordered_json({{"checks", checks}, {"worst", Word(WorstOf(list))}}).dump(1) +
         "\n";
}

}  // namespace kvasir::ctl
