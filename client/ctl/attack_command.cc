#include "client/ctl/attack_command.h"

#include <system_error>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>

#include "base/error.h"
#include "base/status_macros.h"
#include "base/unix_socket.h"
#include "client/attack/attacks.h"
#include "client/attack/by_hand.h"
#include "client/attack/victim.h"
#include "client/ctl/attack_processes.h"
#include "client/ctl/table.h"
#include "client/ctl/terminal_text.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace kvasir::ctl {
namespace {

using attack::Attempt;
using attack::Attempts;
using attack::Target;
using attack::Verdict;

constexpr std::chrono::seconds kStartTime{30}, kAttackTime{300};
constexpr char kDaemon[] = "kvasird";

// Says what it has, lives until its input ends, says what was not reached.
void BeVictim(const std::string& control, const std::string& data, int in, int out) {
  absl::StatusOr<attack::Victim> victim = attack::Victim::Start(control, data);
  if (!victim.ok()) return WriteAll(out, "error=" + MessageOf(victim.status()) + "\n");
  WriteAll(out, victim->target().ToText() + "\n");
  while (!WaitReadable(in, 0).value_or(true)) victim->Step();
  WriteAll(out, victim->Finish().ToText());
}

absl::StatusOr<std::string> TenantOfThisUser(const std::string& control) {
  attack::Calls calls(control, "");
  v1::GetStatsResponse stats;
  KVASIR_RETURN_IF_ERROR(
      attack::ToStatus(calls.CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats)));
  if (stats.tenants_size() != 1) {
    return FailedPrecondition("the user is no tenant of its own: uid={} tenants={}", ::geteuid(),
                              stats.tenants_size());
  }
  return stats.tenants(0).tenant();
}

// Hears whom to attack, says of which tenant it is, then what came of it.
void BeAttacker(int in, int out) {
  const absl::StatusOr<Target> target = Target::FromText(ReadAll(in));
  absl::Status status = target.status();
  if (status.ok() && target->control_socket.empty()) return;
  std::string tenant;
  if (status.ok()) {
    const absl::StatusOr<std::string> own = TenantOfThisUser(target->control_socket);
    status = own.status();
    tenant = own.value_or("");
  }
  if (!status.ok()) return WriteAll(out, "error=" + MessageOf(status) + "\n");
  WriteAll(out, "tenant=" + tenant + "\n\n");
  Attempts attempts;
  const bool same = tenant == target->tenant;
  attempts.Add("pass for a user of the other tenant",
               same ? Verdict::kSucceeded : Verdict::kRefused,
               fmt::format("daemon: the users are of {} and {}", target->tenant, tenant));
  WriteAll(out, attempts.ToText() + attack::AttackAll(*target).ToText());
}

// Value of the line `name=...`; an error that a process tells is one.
absl::StatusOr<std::string> ValueOf(const std::string& text, const std::string& name) {
  for (const std::string& each : {name, std::string("error")}) {
    const size_t at = text.starts_with(each + "=") ? 0 : text.find("\n" + each + "=");
    if (at == std::string::npos) continue;
    const size_t begin = text.find('=', at) + 1;
    std::string value = text.substr(begin, text.find('\n', begin) - begin);
    if (each == name) return value;
    return FailedPrecondition("{}", value);
  }
  return Internal("a process of the attack does not say its {}", name);
}

std::string NameOfProcess(pid_t pid) {
  std::ifstream comm(fmt::format("/proc/{}/comm", pid));
  std::string name;
  std::getline(comm, name);
  return name;
}

// Who listens; behind socket activation that is the service manager, and the only process of the
// daemon's name is looked for. 0: not known.
pid_t DaemonOf(const std::string& data_socket) {
  const absl::StatusOr<UniqueFd> socket = ConnectUnix(data_socket, SocketType::kSeqPacket);
  if (socket.ok()) {
    const absl::StatusOr<PeerCredentials> peer = GetPeerCredentials(*socket);
    if (peer.ok() && NameOfProcess(static_cast<pid_t>(peer->pid)) == kDaemon) {
      return static_cast<pid_t>(peer->pid);
    }
  }
  pid_t found = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const auto pid = static_cast<pid_t>(std::stol(name));
    if (NameOfProcess(pid) != kDaemon) continue;
    if (found != 0) return 0;
    found = pid;
  }
  return found;
}

const v1::TenantStats* Find(const v1::GetStatsResponse& stats, const std::string& tenant) {
  for (const v1::TenantStats& each : stats.tenants()) {
    if (each.tenant() == tenant) return &each;
  }
  return nullptr;
}

void AddAll(const Attempts& from, Attempts& to) {
  for (const Attempt& each : from.list()) to.Add(each.what, each.verdict, each.by);
}

