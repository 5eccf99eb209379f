// Errors with formatted text. One function for each status code that the project uses.
//
// Text convention: a static sentence first, values at the end as `key=value` with the unit in the
// key, e.g. `slot count out of bounds: slots=3 min=4 max=128`. Std types in, absl::Status out
// (Debian's absl::string_view is not std::string_view, so conversions stay here).
#ifndef KVASIR_BASE_ERROR_H_
#define KVASIR_BASE_ERROR_H_

#include <string>
#include <string_view>
#include <utility>

#include <absl/status/status.h>
#include <absl/strings/string_view.h>

#include <fmt/format.h>

namespace kvasir {

inline absl::Status MakeError(absl::StatusCode code, const std::string& text) {
  return absl::Status(code, absl::string_view(text.data(), text.size()));
}

inline std::string MessageOf(const absl::Status& status) {
  return std::string(status.message().data(), status.message().size());
}

#define KVASIR_DEFINE_ERROR_(Name, kCode)                                                        \
  template <typename... Args>                                                                    \
  absl::Status Name(fmt::format_string<Args...> format, Args&&... args) {                        \
    return MakeError(absl::StatusCode::kCode, fmt::format(format, std::forward<Args>(args)...)); \
  }

KVASIR_DEFINE_ERROR_(InvalidArgument, kInvalidArgument)        // the caller's argument is wrong
KVASIR_DEFINE_ERROR_(NotFound, kNotFound)                      // unknown id
KVASIR_DEFINE_ERROR_(AlreadyExists, kAlreadyExists)            // name or socket taken
KVASIR_DEFINE_ERROR_(PermissionDenied, kPermissionDenied)      // known caller, not allowed
KVASIR_DEFINE_ERROR_(Unauthenticated, kUnauthenticated)        // unknown caller or bad token
KVASIR_DEFINE_ERROR_(ResourceExhausted, kResourceExhausted)    // quota or memory, with figures
KVASIR_DEFINE_ERROR_(FailedPrecondition, kFailedPrecondition)  // wrong state; retry is useless
KVASIR_DEFINE_ERROR_(Aborted, kAborted)                        // stale generation
KVASIR_DEFINE_ERROR_(OutOfRange, kOutOfRange)                  // past the end
KVASIR_DEFINE_ERROR_(Unimplemented, kUnimplemented)            // this build cannot
KVASIR_DEFINE_ERROR_(Unavailable, kUnavailable)                // peer gone or draining; retry
KVASIR_DEFINE_ERROR_(DeadlineExceeded, kDeadlineExceeded)      // a wait ended
KVASIR_DEFINE_ERROR_(DataLoss, kDataLoss)                      // damaged file or record
KVASIR_DEFINE_ERROR_(Internal, kInternal)                      // our bug, or the kernel's

#undef KVASIR_DEFINE_ERROR_

}  // namespace kvasir

#endif  // KVASIR_BASE_ERROR_H_
