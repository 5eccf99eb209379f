// Who is at the other end of a Unix socket, as far as the kernel knows: user, group, process,
// cgroup, and whether file permissions bind it.
//
// Everything is read once, when a connection is accepted. A process number that is used again is
// never taken for the peer: the process must be alive after all of it has been read.
//
// Thread-safe. Cost of IdentifyPeer(): a dozen system calls, some 50 us. None waits for the peer.
#ifndef KVASIR_BASE_PROCESS_IDENTITY_H_
#define KVASIR_BASE_PROCESS_IDENTITY_H_

#include <cstdint>
#include <string>
#include <string_view>

#include <absl/status/statusor.h>

#include "base/posix.h"

namespace kvasir {

struct PeerIdentity {
  uint32_t uid = 0, gid = 0, pid = 0;  // as the process had them when it connected
  UniqueFd pidfd;                      // readable once the process has ended
  uint64_t start_time_ticks = 0;       // since the host's boot; with `pid` it names one process
  std::string cgroup;                  // of cgroup v2, such as "/system.slice/a.service"; "": none
  // Modes of this process's files do not keep it out: it is of the same user, or root, or has a
  // capability (whether it is in effect or only permitted) that opens others' files or processes. A
  // capability in a user namespace below this process's does not.
  bool overrides_permissions = false;
  bool contained = false;  // in a process or user namespace below this process's
};

// Errors: kUnavailable for a process that has ended; kFailedPrecondition for one that this process
// cannot see (of a process namespace above or beside it); ErrnoStatus() naming the file that cannot
// be read; kDataLoss for a file of /proc in an unknown form.
absl::StatusOr<PeerIdentity> IdentifyPeer(const UniqueFd& socket);
// The same as on kernels before 6.5, which tell a socket's peer by number alone: of a process that
// has got the number of one that ended it is known only that it is of the same user and group.
absl::StatusOr<PeerIdentity> IdentifyPeerByNumber(const UniqueFd& socket);

// What IdentifyPeer() reads, as pure functions for tests and fuzzers. Errors: kDataLoss.

// Field 22 of /proc/PID/stat; the program's name (field 2) may hold anything.
absl::StatusOr<uint64_t> ParseStartTime(std::string_view stat);

// The path in the "0::/path" line of /proc/PID/cgroup. "" where there is no such line (cgroup v1
// alone), or where the path leads out of this process's cgroup namespace ("/../x"). A control byte
// in it is an error: users name their own cgroups, and logs and terminals would believe it.
absl::StatusOr<std::string> ParseCgroup(std::string_view cgroup);

struct ProcessStatus {
  uint32_t effective_uid = 0, effective_gid = 0;
  uint64_t permitted_capabilities = 0;  // bit mask; the effective ones are among them
  uint32_t pid_namespaces = 0;          // from this process's down to its own; 1: the same
};
// The lines Uid, Gid, CapPrm and NSpid of /proc/PID/status. A program's name cannot forge one: the
// kernel escapes line ends in it.
absl::StatusOr<ProcessStatus> ParseProcessStatus(std::string_view status);

}  // namespace kvasir

#endif  // KVASIR_BASE_PROCESS_IDENTITY_H_
