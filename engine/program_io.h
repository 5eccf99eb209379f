// How kvasir-generate reads texts and shows how far it is.
#ifndef KVASIR_ENGINE_PROGRAM_IO_H_
#define KVASIR_ENGINE_PROGRAM_IO_H_

#include <cstdint>
#include <string>

#include <absl/status/statusor.h>

namespace kvasir::engine {

// The whole file; "-": standard input. Errors: those of the file system; kInvalidArgument above
// 1 GiB.
absl::StatusOr<std::string> ReadText(const std::string& path);

// Progress of long work on standard error: one line that rewrites itself on a terminal, else a line
// every tenth. Not thread-safe.
class ProgressLine {
 public:
  explicit ProgressLine(std::string what);
  void operator()(uint64_t done, uint64_t total);

 private:
  const std::string what_;
  const bool terminal_;
  bool shown_ = false;
  uint64_t tenth_ = 0;
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_PROGRAM_IO_H_
