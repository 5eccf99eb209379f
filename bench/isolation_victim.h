// The victim of bench_isolation: an engine at a steady pace, that notes how long each call took.
#ifndef KVASIR_BENCH_ISOLATION_VICTIM_H_
#define KVASIR_BENCH_ISOLATION_VICTIM_H_

#include "bench/isolation_board.h"
#include "client/session.h"

namespace kvasir::bench {

// The whole life of its process. A call that is late because one before it took long counts from
// when it was due.
[[noreturn]] void BeVictim(const ConnectOptions& connect, VictimBoard& board);

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_ISOLATION_VICTIM_H_
