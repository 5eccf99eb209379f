// SharedCore: the one lock around KvCore, and the conditions that threads wait for.
#ifndef KVASIR_DAEMON_SHARED_CORE_H_
#define KVASIR_DAEMON_SHARED_CORE_H_

#include <functional>

#include "base/mutex.h"
#include "daemon/core/kv_core.h"

namespace kvasir {

// `mutex` is the daemon's outermost lock; under it only HostPool's leaf lock is taken. No system
// call that a peer could block is made under it.
struct SharedCore {
  SharedCore(core::CoreConfig config, HostPool& pool) : core(std::move(config), pool) {}

  Mutex mutex;
  core::KvCore core ABSL_GUARDED_BY(mutex);
  bool stopping ABSL_GUARDED_BY(mutex) = false;
  CondVar work;       // a copy job waits, or stopping
  CondVar tier_work;  // there may be work for tiers
  CondVar progress;   // a job is finished, a session has ended, or stopping

  // Wakes the data server's thread, which takes leave of sessions that the core has ended. Set
  // once, before threads start.
  std::function<void()> wake_data_server;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_SHARED_CORE_H_
