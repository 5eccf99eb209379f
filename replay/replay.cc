#include "replay/replay.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <memory>

#include "base/error.h"
#include "base/status_macros.h"
#include "eviction/eviction_registry.h"
#include "eviction/fixed_policies.h"

namespace kvasir::replay {
namespace {

constexpr size_t kProgressEvery = 256;  // requests

absl::StatusOr<std::unique_ptr<eviction::EvictionPolicy>> MakePolicy(const Trace& trace,
                                                                     const std::string& name,
                                                                     uint32_t capacity) {
  if (name != eviction::kBelady) {
    // Textbook rules, so that the numbers can be compared with those of others: no pins.
    return eviction::MakeEviction(name == kInfinite ? "lru" : name, capacity, false);
  }
  if (capacity < 1 || capacity > eviction::kCapacityMax) {
    return InvalidArgument("capacity out of bounds: capacity_blocks={} min=1 max={}", capacity,
                           eviction::kCapacityMax);
  }
  return eviction::MakeBelady(capacity, eviction::NextUses(trace.accesses()), false);
}

}  // namespace

absl::StatusOr<uint32_t> ParseCapacity(const std::string& text, uint32_t unique_blocks) {
  const bool percent = !text.empty() && text.back() == '%';
  const char* end = text.data() + text.size() - (percent ? 1 : 0);
  double value = 0;
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  const double max = percent ? 100 : eviction::kCapacityMax;
  if (error != std::errc() || stop != end || !(value > 0 && value <= max) ||
      (!percent && value != static_cast<uint32_t>(value))) {
    return InvalidArgument(
        "capacity is a number of blocks or a share of the unique ones: capacity_blocks={} "
        "min=1 max={} or 100%",
        text, eviction::kCapacityMax);
  }
  if (!percent) return static_cast<uint32_t>(value);
  const double blocks = std::min<double>(unique_blocks * value / 100, eviction::kCapacityMax);
  return std::max(1U, static_cast<uint32_t>(blocks));
}

std::vector<std::string> SplitEvictions(const std::string& text) {
  std::vector<std::string> names;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string part = text.substr(at, end - at);
    const bool parameter =
        part.find('=') != std::string::npos && part.find(':') == std::string::npos;
    if (parameter && !names.empty() && names.back().find(':') != std::string::npos) {
      names.back() += "," + part;
    } else {
      names.push_back(part);
    }
    at = end + 1;
  }
  return names;
}

absl::StatusOr<Result> Replay(const Trace& trace, const std::string& eviction,
                              uint32_t capacity_blocks,
                              const std::function<void(double)>& progress) {
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<eviction::EvictionPolicy> policy,
                          MakePolicy(trace, eviction, capacity_blocks));
  Result result;
  result.eviction = eviction;
  result.capacity_blocks = capacity_blocks;
  std::vector<eviction::Eviction> evicted;
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  for (size_t i = 0; i < trace.requests(); ++i) {
    const eviction::Request request = trace.request(i);
    evicted.clear();
    KVASIR_ASSIGN_OR_RETURN(const eviction::Admission admission,
                            eviction::Serve(*policy, request, evicted));
    result.accesses += request.chain.size();
    result.block_hits += admission.block_hits;
    result.prefix_hits += admission.prefix_hits;
    result.evicted += evicted.size();
    if (progress && i % kProgressEvery == 0) {
      progress(static_cast<double>(i) / static_cast<double>(trace.requests()));
    }
  }
  result.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  result.resident = policy->resident();
  result.stored = result.evicted + result.resident;
  result.metadata_bytes = policy->MetadataBytes();
  return result;
}

}  // namespace kvasir::replay
