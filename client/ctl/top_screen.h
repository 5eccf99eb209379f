// TopScreen: the terminal of `kvasirctl top`, by ncurses.
//
// Not thread-safe; one at a time in a process. While it is there the terminal has an alternate
// screen, no echo and no cursor, and SIGINT, SIGTERM and SIGHUP are keys (kQuit). The destructor
// gives the terminal and the signals back as they were.
#ifndef KVASIR_CLIENT_CTL_TOP_SCREEN_H_
#define KVASIR_CLIENT_CTL_TOP_SCREEN_H_

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

namespace kvasir::ctl {

class TopScreen {
 public:
  enum class Key { kNone, kQuit, kSort, kPause, kResized };

  virtual ~TopScreen() = default;
  virtual size_t columns() const = 0;
  virtual size_t lines() const = 0;

  // The whole screen; what does not fit is not shown. The first line is bold, and the one after
  // the first empty line, a table's title, is reversed.
  virtual void Draw(const std::vector<std::string>& text) = 0;

  // Waits for a key, at most so long; kQuit at once after a signal. Other keys are kNone.
  virtual Key Wait(std::chrono::milliseconds at_most) = 0;
};

// Takes stdin and stdout. Errors: kFailedPrecondition when they are no terminal, or $TERM is one
// that is not known; then nothing was changed.
absl::StatusOr<std::unique_ptr<TopScreen>> OpenTopScreen();

}  // namespace kvasir::ctl

#endif  // KVASIR_CLIENT_CTL_TOP_SCREEN_H_
