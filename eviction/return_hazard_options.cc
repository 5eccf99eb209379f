#include "eviction/return_hazard_options.h"

#include <cmath>
#include <string>

#include "base/error.h"

namespace kvasir::eviction {
namespace {

using Options = ReturnHazardOptions;

constexpr ReturnHazardParameter kParameters[] = {
    {"ghost_factor", &Options::ghost_factor, 0, 64, true},
    {"old_quantile", &Options::old_quantile, 0.5, 1, false},
    {"old_bonus", &Options::old_bonus, 0, 10, false},
    {"trunk_kids", &Options::trunk_kids, 2, 1 << 20, true},
    {"hazard_prior", &Options::hazard_prior, 0.001, 0.9, false},
    {"prior_weight", &Options::prior_weight, 0.1, 1000, false},
    {"kappa", &Options::kappa, 0.1, 1000, false},
    {"evidence_max", &Options::evidence_max, 1, 1e6, false},
    {"decay", &Options::decay, 0.5, 1, false},
    {"relearn_every", &Options::relearn_every, 1, 1e6, true},
    {"block_tokens", &Options::block_tokens, 1, 65536, true},
};

absl::Status CheckValue(const ReturnHazardParameter& parameter, double value) {
  const bool inside = value >= parameter.min && value <= parameter.max;  // false for NaN
  if (inside && (!parameter.whole || value == std::floor(value))) return absl::OkStatus();
  return InvalidArgument("parameter of return-hazard out of bounds: {}={} min={} max={}{}",
                         parameter.name, value, parameter.min, parameter.max,
                         parameter.whole ? " whole=true" : "");
}

}  // namespace

std::span<const ReturnHazardParameter> ReturnHazardParameters() { return kParameters; }

absl::Status SetParameter(std::string_view name, double value, ReturnHazardOptions& options) {
  std::string known;
  for (const ReturnHazardParameter& parameter : kParameters) {
    if (parameter.name == name) {
      if (absl::Status status = CheckValue(parameter, value); !status.ok()) return status;
      options.*parameter.value = value;
      return absl::OkStatus();
    }
    known += (known.empty() ? "" : ",") + std::string(parameter.name);
  }
  return InvalidArgument("return-hazard has no such parameter: name={} known={}", name, known);
}

absl::Status CheckOptions(const ReturnHazardOptions& options) {
  for (const ReturnHazardParameter& parameter : kParameters) {
    const absl::Status status = CheckValue(parameter, options.*parameter.value);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace kvasir::eviction
