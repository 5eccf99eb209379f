// Structured logs on stderr: `time level message key=value ...`, or one JSON object a line.
//
// Thin set-up of spdlog: use spdlog::info("extent made: bytes={} tenant={}", ...) and friends
// directly. Messages follow base/error.h's text convention.
#ifndef KVASIR_BASE_LOG_H_
#define KVASIR_BASE_LOG_H_

#include <string>

#include <absl/status/status.h>
#include <spdlog/spdlog.h>

namespace kvasir {

enum class LogFormat { kText, kJson };

// Sets level ("trace", "debug", "info", "warn", "error") and format of the process's logger.
// Errors: kInvalidArgument for an unknown level. Call once, before threads start.
absl::Status SetUpLog(const std::string& level, LogFormat format);

}  // namespace kvasir

#endif  // KVASIR_BASE_LOG_H_
