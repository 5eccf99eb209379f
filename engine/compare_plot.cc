#include "engine/compare_plot.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

#include <filesystem>
#include <vector>

#include "base/error.h"
#include "base/posix.h"
#include "base/status_macros.h"
#include "engine/compare_score.h"

#include <fmt/format.h>
#include <spawn.h>

extern char** environ;

namespace kvasir::engine {
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

// A string of gnuplot in single quotes, where nothing but a quote has a meaning.
std::string Quoted(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') quoted += '\'';
    quoted += c >= ' ' && c <= '~' ? c : '?';
  }
  return quoted + "'";
}

std::string ScriptFor(std::span<const RetentionSummary> summaries, bool svg) {
  std::vector<double> held, kl;
  std::string data, plots;
  // Points carry numbers; the names, which are long, stand beside the picture.
  for (const RetentionSummary& row : summaries) {
    if (!(row.kl > 0)) continue;  // full retention itself: nothing on a logarithmic axis
    held.push_back(100 * row.held_ratio);
    kl.push_back(row.kl);
    const size_t number = held.size();
    data += fmt::format("$p{} << EOD\n{} {}\nEOD\n", number, held.back(), row.kl);
    plots += fmt::format(
        ", $p{0} with points pt 7 ps 0.9 title {1}, $p{0} using 1:2:('{0}') with labels "
        "left offset 0.7,0.5 notitle",
        number, Quoted(fmt::format("{}  {}", number, row.retention)));
  }
  if (held.empty()) return "";
  data += "$line << EOD\n";
  for (const size_t i : Frontier(held, kl)) data += fmt::format("{} {}\n", held[i], kl[i]);
  data += "EOD\n";
  return fmt::format(
      "set terminal {} size 1500,650 {}\nset logscale y\nset grid\n"
      "set xlabel 'bytes held, % of full retention as written'\n"
      "set ylabel 'KL to full retention, nats (lower is better)'\nset xrange [0:*]\n"
      "set key outside right top noenhanced font ',10' samplen 1\n{}"
      "plot $line with lines lw 2 lc rgb 'gray40' title 'frontier'{}\n",
      svg ? "svg" : "pngcairo", svg ? "background 'white'" : "", data, plots);
}

}  // namespace

absl::Status CheckPlot(const std::string& path) {
  KVASIR_RETURN_IF_ERROR(CheckEnding(path));
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return ErrnoStatus(errno, "open /dev/null");
  return RunGnuplot("--version", null, null);
}

absl::Status Plot(std::span<const RetentionSummary> summaries, const std::string& path) {
  KVASIR_RETURN_IF_ERROR(CheckEnding(path));
  const std::string script = ScriptFor(summaries, path.ends_with(".svg"));
  if (script.empty()) return InvalidArgument("nothing differs from full retention: path={}", path);
  // A file, unlike a pipe, raises no signal where the reader is gone.
  const UniqueFd in(::memfd_create("kvasir-plot", MFD_CLOEXEC));
  if (!in ||
      ::write(in.get(), script.data(), script.size()) != static_cast<ssize_t>(script.size()) ||
      ::lseek(in.get(), 0, SEEK_SET) != 0) {
    return ErrnoStatus(errno, "memfd for gnuplot's script");
  }
  KVASIR_RETURN_IF_ERROR(MakeFolderOf(path));
  const std::string unfinished = path + ".unfinished";
  const UniqueFd out(::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!out) return ErrnoStatus(errno, "open of the plot path=" + unfinished);
  std::error_code error;
  if (absl::Status status = RunGnuplot("-d", in, out); !status.ok()) {
    std::filesystem::remove(unfinished, error);
    return status;
  }
  std::filesystem::rename(unfinished, path, error);
  if (error) return Unavailable("cannot write a plot: path={} reason={}", path, error.message());
  return absl::OkStatus();
}

}  // namespace kvasir::engine
