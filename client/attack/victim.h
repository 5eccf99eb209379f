// Victim: an engine that has something to lose, and sees whether it does.
#ifndef KVASIR_CLIENT_ATTACK_VICTIM_H_
#define KVASIR_CLIENT_ATTACK_VICTIM_H_

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include <absl/status/statusor.h>

#include "base/clock.h"
#include "client/attack/attempts.h"
#include "client/attack/by_hand.h"
#include "client/attack/target.h"
#include "client/session.h"

namespace kvasir::attack {

// Not thread-safe.
class Victim {
 public:
  // A stream of rows that bear a random mark, a snapshot of it, and a session beside it whose token
  // and sequence are told to attackers. Errors: the daemon's.
  static absl::StatusOr<Victim> Start(const std::string& control_socket,
                                      const std::string& data_socket);

  // What attackers are told; without the daemon's process.
  const Target& target() const { return target_; }

  // Writes a row, reads all rows, sometimes connects anew. What goes wrong is noted. Cost: well
  // under a millisecond; some milliseconds pass in it, so that it can be called again and again.
  void Step();

  // What attackers have not reached: rows, snapshot, sequence, connecting, the time of its calls.
  // Drops what it has.
  Attempts Finish();

 private:
  Victim() = default;
  absl::Status OpenStream();
  absl::Status WriteRow();

  Target target_;
  std::string mark_;
  std::unique_ptr<Session> session_;
  ModelHandle model_;
  std::optional<Sequence> stream_;
  std::optional<Engine> lender_;
  v1::OpenSequenceResponse lent_;
  uint64_t steps_ = 0, connects_ = 0, foreign_rows_ = 0;
  absl::Status failed_, not_connected_;  // the first of each
  std::chrono::milliseconds slowest_{0};
};

}  // namespace kvasir::attack

#endif  // KVASIR_CLIENT_ATTACK_VICTIM_H_
