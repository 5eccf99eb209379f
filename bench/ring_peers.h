// The two processes of each row of bench_ring: a responder, started from this program, that answers
// calls one after the other, and the caller in this process.
#ifndef KVASIR_BENCH_RING_PEERS_H_
#define KVASIR_BENCH_RING_PEERS_H_

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/mapped_region.h"
#include "base/posix.h"
#include "proto/shm/layout.h"

namespace kvasir::bench {

// What a call goes through. `asleep`: of the responder, before each call; `spin`: of the caller,
// before it sleeps while it waits for the answer.
enum class Path {
  kLines,    // two cache lines there, two back
  kFutex,    // a word and a futex, both ways
  kEventfd,  // an eventfd and epoll, both ways
  kRing,     // a submission and its completion
  kCaller,   // the same by CommandCaller
};
struct PathSetting {
  Path path = Path::kLines;
  bool asleep = false;
  std::chrono::nanoseconds spin{0};
};

// Words of their own cache lines, of the paths without a ring. `sleeps` counts for all paths.
struct PlainWords {
  alignas(64) shm::A32 call;
  alignas(64) uint64_t call_data[8];
  alignas(64) shm::A32 answer;
  alignas(64) uint64_t answer_data[8];
  alignas(64) shm::A64 sleeps;
};

// What both processes share; made by the caller, inherited by the responder.
struct SharedParts {
  UniqueFd words, d, e;                   // memfds
  UniqueFd call_bell, answer_bell, stop;  // eventfds, and the end of a pipe
  static absl::StatusOr<SharedParts> Make();
};

// Answers until the other end of `stop` is closed, or this process is killed.
absl::Status Respond(const PathSetting& setting, const SharedParts& parts);

// The caller's side of one path, with its responder.
class Exchange {
 public:
  // Starts the responder on `responder_cpu` (-1: anywhere) and waits until it answers.
  static absl::StatusOr<std::unique_ptr<Exchange>> Start(const PathSetting& setting,
                                                         int responder_cpu);
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  // One call and its answer.
  absl::Status Call() { return call_(); }
  // How often the responder has slept.
  uint64_t Sleeps() const;

 private:
  Exchange() = default;
  absl::Status Prepare(const PathSetting& setting);

  SharedParts parts_;
  UniqueFd stop_;
  MappedRegion words_, d_, e_;
  std::function<absl::Status()> call_;
  pid_t pid_ = -1;
};

// Of the command line by which a responder is started.
std::vector<std::string> ArgumentsOf(const PathSetting& setting, const SharedParts& parts, int cpu);

// To one processor; -1: leaves it where it is.
void PinTo(int cpu);

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_RING_PEERS_H_
