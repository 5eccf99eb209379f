// The attacks of one user on another and on the daemon, without a capability: what they try is in
// the .cc files of their names. Each leaves behind what it was refused, and never more than its own
// tenant's memory and its own sessions. Used by tests and by `kvasirctl doctor --attack`.
#ifndef KVASIR_CLIENT_ATTACK_ATTACKS_H_
#define KVASIR_CLIENT_ATTACK_ATTACKS_H_

#include <string>
#include <vector>

#include "client/attack/attempts.h"
#include "client/attack/target.h"

namespace kvasir::attack {

// REQUIRES of all: this process is of the attacker's user, and dumpable, as an engine's is.

// Descriptors and memory of the victim and the daemon, through /proc and by handle.
void AttackProcesses(const Target& target, Attempts& attempts);
// Write what is lent for reading; reopen it; read what an ended session leaves.
void AttackSegments(const Target& target, Attempts& attempts);
// Tokens, sequences, snapshots, leases and names of the victim, and made-up ones, by gRPC.
void AttackNames(const Target& target, Attempts& attempts);
// Verbs of the Admin service. Returns the verbs that were tried.
std::vector<std::string> AttackAdmin(const Target& target, Attempts& attempts);
// Wrong messages, ring entries, counters, rows and versions: each ends a session of its own.
void AttackProtocol(const Target& target, Attempts& attempts);
// Connections, sessions, sequences and messages without end, half-open sockets, unread answers.
// Takes some seconds.
void AttackLimits(const Target& target, Attempts& attempts);

// All of them.
Attempts AttackAll(const Target& target);

// What AttackProtocol() writes to shared memory begins so: each ends a session, and is counted as a
// violation of the attacker's tenant.
inline constexpr char kViolation[] = "write into shared memory: ";

}  // namespace kvasir::attack

#endif  // KVASIR_CLIENT_ATTACK_ATTACKS_H_
