// Runs one command against a daemon.
#ifndef KVASIR_CLIENT_CTL_COMMANDS_H_
#define KVASIR_CLIENT_CTL_COMMANDS_H_

#include <ostream>
#include <string>
#include <vector>

#include "client/ctl/admin_client.h"
#include "client/ctl/command_line.h"

namespace kvasir::ctl {

// Exit codes of the program; usage errors (2) are found before.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;

// Results go to `out`, errors to `err` as one line "kvasirctl: ...". Returns the exit code.
int RunCommand(const CommandLine& line, AdminClient& daemon, std::ostream& out, std::ostream& err);

// The whole program: parses, connects, runs.
int RunKvasirctl(std::vector<std::string> arguments, const Surroundings& surroundings,
                 std::ostream& out, std::ostream& err);

}  // namespace kvasir::ctl

#endif  // KVASIR_CLIENT_CTL_COMMANDS_H_
