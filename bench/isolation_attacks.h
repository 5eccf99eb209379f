// What the attacker of bench_isolation does, each mode as fast as its threads can.
#ifndef KVASIR_BENCH_ISOLATION_ATTACKS_H_
#define KVASIR_BENCH_ISOLATION_ATTACKS_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "bench/isolation_board.h"

namespace kvasir::bench {

enum class Mode : uint32_t {
  kBurn,         // burns processor time and never talks to the daemon
  kRing,         // full rings of looks at a short prefix
  kGrpc,         // sequences opened and closed, statistics asked for
  kConnections,  // sessions opened and dropped
  kHuge,         // the longest prompts that ring and gRPC take
  kSilent,       // connections that say nothing, rings and calls whose answers nobody reads
  kCount,
};
const char* NameOf(Mode mode);

// How one thread used a processor.
struct ThreadUse {
  static constexpr std::chrono::milliseconds kBin{5};  // a tick of the scheduler is 4 ms at most
  struct Bin {
    double busy_s = 0;
    double piece_s = 0;  // at a time, until it waited for something
  };
  std::vector<Bin> bins;  // from when the attack was ready
};

struct AttackOptions {
  Mode mode = Mode::kBurn;
  std::string control_socket, data_socket;
  uint32_t threads = 4;
  std::vector<ThreadUse> burn;  // kBurn: a thread for each, instead of `threads`
};

// The whole life of an attacker's process: until it is killed.
[[noreturn]] void BeAttacker(const AttackOptions& options, AttackBoard& board);

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_ISOLATION_ATTACKS_H_
