#include "client/ctl/command_line.h"

#include <algorithm>
#include <sstream>

#include "base/byte_size.h"

#include <CLI/CLI.hpp>

namespace kvasir::ctl {
namespace {

constexpr uint32_t kRowsMax = 1u << 24;
constexpr uint32_t kSecondsMax = 86'400;
constexpr size_t kSocketPathMax = 107;
constexpr int kUsage = 2;

struct CommandText {
  Command command;
  const char* name;
  const char* help;
};
constexpr CommandText kCommands[] = {
    {Command::kStats, "stats", "Memory and counts of the daemon and of each tenant"},
    {Command::kTop, "top", "Watch what tenants have and do: live, or one table for a file"},
    {Command::kTenants, "tenants", "Tenants: sessions, tokens, bytes held, charged and allowed"},
    {Command::kSequences, "sequences", "Open sequences: tokens seen and kept, bytes"},
    {Command::kSnapshots, "snapshots", "Saved sequences: rows, bytes, age"},
    {Command::kPrefixes, "prefixes", "Cached prefixes: rows, bytes, hits, age"},
    {Command::kExplain, "explain", "How much of the last prompts was cached, and why no more"},
    {Command::kCurve, "curve", "What prefixes would hit with an eighth to eight times the memory"},
    {Command::kEvents, "events", "Watch prefixes being stored and removed"},
    {Command::kEvict, "evict", "Give up the cached prefixes of a tenant that nobody uses"},
    {Command::kTiers, "tiers", "What lies on disk and in servers, and how they do"},
    {Command::kDrain, "drain", "Write cached prefixes to every tier, and wait for it"},
    {Command::kTrace, "trace", "Record what a tenant's prompts ask for, without their content"},
    {Command::kResize, "resize", "Change the size of the host pool until the daemon ends"},
    {Command::kInspect, "inspect", "Which tokens of a sequence are kept, as text"},
    {Command::kPolicies, "policies", "Retention policies with their parameters"},
    {Command::kDoctor, "doctor", "Check this host and the daemon, and say what to do"},
    {Command::kHealth, "health", "Ask whether the daemon serves; exit code 1 if not"},
    {Command::kCompletion, "completion", "Print the completion script of a shell"},
};

// CLI11 reads "-1" as 2^64 - 1, and what does not fit 64 bits as well: 19 digits always fit.
std::string DigitsOnly(const std::string& text) {
  const bool digits = text.find_first_not_of("0123456789") == std::string::npos;
  return digits && text.size() <= 19 ? "" : "not a number of at most 19 digits: " + text;
}

// CLI11 has units of its own; these are the configuration's.
std::string SizeOnly(const std::string& text) {
  const bool size = ParseByteSize(text).has_value();
  return size ? "" : "not a size such as 512MiB (B, KiB, MiB, GiB, TiB): " + text;
}

// As given; "" where an option was not.
struct BudgetSizes {
  std::string reserved, limit, disk_reserved, disk, remote;
};

void AddBudgetOptions(CLI::App& sub, CommandLine* line, BudgetSizes* sizes) {
  const auto size = [&](const char* name, std::string* value, const char* help) {
    sub.add_option(name, *value, help)->check(SizeOnly);
  };
  size("--reserved-bytes", &sizes->reserved, "Of the pool, always its own, e.g. 8GiB");
  size("--limit-bytes", &sizes->limit, "Of the pool, never more, e.g. 16GiB");
  size("--disk-reserved-bytes", &sizes->disk_reserved, "Of the disk tier, always its own");
  size("--disk-bytes", &sizes->disk, "Of the disk tier, never more");
  size("--remote-bytes", &sizes->remote, "On the servers, that this host may know of");
  sub.add_option("--pool", line->device_pool,
                 "The device's pool that --reserved-bytes, --limit-bytes and --weight are of, e.g. "
                 "gpu0; without: the host's");
  const auto number = [&](const char* name, std::optional<uint32_t>* value, uint32_t min,
                          uint32_t max, const char* help) {
    sub.add_option(name, *value, help)->check(DigitsOnly)->check(CLI::Range(min, max));
  };
  number("--weight", &line->weight, 1, 10'000, "Of its part of what nobody reserved, 1 to 10000");
  number("--sessions-max", &line->sessions_max, 0, 65'536, "Engine processes; 0: no new ones");
  number("--sequences-max", &line->sequences_max, 0, 65'536 * 1024, "Open sequences");
  number("--models-max", &line->models_max, 0, 65'536 * 256, "Registered models");
  number("--snapshots-max", &line->snapshots_max, 0, 4096, "Saved sequences");
  number("--prefixes-max", &line->prefixes_max, 1, 65'536, "Cached prefixes, in each place");
}

// Whether anything is to be set.
bool ReadBudget(const BudgetSizes& sizes, CommandLine* line) {
  const auto size = [](const std::string& text, std::optional<uint64_t>* value) {
    if (!text.empty()) *value = ParseByteSize(text);
    return value->has_value();
  };
  bool any = size(sizes.reserved, &line->reserved_bytes);
  any |= size(sizes.limit, &line->limit_bytes);
  any |= size(sizes.disk_reserved, &line->disk_reserved_bytes);
  any |= size(sizes.disk, &line->disk_bytes);
  any |= size(sizes.remote, &line->remote_bytes);
  return any || line->weight || line->sessions_max || line->sequences_max || line->models_max ||
         line->snapshots_max || line->prefixes_max;
}

}  // namespace

std::variant<CommandLine, EarlyEnd> ParseCommandLine(std::vector<std::string> arguments,
                                                     const Surroundings& surroundings) {
  CommandLine line;
  if (!surroundings.socket.empty()) line.socket = surroundings.socket;
  std::string output = "table";
  std::string color = "auto";
  std::string shell, action, pool_size, set;
  BudgetSizes sizes;
  std::vector<uint32_t> attack_users;
  std::string sort(NameOf(line.sort));
  bool once = false;
  double deadline_s = 5, interval_s = 1;

  CLI::App app("Operator's tool of kvasird, the KV-cache manager.", "kvasirctl");
  app.require_subcommand(0, 1);
  app.fallthrough();
  app.set_version_flag("--version", std::string("kvasirctl ") + KVASIR_VERSION);
  app.add_option("--socket", line.socket,
                 "Control socket of the daemon (default: $KVASIR_CONTROL_SOCKET, else " +
                     std::string(kDefaultSocket) + ")");
  app.add_option("--output", output, "table (for people) or json (for programs, exact bytes)")
      ->check(CLI::IsMember({"table", "json"}));
  app.add_option("--color", color, "auto (on a terminal), always or never")
      ->check(CLI::IsMember({"auto", "always", "never"}));
  app.add_option("--deadline", deadline_s, "Seconds that each call may take (default 5)")
      ->check(CLI::Range(0.01, 600.0));
  for (const CommandText& entry : kCommands) {
    CLI::App* sub = app.add_subcommand(entry.name, entry.help);
    sub->fallthrough();
    sub->callback([&line, &entry] { line.command = entry.command; });
    if (entry.command == Command::kTop) {
      sub->add_option("--interval", interval_s, "Seconds between two looks (default 1)")
          ->check(CLI::Range(0.1, 3600.0));
      sub->add_option("--sort", sort, "Largest first, by this (default share)")
          ->check(CLI::IsMember(TopSortNames()));
      CLI::Option* const count =
          sub->add_option("--count", line.count,
                          "End after this many; not live (default for json: never)")
              ->check(DigitsOnly);
      sub->add_flag("--once", once, "One table or object, also on a terminal")->excludes(count);
    } else if (entry.command == Command::kSequences) {
      sub->add_option("--tenant", line.tenant, "Only the sequences of this tenant");
    } else if (entry.command == Command::kSnapshots) {
      sub->add_option("--tenant", line.tenant, "Only the snapshots of this tenant");
    } else if (entry.command == Command::kPrefixes) {
      sub->add_option("--tenant", line.tenant, "Only the prefixes of this tenant");
    } else if (entry.command == Command::kCurve) {
      sub->add_option("--tenant", line.tenant, "Only this tenant");
    } else if (entry.command == Command::kExplain) {
      sub->add_option("SEQUENCE", line.sequence_id, "Only the prompt of this sequence")
          ->check(DigitsOnly);
      sub->add_option("--tenant", line.tenant, "Only the prompts of this tenant");
    } else if (entry.command == Command::kEvents) {
      sub->add_option("--tenant", line.tenant, "Only the prefixes of this tenant");
      sub->add_option("--from", line.from_number, "First event, by number (default: from now on)")
          ->check(DigitsOnly);
      sub->add_option("--count", line.count, "End after this many (default: never)")
          ->check(DigitsOnly);
    } else if (entry.command == Command::kDrain) {
      sub->add_option("--tenant", line.tenant, "Only the prefixes of this tenant");
    } else if (entry.command == Command::kEvict) {
      sub->add_option("--tenant", line.tenant, "The tenant")->required();
    } else if (entry.command == Command::kTrace) {
      sub->add_option("ACTION", action, "record")->required()->check(CLI::IsMember({"record"}));
      sub->add_option("--tenant", line.tenant, "The tenant")->required();
      sub->add_option("--output", line.file, "File for kvasir-replay, replaced")->required();
      sub->add_option("--seconds", line.seconds, "End after so long (default: never)")
          ->check(DigitsOnly)
          ->check(CLI::Range(1u, kSecondsMax));
    } else if (entry.command == Command::kTenants) {
      sub->add_option("ACTION", set, "set: change a tenant's budget until the daemon ends")
          ->check(CLI::IsMember({"set"}));
      sub->add_option("TENANT", line.tenant, "The tenant that is set");
      AddBudgetOptions(*sub, &line, &sizes);
    } else if (entry.command == Command::kResize) {
      sub->add_option("--pool-bytes", pool_size, "Size, e.g. 512MiB")->required()->check(SizeOnly);
    } else if (entry.command == Command::kInspect) {
      sub->add_option("SEQUENCE", line.sequence_id, "Id, as kvasirctl sequences shows it")
          ->required()
          ->check(DigitsOnly);
      sub->add_option("--layer", line.layer, "Layer to look at (default 0)")->check(DigitsOnly);
      sub->add_option("--from", line.first_row, "First row to show (default 0)")->check(DigitsOnly);
      sub->add_option("--rows", line.rows, "Most rows to show (default 4096)")
          ->check(DigitsOnly)
          ->check(CLI::Range(1u, kRowsMax));
    } else if (entry.command == Command::kDoctor) {
      CLI::Option* const attack = sub->add_flag(
          "--attack", line.attack, "Attack the daemon as one of its tenants, and see it refuse");
      sub->add_option("--attack-users", attack_users, "VICTIM,ATTACKER: uids of two tenants")
          ->delimiter(',')
          ->expected(2)
          ->check(DigitsOnly)
          ->needs(attack);
      sub->add_option("--data-socket", line.data_socket,
                      "Data socket of the daemon (default: data.sock beside --socket)")
          ->needs(attack);
    } else if (entry.command == Command::kCompletion) {
      sub->add_option("SHELL", shell, "bash")->required()->check(CLI::IsMember({"bash"}));
    }
  }

  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
  try {
    app.parse(arguments);
  } catch (const CLI::ParseError& error) {
    std::ostringstream text;
    app.exit(error, text, text);
    return EarlyEnd{error.get_exit_code() == 0 ? 0 : kUsage, text.str()};
  }
  if (app.get_subcommands().empty()) return EarlyEnd{kUsage, app.help()};
  if (line.socket.empty() || line.socket.size() > kSocketPathMax) {
    return EarlyEnd{kUsage, "--socket: length out of bounds: length=" +
                                std::to_string(line.socket.size()) + " min=1 max=107\n"};
  }
  line.pool_bytes = ParseByteSize(pool_size).value_or(0);
  line.set_budget = set == "set";
  const bool changes = ReadBudget(sizes, &line);
  if (line.set_budget != changes || (line.set_budget && line.tenant.empty())) {
    return EarlyEnd{kUsage,
                    "tenants set: needs TENANT and something to set, such as --limit-bytes; see "
                    "kvasirctl tenants --help\n"};
  }
  if (attack_users.size() == 2) line.attack_users = {attack_users[0], attack_users[1]};
  if (line.attack_users && (line.attack_users->first == line.attack_users->second ||
                            line.attack_users->first == 0 || line.attack_users->second == 0)) {
    return EarlyEnd{kUsage, "--attack-users: needs two users, and root is none of them\n"};
  }
  line.json = output == "json";
  line.color = color == "always" || (color == "auto" && surroundings.terminal);
  line.sort = TopSortOf(sort).value_or(line.sort);
  line.interval = std::chrono::milliseconds(static_cast<int64_t>(interval_s * 1000));
  if (line.command == Command::kTop) {
    line.live = surroundings.live && !line.json && !once && line.count == 0;
    if (once || (!line.json && line.count == 0)) line.count = 1;
  }
  line.deadline = std::chrono::milliseconds(static_cast<int64_t>(deadline_s * 1000));
  return line;
}

std::vector<std::string> CommandNames() {
  std::vector<std::string> names;
  for (const CommandText& entry : kCommands) names.emplace_back(entry.name);
  return names;
}

}  // namespace kvasir::ctl
