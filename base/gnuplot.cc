#include "base/gnuplot.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

#include <filesystem>

#include "base/error.h"
#include "base/posix.h"
#include "base/status_macros.h"

#include <fmt/format.h>
#include <spawn.h>

extern char** environ;

namespace kvasir {
namespace {

constexpr char kMissing[] = "a plot needs gnuplot (Debian package gnuplot-nox): {}";

absl::Status CheckEnding(const std::string& path) {
  if (path.ends_with(".svg") || path.ends_with(".png")) return absl::OkStatus();
  return InvalidArgument("a plot is a .svg or a .png: path={}", path);
}

// Runs gnuplot, without the user's own settings, from `in` to `out`.
absl::Status RunGnuplot(const char* option, const UniqueFd& in, const UniqueFd& out) {
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, in.get(), STDIN_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, out.get(), STDOUT_FILENO);
  char* const arguments[] = {const_cast<char*>("gnuplot"), const_cast<char*>(option), nullptr};
  pid_t pid = -1;
  const int error = ::posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    return FailedPrecondition(kMissing, std::generic_category().message(error));
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return ErrnoStatus(errno, "waitpid gnuplot");
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return absl::OkStatus();
  return FailedPrecondition(kMissing, fmt::format("it failed: wait_status={}", status));
}

}  // namespace

std::string GnuplotString(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') quoted += '\'';
    quoted += c >= ' ' && c <= '~' ? c : '?';
  }
  return quoted + "'";
}

absl::Status CheckPlot(const std::string& path) {
  KVASIR_RETURN_IF_ERROR(CheckEnding(path));
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return ErrnoStatus(errno, "open /dev/null");
  return RunGnuplot("--version", null, null);
}

absl::Status DrawPlot(const std::string& script, int width, int height, const std::string& path) {
  KVASIR_RETURN_IF_ERROR(CheckEnding(path));
  const bool svg = path.ends_with(".svg");
  const std::string whole =
      fmt::format("set terminal {} size {},{} {}\n{}", svg ? "svg" : "pngcairo", width, height,
                  svg ? "background 'white'" : "", script);
  // A file, unlike a pipe, raises no signal where the reader is gone.
  const UniqueFd in(::memfd_create("kvasir-plot", MFD_CLOEXEC));
  if (!in || ::write(in.get(), whole.data(), whole.size()) != static_cast<ssize_t>(whole.size()) ||
      ::lseek(in.get(), 0, SEEK_SET) != 0) {
    return ErrnoStatus(errno, "memfd for gnuplot's script");
  }
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error) return Unavailable("cannot make a folder: path={} reason={}", path, error.message());
  const std::string unfinished = path + ".unfinished";
  const UniqueFd out(::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!out) return ErrnoStatus(errno, "open of the plot path=" + unfinished);
  if (absl::Status status = RunGnuplot("-d", in, out); !status.ok()) {
    std::filesystem::remove(unfinished, error);
    return status;
  }
  std::filesystem::rename(unfinished, path, error);
  if (error) return Unavailable("cannot write a plot: path={} reason={}", path, error.message());
  return absl::OkStatus();
}

}  // namespace kvasir
