// MemoryPressure: gives memory of the pool back before the kernel has to take it.
//
// One thread that sleeps until the kernel tells of pressure (pressure_sources.h), or a step back is
// due (pressure_control.h). Joins it when destroyed.
#ifndef KVASIR_DAEMON_MEMORY_PRESSURE_H_
#define KVASIR_DAEMON_MEMORY_PRESSURE_H_

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "base/posix.h"
#include "daemon/pool_size.h"
#include "daemon/pressure_control.h"
#include "daemon/pressure_sources.h"

namespace kvasir {

class MemoryPressure {
 public:
  struct Options {
    std::string folder;  // memory.pressure_dir
    std::chrono::milliseconds quiet;
  };

  // Null, and a line in the log, where the kernel tells nothing. `pool_size` must outlive it.
  static std::unique_ptr<MemoryPressure> Start(const Options& options, PoolSize& pool_size);
  // Waits for a step under way. That ends at once when the core is stopping.
  ~MemoryPressure();
  MemoryPressure(const MemoryPressure&) = delete;
  MemoryPressure& operator=(const MemoryPressure&) = delete;

 private:
  MemoryPressure(PressureSources sources, const Options& options, UniqueFd wake,
                 PoolSize& pool_size)
      : sources_(std::move(sources)),
        control_(options.quiet),
        wake_(std::move(wake)),
        pool_size_(pool_size) {}

  void Loop();
  PressureState StateNow() const;

  PressureSources sources_;  // the thread's alone, as is `control_`
  PressureControl control_;
  const UniqueFd wake_;  // eventfd: readable when the thread is to end
  PoolSize& pool_size_;
  std::thread thread_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_MEMORY_PRESSURE_H_
