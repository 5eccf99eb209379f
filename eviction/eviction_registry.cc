#include "eviction/eviction_registry.h"

#include <charconv>
#include <string>

#include "base/error.h"
#include "base/status_macros.h"
#include "eviction/fixed_policies.h"
#include "eviction/return_hazard.h"

#include <fmt/ranges.h>

namespace kvasir::eviction {
namespace {

struct Fixed {
  std::string_view name;
  std::unique_ptr<EvictionPolicy> (*make)(uint32_t capacity, bool pin);
};
constexpr Fixed kFixed[] = {{"lru", MakeLru},
                            {"arc", MakeArc},
                            {"s3-fifo", MakeS3Fifo},
                            {"w-tinylfu", MakeWTinyLfu},
                            {"lfu", MakeLfu}};

// key=value,key=value
absl::StatusOr<ReturnHazardOptions> ParseOptions(std::string_view text) {
  ReturnHazardOptions options;
  while (!text.empty()) {
    const std::string_view term = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), term.size() + 1));
    const size_t equals = term.find('=');
    const std::string_view key = term.substr(0, equals);
    const std::string_view digits =
        equals == std::string_view::npos ? std::string_view() : term.substr(equals + 1);
    double value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size()) {
      return InvalidArgument("a parameter is written key=number: parameter={}", term);
    }
    KVASIR_RETURN_IF_ERROR(SetParameter(key, value, options));
  }
  return options;
}

}  // namespace

const std::vector<std::string_view>& EvictionNames() {
  static const auto* names = [] {
    auto* all = new std::vector<std::string_view>{kDefaultEviction};
    for (const Fixed& fixed : kFixed) all->push_back(fixed.name);
    return all;
  }();
  return *names;
}

absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakeEviction(std::string_view spec,
                                                             uint32_t capacity, bool pin) {
  if (capacity < 1 || capacity > kCapacityMax) {
    return InvalidArgument("capacity out of bounds: capacity_blocks={} min=1 max={}", capacity,
                           kCapacityMax);
  }
  const size_t colon = spec.find(':');
  const std::string_view name = spec.substr(0, colon);
  if (name == kDefaultEviction) {
    ReturnHazardOptions options;
    if (colon != std::string_view::npos) {
      KVASIR_ASSIGN_OR_RETURN(options, ParseOptions(spec.substr(colon + 1)));
    }
    KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<EvictionPolicy> policy,
                            ReturnHazard::Make(capacity, options));
    return policy;
  }
  for (const Fixed& fixed : kFixed) {
    if (fixed.name != name) continue;
    if (colon != std::string_view::npos) {
      return InvalidArgument("this policy has no parameters: eviction={}", spec);
    }
    return fixed.make(capacity, pin);
  }
  return InvalidArgument("unknown eviction policy: eviction={} known={}", name,
                         fmt::join(EvictionNames(), ","));
}

}  // namespace kvasir::eviction
