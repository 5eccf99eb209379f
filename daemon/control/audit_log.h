// AuditLog: one line for each administrative act and each refusal, in the daemon's log.
//
//   audit act=resize uid=0 pid=812 tenant=- pool_bytes=536870912 result=ok
//   audit refused=evict uid=1002 pid=977 tenant=team-b target=team-a result=PERMISSION_DENIED
//       reason="DropPrefixes is for administrators (admin.uids)" suppressed=40    (one line)
//
// Values that came from others are quoted and bounded, so that none can end a line, begin a field
// or drive a terminal. What a uid may write is bounded, and what all refusals together may: what is
// beyond that is counted, and the uid's next line says how many were left out.
#ifndef KVASIR_DAEMON_CONTROL_AUDIT_LOG_H_
#define KVASIR_DAEMON_CONTROL_AUDIT_LOG_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <absl/status/status.h>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/unix_socket.h"

namespace kvasir {

struct AuditCounts {
  uint64_t acts = 0;
  uint64_t refusals = 0;
  uint64_t suppressed = 0;  // of both: counted, and not written
};

// What somebody asked for.
struct AuditedCall {
  std::string_view act;                 // a word of ours: [a-z_]
  std::optional<PeerCredentials> peer;  // nothing: not known
  std::string tenant;                   // the peer's, "": none or an administrator
  std::vector<std::pair<std::string_view, std::string>> arguments;  // names are ours, values not
};

// Thread-safe. Its lock is the last one: it writes under it and takes no other of ours.
class AuditLog {
 public:
  struct Options {
    std::chrono::seconds window{60};
    // Lines a window. Administrators are trusted further than those who are refused.
    uint32_t acts_per_uid = 600, refusals_per_uid = 20;
    uint32_t refusals_max = 240;  // of all uids together: one user may have many
    size_t uids_max = 1024;       // remembered at once; the one that is quiet the longest goes
  };
  // `refused` tells which level the line has.
  using Sink = std::function<void(bool refused, const std::string& line)>;

  AuditLog() : AuditLog(Options(), SystemClock(), nullptr) {}
  // `clock` must outlive it. Without `sink`: the daemon's log, acts at info and refusals at warn.
  AuditLog(Options options, const Clock& clock, Sink sink);

  // An act with what came of it. kPermissionDenied and kUnauthenticated are refusals.
  void Note(const AuditedCall& call, const absl::Status& result);
  // A refusal whatever the code says.
  void NoteRefusal(const AuditedCall& call, const absl::Status& why);

  AuditCounts counts() const;

 private:
  struct Spent {
    Instant since{};
    uint32_t lines = 0;
  };
  struct OfUid {
    Spent acts, refusals;
    Instant last{};
    uint64_t suppressed = 0;  // since its last line
  };

  void Write(const AuditedCall& call, const absl::Status& result, bool refused);
  // Takes one line of a budget, where one is left.
  bool Take(Spent& spent, uint32_t most, Instant now) const;
  OfUid& Remember(int64_t uid, Instant now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  const Clock& clock_;
  const Sink sink_;
  mutable Mutex mutex_;
  AuditCounts counts_ ABSL_GUARDED_BY(mutex_);
  std::map<int64_t, OfUid> uids_ ABSL_GUARDED_BY(mutex_);  // -1: not known
  Spent all_refusals_ ABSL_GUARDED_BY(mutex_);
};

// `text` as it stands where it is one plain word, else in quotes with everything that is not
// printable ASCII escaped; cut behind 128 bytes, with "..." after it. "": "-".
std::string AuditValue(std::string_view text);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_AUDIT_LOG_H_
