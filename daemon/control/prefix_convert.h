// v1::PrefixKey and what is said beside it -> core. Pure functions; thread-safe.
#ifndef KVASIR_DAEMON_CONTROL_PREFIX_CONVERT_H_
#define KVASIR_DAEMON_CONTROL_PREFIX_CONVERT_H_

#include <optional>

#include <absl/status/statusor.h>

#include "base/error.h"
#include "daemon/core/kv_core_types.h"
#include "kvasir/v1/kv_cache.pb.h"

namespace kvasir {

static_assert(static_cast<int>(core::QualityClass::kCompacted) == v1::QUALITY_CLASS_COMPACTED &&
              static_cast<int>(core::QualityClass::kQuantised) == v1::QUALITY_CLASS_QUANTISED &&
              static_cast<int>(core::QualityClass::kFull) == v1::QUALITY_CLASS_FULL);

// Nothing where it is unspecified. Errors: kInvalidArgument for a number that is no class.
inline absl::StatusOr<std::optional<core::QualityClass>> QualityOf(v1::QualityClass quality) {
  if (quality == v1::QUALITY_CLASS_UNSPECIFIED) return std::nullopt;
  if (!v1::QualityClass_IsValid(quality)) {
    return InvalidArgument("least_quality is unknown: value={}", static_cast<int>(quality));
  }
  return static_cast<core::QualityClass>(quality);
}

// Unchecked.
inline core::PrefixRequest ToPrefixRequest(const v1::PrefixKey& prefix) {
  core::PrefixRequest asked;
  asked.tokens.assign(prefix.tokens().begin(), prefix.tokens().end());
  for (const v1::TokenExtra& extra : prefix.extras()) {
    asked.extras.push_back({extra.row(), extra.digest()});
  }
  asked.rows_max = prefix.rows_max();
  return asked;
}

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_PREFIX_CONVERT_H_
