#include "daemon/pressure_control.h"

#include <algorithm>
#include <chrono>

#include "base/bytes.h"

namespace kvasir {
namespace {

constexpr uint64_t kSteps = 8;  // of the wanted size
constexpr int kWaitMax = 16;    // in quiet times
// What a step has freed shows in the kernel's figures only after a moment.
constexpr std::chrono::seconds kBetweenShrinks{1};

uint64_t StepOf(const PressureState& state) {
  return RoundUp(DivideUp(state.wanted_bytes, kSteps), kPageBytes);
}

}  // namespace

void PressureControl::Told(Instant now) {
  pending_ = true;
  calm_since_ = now;
  if (!grown_) return;
  wait_ = now - *grown_ < wait_ ? std::min(wait_ * 2, quiet_ * kWaitMax) : quiet_;
  grown_.reset();  // the same pressure, told of again, doubles nothing
}

std::optional<uint64_t> PressureControl::Decide(Instant now, const PressureState& state) {
  next_look_.reset();
  if (pending_) return Shrink(now, state);
  return state.pool_bytes < state.wanted_bytes ? Grow(now, state) : std::nullopt;
}

std::optional<uint64_t> PressureControl::Shrink(Instant now, const PressureState& state) {
  if (shrunk_ && now < *shrunk_ + kBetweenShrinks) {
    next_look_ = *shrunk_ + kBetweenShrinks;
    return std::nullopt;
  }
  pending_ = false;
  next_look_ = now + wait_;
  const uint64_t floor = StepOf(state);
  const bool above_high =
      state.cgroup_high_bytes > 0 && state.cgroup_used_bytes > state.cgroup_high_bytes;
  const uint64_t excess = above_high ? state.cgroup_used_bytes - state.cgroup_high_bytes : 0;
  const uint64_t less = RoundUp(std::max(StepOf(state), excess), kPageBytes);
  const uint64_t from = std::min(state.pool_bytes, state.touched_bytes);
  const uint64_t size = from > floor + less ? RoundDown(from - less, kPageBytes) : floor;
  if (size >= state.pool_bytes) return std::nullopt;
  shrunk_ = now;
  return size;
}

std::optional<uint64_t> PressureControl::Grow(Instant now, const PressureState& state) {
  const uint64_t more = std::min(StepOf(state), state.wanted_bytes - state.pool_bytes);
  const bool quiet = now >= calm_since_ + wait_;
  const bool room =
      state.cgroup_high_bytes == 0 || state.cgroup_used_bytes + more <= state.cgroup_high_bytes;
  if (quiet) calm_since_ = now;  // one step, or one look for room, in a quiet time
  next_look_ = calm_since_ + wait_;
  if (!quiet || !room) return std::nullopt;
  grown_ = now;
  if (more == state.wanted_bytes - state.pool_bytes) next_look_.reset();
  return state.pool_bytes + more;
}

}  // namespace kvasir
