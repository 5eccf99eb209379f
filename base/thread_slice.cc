#include "base/thread_slice.h"

#include <linux/sched.h>
#include <linux/sched/types.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace kvasir {
namespace {

constexpr uint64_t kShortNs = 100'000;  // the kernel's least

}  // namespace

void SetThreadSlice(ThreadSlice slice) {
  sched_attr attributes{};
  if (::syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) != 0) return;
  if (attributes.sched_policy != SCHED_NORMAL && attributes.sched_policy != SCHED_BATCH) return;
  attributes.sched_runtime = slice == ThreadSlice::kShort ? kShortNs : 0;
  (void)::syscall(SYS_sched_setattr, 0, &attributes, 0);
}

}  // namespace kvasir