absl::StatusOr<Attempts> Attack(const CommandLine& line, const AdminMaker& make_admin) {
  const std::string& control = line.socket;
  const std::string data =
      line.data_socket.empty()
          ? (std::filesystem::path(control).parent_path() / "data.sock").string()
          : line.data_socket;
  KVASIR_ASSIGN_OR_RETURN(UserProcess victim,
                          UserProcess::Start(line.attack_users->first, [&](int in, int out) {
                            BeVictim(control, data, in, out);
                          }));
  KVASIR_ASSIGN_OR_RETURN(UserProcess attacker,
                          UserProcess::Start(line.attack_users->second, BeAttacker));
  // From here on there is gRPC in this process, and no fork().
  KVASIR_ASSIGN_OR_RETURN(const std::string said, victim.Hear(SystemClock().Now() + kStartTime));
  KVASIR_RETURN_IF_ERROR(ValueOf(said, "tenant").status());
  KVASIR_ASSIGN_OR_RETURN(Target target, Target::FromText(said));
  target.daemon_pid = DaemonOf(data);
  const std::unique_ptr<AdminClient> admin = make_admin();
  KVASIR_ASSIGN_OR_RETURN(const v1::GetStatsResponse before, admin->GetStats());
  KVASIR_RETURN_IF_ERROR(attacker.Tell(target.ToText()));
  const Instant deadline = SystemClock().Now() + kAttackTime;
  KVASIR_ASSIGN_OR_RETURN(const std::string who, attacker.Hear(deadline));
  KVASIR_ASSIGN_OR_RETURN(const std::string tenant, ValueOf(who, "tenant"));
  KVASIR_ASSIGN_OR_RETURN(const std::string tried, attacker.Hear(deadline));
  Attempts attempts = Attempts::FromText(tried);
  victim.CloseInput();
  const absl::StatusOr<std::string> kept = victim.Hear(SystemClock().Now() + kStartTime);
  if (kept.ok()) {
    AddAll(Attempts::FromText(*kept), attempts);
  } else {
    attempts.Add("end the other's process", Verdict::kSucceeded, MessageOf(kept.status()));
  }
  KVASIR_ASSIGN_OR_RETURN(const v1::GetStatsResponse after, admin->GetStats());
  JudgeCounters(before, after, target.tenant, tenant, attempts);
  return attempts;
}

std::string Coloured(Verdict verdict, bool color) {
  const std::string name = NameOf(verdict);
  if (!color) return name;
  const int number = verdict == Verdict::kRefused ? 32 : verdict == Verdict::kNotTried ? 33 : 31;
  return fmt::format("\x1b[1;{}m{}\x1b[0m", number, name);
}

}  // namespace

void JudgeCounters(const v1::GetStatsResponse& before, const v1::GetStatsResponse& after,
                   const std::string& victim, const std::string& attacker, Attempts& attempts) {
  const auto grown = [&](const std::string& tenant, auto get) -> uint64_t {
    const v1::TenantStats* const old = Find(before, tenant);
    const v1::TenantStats* const now = Find(after, tenant);
    return now == nullptr ? 0 : get(*now) - (old == nullptr ? 0 : get(*old));
  };
  const auto add = [&](const char* what, bool well, const std::string& by) {
    attempts.Add(what, well ? Verdict::kRefused : Verdict::kSucceeded, "daemon: " + by);
  };
  const auto violations_of = [](const v1::TenantStats& stats) { return stats.violations(); };
  const auto rejected_of = [](const v1::TenantStats& stats) { return stats.rejected_calls(); };
  const auto ended = static_cast<uint64_t>(
      std::count_if(attempts.list().begin(), attempts.list().end(), [](const Attempt& each) {
        return each.what.starts_with(attack::kViolation) && each.verdict == Verdict::kRefused;
      }));
  const uint64_t violations = grown(attacker, violations_of);
  add("go uncounted: lies in shared memory", violations >= ended,
      fmt::format("{} sessions of {} ended for {} lies", violations, attacker, ended));
  const uint64_t rejected = grown(victim, rejected_of);
  add("go uncounted: the other's token", rejected > 0,
      fmt::format("{} calls with a token of {} rejected", rejected, victim));
  if (victim == attacker) return;
  const uint64_t wrongly = grown(victim, violations_of);
  add("have the other punished", wrongly == 0,
      fmt::format("{} violations of {} counted", wrongly, victim));
  add("restart the daemon", before.boot_epoch() == after.boot_epoch(), "it is the one it was");
}

std::string RenderAttempts(const Attempts& attempts, bool color) {
  using Align = Table::Align;
  Table table({{"TRIED", Align::kLeft}, {"VERDICT", Align::kLeft}, {"BY", Align::kLeft}});
  std::array<size_t, 4> counts{};
  for (const Attempt& each : attempts.list()) {
    ++counts[static_cast<size_t>(each.verdict)];
    table.AddRow({EscapeForTerminal(each.what), NameOf(each.verdict), EscapeForTerminal(each.by)});
  }
  return table.Render() +
         fmt::format(
             "{} refused, {} not tried, {} strange, {} succeeded: {}\n", counts[0], counts[1],
             counts[2], counts[3],
             Coloured(attempts.AllRefused() ? Verdict::kRefused : Verdict::kSucceeded, color));
}

std::string RenderAttemptsJson(const Attempts& attempts) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Attempt& each : attempts.list()) {
    list.push_back({{"what", EscapeForTerminal(each.what)},
                    {"verdict", NameOf(each.verdict)},
                    {"by", EscapeForTerminal(each.by)}});
  }
  return nlohmann::ordered_json({{"attempts", list}, {"refused", attempts.AllRefused()}}).dump(1) +
         "\n";
}

int RunAttack(const CommandLine& line, const AdminMaker& make_admin, std::ostream& out,
              std::ostream& err) {
  if (!line.attack_users) {
    err << "kvasirctl: doctor --attack needs --attack-users=VICTIM,ATTACKER: uids of two tenants "
           "(tenant.uids in kvasird.toml), which the daemon tells nobody\n";
    return 1;
  }
  if (::geteuid() != 0) {
    err << "kvasirctl: doctor --attack becomes other users: run it as root\n";
    return 1;
  }
  const absl::StatusOr<Attempts> attempts = Attack(line, make_admin);
  if (!attempts.ok()) {
    err << "kvasirctl: the attack could not be begun: "
        << EscapeForTerminal(MessageOf(attempts.status())) << "\n";
    return 1;
  }
  out << (line.json ? RenderAttemptsJson(*attempts) : RenderAttempts(*attempts, line.color))
      << std::flush;
  return attempts->AllRefused() && out.good() ? 0 : 1;
}

}  // namespace kvasir::ctl
