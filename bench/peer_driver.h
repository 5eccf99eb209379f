// DriverPeer: another project's store, whose client is a program in the language that it is for.
//
// The program (bench/peers) starts the project's servers, does what bench_peers asks for by lines,
// and times each call itself: the way between the two programs costs no row anything. It must give
// the sums that all others give. Not thread-safe.
#ifndef KVASIR_BENCH_PEER_DRIVER_H_
#define KVASIR_BENCH_PEER_DRIVER_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/posix.h"
#include "bench/peer.h"

namespace kvasir::bench {

// From here on an interrupt ends no program at once: Interrupted() says that it came, and what
// waits for a driver ends with kCancelled. For Main() alone.
void NoticeInterrupts();
bool Interrupted();

class DriverPeer {
 public:
  // Runs `command` by the shell, in a group of its own, until it is filled; up to minutes. Errors:
  // kUnavailable with what the program says, kCancelled.
  static absl::StatusOr<std::unique_ptr<DriverPeer>> Start(const std::string& command,
                                                           const PeerData& data);
  // Ends it and all that it has started, in 10 seconds at most.
  ~DriverPeer();
  DriverPeer(const DriverPeer&) = delete;
  DriverPeer& operator=(const DriverPeer&) = delete;

  // The client's language, and the way that it takes.
  const std::string& about() const { return about_; }

  // Milliseconds of a row of bench_peers: of its one call, or the median of them. Errors:
  // kUnimplemented for a row that the project does not have, kDataLoss for another sum,
  // kUnavailable, kCancelled.
  absl::StatusOr<double> Measure(const std::string& row, uint32_t round);

 private:
  struct Answer {
    double ms = 0;
    uint64_t sum = 0;
  };
  explicit DriverPeer(const PeerData& data) : data_(data) {}
  absl::StatusOr<std::string> ReadLine();
  absl::StatusOr<std::vector<Answer>> Ask(const std::string& verb,
                                          const std::vector<uint64_t>& numbers);
  absl::StatusOr<double> Median(const std::string& verb, const std::vector<uint64_t>& blocks,
                                bool sums);

  const PeerData data_;
  pid_t pid_ = -1;
  UniqueFd to_, from_;
  std::string read_;  // behind the last line
  std::string about_;
};

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_PEER_DRIVER_H_
