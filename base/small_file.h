// Small files as a whole: configurations, profiles, results.
//
// Thread-safe. Both block on the disk.
#ifndef KVASIR_BASE_SMALL_FILE_H_
#define KVASIR_BASE_SMALL_FILE_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

namespace kvasir {

// The bytes of a regular file. Errors: kInvalidArgument for anything else (a pipe or a folder does
// not hold the caller up) and above `bytes_max`, ErrnoStatus() for what the system says.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, uint64_t bytes_max);

// Writes `bytes` beside `path` and renames them onto it, so that nobody ever sees a part. An older
// file is replaced, its mode as well. Errors: ErrnoStatus(); the older file is as it was then.
absl::Status ReplaceFile(const std::string& path, std::string_view bytes, mode_t mode);

}  // namespace kvasir

#endif  // KVASIR_BASE_SMALL_FILE_H_
