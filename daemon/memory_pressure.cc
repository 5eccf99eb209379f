#include "daemon/memory_pressure.h"

#include <sys/eventfd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

namespace kvasir {

std::unique_ptr<MemoryPressure> MemoryPressure::Start(const Options& options, PoolSize& pool_size) {
  absl::StatusOr<PressureSources> sources = PressureSources::Open(options.folder);
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!sources.ok() || !wake) {
    spdlog::warn("memory pressure is not watched, going on without: {}",
                 sources.ok() ? "no eventfd" : MessageOf(sources.status()));
    return nullptr;
  }
  spdlog::info("memory pressure is watched: {}", sources->description());
  std::unique_ptr<MemoryPressure> pressure(
      new MemoryPressure(*std::move(sources), options, std::move(wake), pool_size));
  pressure->thread_ = std::thread([raw = pressure.get()] { raw->Loop(); });
  return pressure;
}

MemoryPressure::~MemoryPressure() {
  (void)::eventfd_write(wake_.get(), 1);
  thread_.join();
}

PressureState MemoryPressure::StateNow() const {
  const HostPoolCounts counts = pool_size_.counts();
  return {pool_size_.wanted_bytes(), counts.pool_bytes, counts.charged_bytes + counts.ready_bytes,
          sources_.used_bytes(), sources_.high_bytes()};
}

void MemoryPressure::Loop() {
  for (;;) {
    const bool told = sources_.Wait(wake_.get(), control_.next_look());
    eventfd_t ended = 0;
    if (::eventfd_read(wake_.get(), &ended) == 0) return;
    const Instant now = SystemClock().Now();
    if (told) control_.Told(now);
    const PressureState state = StateNow();
    const std::optional<uint64_t> size = control_.Decide(now, state);
    if (!size) continue;
    if (*size < state.pool_bytes) {
      (void)pool_size_.Shrink(*size);
    } else if (const absl::Status grown = pool_size_.Grow(*size); !grown.ok()) {
      spdlog::info("the pool cannot grow back yet: {}", MessageOf(grown));
    }
  }
}

}  // namespace kvasir
