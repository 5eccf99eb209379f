// What the user typed, checked, as plain values.
#ifndef KVASIR_CLIENT_CTL_COMMAND_LINE_H_
#define KVASIR_CLIENT_CTL_COMMAND_LINE_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "client/ctl/top.h"

namespace kvasir::ctl {

inline constexpr char kDefaultSocket[] = "/run/kvasir/control.sock";

enum class Command {
  kStats,
  kTop,
  kTenants,
  kSequences,
  kSnapshots,
  kPrefixes,
  kExplain,
  kCurve,
  kEvents,
  kEvict,
  kTiers,
  kDrain,
  kTrace,
  kResize,
  kInspect,
  kPolicies,
  kDoctor,
  kHealth,
  kCompletion,
};

struct CommandLine {
  Command command = Command::kStats;
  std::string socket = kDefaultSocket;
  std::chrono::milliseconds deadline{5000};  // of each call
  bool json = false;
  bool color = false;
  std::string tenant;                        // only this one's
  uint64_t sequence_id = 0;                  // inspect, explain; 0: all
  uint64_t from_number = 0;                  // events; 0: from now on
  uint64_t count = 0;                        // events, top; 0: until it is stopped
  std::string file;                          // trace
  uint32_t seconds = 0;                      // trace; 0: until it is stopped
  uint64_t pool_bytes = 0;                   // resize
  bool live = false;                         // top: on the terminal
  std::chrono::milliseconds interval{1000};  // top
  TopSort sort = TopSort::kShare;            // top
  // tenants set: what is left out stays as it is.
  bool set_budget = false;
  std::string device_pool;  // whose budget the next three are; "": the host pool's
  std::optional<uint64_t> reserved_bytes, limit_bytes;
  std::optional<uint32_t> weight;
  std::optional<uint64_t> disk_reserved_bytes, disk_bytes, remote_bytes;
  std::optional<uint32_t> sessions_max, sequences_max, models_max, snapshots_max, prefixes_max;
  // doctor
  bool attack = false;
  std::optional<std::pair<uint32_t, uint32_t>> attack_users;  // victim, attacker
  std::string data_socket;                                    // "": beside the control socket
  uint32_t layer = 0;
  uint64_t first_row = 0;
  uint32_t rows = 4096;
};

// The process's surroundings; only main() asks for them.
struct Surroundings {
  std::string socket;     // $KVASIR_CONTROL_SOCKET, "": not set
  bool terminal = false;  // stdout is one, and colours are welcome
  bool live = false;      // stdin and stdout are one
};

// There is nothing to run: help or version (exit_code 0, text for stdout) or wrong usage (2,
// stderr).
struct EarlyEnd {
  int exit_code = 0;
  std::string text;
};

// `arguments` without the program's name.
std::variant<CommandLine, EarlyEnd> ParseCommandLine(std::vector<std::string> arguments,
                                                     const Surroundings& surroundings);

// Names of all commands, in the order of the help text.
std::vector<std::string> CommandNames();

}  // namespace kvasir::ctl

#endif  // KVASIR_CLIENT_CTL_COMMAND_LINE_H_
