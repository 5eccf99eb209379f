// `kvasirctl doctor --attack`: an operator's proof on an installed host. Two users of two tenants
// are played: one has something to lose, the other attacks it and the daemon
// (client/attack/attacks.h). What was tried and what refused it becomes a table.
#ifndef KVASIR_CLIENT_CTL_ATTACK_COMMAND_H_
#define KVASIR_CLIENT_CTL_ATTACK_COMMAND_H_

#include <functional>
#include <memory>
#include <ostream>
#include <string>

#include "client/attack/attempts.h"
#include "client/ctl/admin_client.h"
#include "client/ctl/command_line.h"

namespace kvasir::ctl {

// Connects no earlier than it is called.
using AdminMaker = std::function<std::unique_ptr<AdminClient>()>;

// Exit code: 0 where everything was refused, 1 where anything succeeded, failed strangely, or could
// not be begun. Takes about half a minute. REQUIRES: no threads and no gRPC yet.
int RunAttack(const CommandLine& line, const AdminMaker& make_admin, std::ostream& out,
              std::ostream& err);

// What the daemon has counted meanwhile, as attempts to stay uncounted. Pure.
void JudgeCounters(const v1::GetStatsResponse& before, const v1::GetStatsResponse& after,
                   const std::string& victim, const std::string& attacker,
                   attack::Attempts& attempts);

std::string RenderAttempts(const attack::Attempts& attempts, bool color);
// {"attempts": [{"what", "verdict", "by"}], "refused": true|false}
std::string RenderAttemptsJson(const attack::Attempts& attempts);

}  // namespace kvasir::ctl

#endif  // KVASIR_CLIENT_CTL_ATTACK_COMMAND_H_
