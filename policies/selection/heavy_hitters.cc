#include "policies/selection/heavy_hitters.h"

#include <cmath>
#include <cstddef>

#include "base/error.h"
#include "base/status_macros.h"
#include "policies/selection/score_checks.h"

namespace kvasir {

absl::Status CheckDecay(double decay) {
  if (decay > 0.0 && decay <= 1.0) return absl::OkStatus();
  return InvalidArgument("decay out of bounds: decay={} above=0 max=1", decay);
}

absl::Status AddRunningScores(std::span<const float> base, double decay, uint64_t tokens,
                              std::span<const float> mass, std::span<float> total) {
  KVASIR_RETURN_IF_ERROR(CheckDecay(decay));
  if (base.size() > mass.size() || total.size() != mass.size()) {
    return InvalidArgument("sizes of running scores do not fit: base={} mass={} total={}",
                           base.size(), mass.size(), total.size());
  }
  KVASIR_RETURN_IF_ERROR(CheckFinite(base, "base score"));
  const double factor = decay == 1.0 ? 1.0 : std::pow(decay, static_cast<double>(tokens));
  const auto sum = [&](size_t i) {
    return static_cast<float>(i < base.size() ? base[i] * factor + mass[i] : double{mass[i]});
  };
  for (size_t i = 0; i < mass.size(); ++i) {
    if (!(mass[i] >= 0.0F) || !std::isfinite(sum(i))) {
      return InvalidArgument("mass must be finite and not negative: index={} mass={}", i, mass[i]);
    }
  }
  for (size_t i = 0; i < mass.size(); ++i) total[i] = sum(i);
  return absl::OkStatus();
}

}  // namespace kvasir
