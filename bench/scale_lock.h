// How much of their time calls of block borders wait for the core's lock, when engines of several
// tenants call at once: with one lock around the core, and with a share of it for each tenant.
#ifndef KVASIR_BENCH_SCALE_LOCK_H_
#define KVASIR_BENCH_SCALE_LOCK_H_

#include "bench/report.h"

namespace kvasir::bench {

// Measures in this process: the real core, lock and verbs, engines without sockets, a thread for
// each tenant, the two locks interleaved.
void AddLockRows(Report* report);

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_SCALE_LOCK_H_
