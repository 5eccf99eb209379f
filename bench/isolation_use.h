// How the threads of another process use processors, by the kernel's files. Thread-safe.
#ifndef KVASIR_BENCH_ISOLATION_USE_H_
#define KVASIR_BENCH_ISOLATION_USE_H_

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "bench/isolation_attacks.h"

namespace kvasir::bench {

// Of a thread since its start: time on a processor in ns, and how often it waited for something.
struct Used {
  double ns = 0, waits = 0;
};
// Of each thread that the process has now, by id.
std::map<std::string, Used> UsedBy(pid_t pid);

// What threads did between looks that are a bin apart. REQUIRES: a look.
std::vector<ThreadUse> UseOf(const std::vector<std::map<std::string, Used>>& looks);

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_ISOLATION_USE_H_
