#include "daemon/control/call_slots.h"

#include <chrono>

#include "base/check.h"
#include "base/error.h"
#include "base/shortage.h"

namespace kvasir {
namespace {

constexpr std::chrono::milliseconds kRetry{100};

}  // namespace

CallSlots::CallSlots(size_t callers, uint32_t calls_max) : calls_max_(calls_max) {
  for (size_t i = 0; i < callers; ++i) callers_.push_back(std::make_unique<Caller>());
}

absl::StatusOr<CallSlots::Call> CallSlots::Enter(size_t caller) {
  KVASIR_CHECK(caller < callers_.size(), "unknown caller: {}", caller);
  Caller& one = *callers_[caller];
  MutexLock lock(one.mutex);
  if (one.inside >= calls_max_) {
    ++one.refused;
    return WithShortage(
        ResourceExhausted("tenant has too many calls under way: limits.calls_per_tenant_max={}",
                          calls_max_),
        {"limits.calls_per_tenant_max", 1, "own calls", kRetry});
  }
  ++one.inside;
  return Call(*this, caller);
}

CallSlots::Call::~Call() {
  if (slots_ == nullptr) return;
  Pause();
  Caller& one = *slots_->callers_[caller_];
  MutexLock lock(one.mutex);
  --one.inside;
}

bool CallSlots::Call::Run(Instant deadline) {
  Caller& one = *slots_->callers_[caller_];
  MutexLock lock(one.mutex);
  while (one.running >= kRunning) {
    if (!one.may_run.WaitUntil(one.mutex, deadline) && SystemClock().Now() >= deadline) {
      return false;
    }
  }
  ++one.running;
  runs_ = true;
  return true;
}

void CallSlots::Call::Pause() {
  if (!std::exchange(runs_, false)) return;
  Caller& one = *slots_->callers_[caller_];
  MutexLock lock(one.mutex);
  --one.running;
  one.may_run.NotifyOne();
}

uint64_t CallSlots::refused(size_t caller) const {
  MutexLock lock(callers_[caller]->mutex);
  return callers_[caller]->refused;
}

uint32_t CallSlots::inside(size_t caller) const {
  MutexLock lock(callers_[caller]->mutex);
  return callers_[caller]->inside;
}

}  // namespace kvasir
