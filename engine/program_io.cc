#include "engine/program_io.h"

#include <errno.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <memory>

#include "base/error.h"
#include "base/posix.h"

#include <fmt/format.h>

namespace kvasir::engine {
namespace {

constexpr size_t kTextBytesMax = size_t{1} << 30;

}  // namespace

// Not a stream: libstdc++'s iterators throw on a path that is a folder.
absl::StatusOr<std::string> ReadText(const std::string& path) {
  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::unique_ptr<std::FILE, Closer> owned(path == "-" ? nullptr : std::fopen(path.c_str(), "rb"));
  if (path != "-" && owned == nullptr) {
    return ErrnoStatus(errno, fmt::format("open of text file path={}", path));
  }
  std::FILE* file = path == "-" ? stdin : owned.get();
  std::string text;
  std::array<char, 1 << 16> buffer;
  size_t bytes = 0;
  while ((bytes = std::fread(buffer.data(), 1, buffer.size(), file)) > 0) {
    text.append(buffer.data(), bytes);
    if (text.size() > kTextBytesMax) {
      return InvalidArgument("text file is too long: path={} max_bytes={}", path, kTextBytesMax);
    }
  }
  if (std::ferror(file) != 0)
    return ErrnoStatus(errno, fmt::format("read of text file path={}", path));
  return text;
}

ProgressLine::ProgressLine(std::string what)
    : what_(std::move(what)), terminal_(::isatty(STDERR_FILENO) == 1) {}

void ProgressLine::operator()(uint64_t done, uint64_t total) {
  const uint64_t tenth = done * 10 / total;
  if (done == total && !shown_) return;  // one batch: no long work
  if (!terminal_ && tenth == tenth_) return;
  tenth_ = tenth;
  shown_ = true;
  const char* end = !terminal_ || done == total ? "\n" : "";
  fmt::print(stderr, "{}{}: {}/{} tokens{}", terminal_ ? "\r" : "", what_, done, total, end);
  std::fflush(stderr);
}

}  // namespace kvasir::engine
