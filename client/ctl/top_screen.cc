#include "client/ctl/top_screen.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <clocale>
#include <cstdio>
#include <cstdlib>

#include "base/clock.h"
#include "base/error.h"

// Its macros have names such as timeout: no header comes after it.
#define NCURSES_NOMACROS
#define NCURSES_WIDECHAR 1
#include <curses.h>

namespace kvasir::ctl {
namespace {

// A signal may come to one of gRPC's threads, which then does not wake this one.
constexpr std::chrono::milliseconds kLook{100};
constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP};

volatile sig_atomic_t g_ended = 0;

void NoteEnd(int) { g_ended = 1; }

class NcursesScreen final : public TopScreen {
 public:
  explicit NcursesScreen(SCREEN* screen) : screen_(screen) {
    g_ended = 0;
    struct sigaction action = {};
    action.sa_handler = NoteEnd;
    for (size_t i = 0; i < kSignals.size(); ++i) {
      ::sigaction(kSignals[i], &action, &before_[i]);
    }
    ::cbreak();
    ::noecho();
    ::keypad(stdscr, true);
    ::curs_set(0);
  }

  ~NcursesScreen() override {
    ::endwin();
    ::delscreen(screen_);
    for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &before_[i], nullptr);
  }

  NcursesScreen(const NcursesScreen&) = delete;
  NcursesScreen& operator=(const NcursesScreen&) = delete;

  size_t columns() const override { return static_cast<size_t>(std::max(::getmaxx(stdscr), 1)); }
  size_t lines() const override { return static_cast<size_t>(std::max(::getmaxy(stdscr), 1)); }

  void Draw(const std::vector<std::string>& text) override {
    ::werase(stdscr);
    bool title = false;
    for (size_t i = 0; i < std::min(text.size(), lines()); ++i) {
      const int attributes = static_cast<int>(title ? A_REVERSE : i == 0 ? A_BOLD : A_NORMAL);
      title = text[i].empty();
      ::wattrset(stdscr, attributes);
      ::wmove(stdscr, static_cast<int>(i), 0);
      ::waddnstr(stdscr, text[i].c_str(), -1);
    }
    ::wattrset(stdscr, static_cast<int>(A_NORMAL));
    ::wrefresh(stdscr);
  }

  Key Wait(std::chrono::milliseconds at_most) override {
    const Instant end = SystemClock().Now() + at_most;
    for (;;) {
      if (g_ended != 0) return Key::kQuit;
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(end - SystemClock().Now());
      const auto wait = std::clamp(left, std::chrono::milliseconds{0}, kLook);
      ::wtimeout(stdscr, static_cast<int>(wait.count()));
      switch (const int key = ::wgetch(stdscr)) {
        case 'q':
        case 'Q':
          return Key::kQuit;
        case 's':
          return Key::kSort;
        case 'p':
          return Key::kPause;
        case KEY_RESIZE:
          return Key::kResized;
        default:
          // A terminal that has gone away is at its end at once, and for ever.
          if (key == ERR && ::isatty(STDIN_FILENO) == 0) return Key::kQuit;
          break;
      }
      if (SystemClock().Now() >= end) return g_ended != 0 ? Key::kQuit : Key::kNone;
    }
  }

 private:
  SCREEN* const screen_;
  std::array<struct sigaction, kSignals.size()> before_{};
};

}  // namespace

absl::StatusOr<std::unique_ptr<TopScreen>> OpenTopScreen() {
  if (::isatty(STDIN_FILENO) != 1 || ::isatty(STDOUT_FILENO) != 1) {
    return FailedPrecondition("stdin and stdout are not both a terminal");
  }
  std::setlocale(LC_CTYPE, "");  // what characters the terminal takes
  // Unlike initscr(), it does not end the process where it fails.
  SCREEN* const screen = ::newterm(nullptr, stdout, stdin);
  if (screen == nullptr) {
    const char* const term = std::getenv("TERM");
    return FailedPrecondition("unknown terminal: TERM={}", term == nullptr ? "" : term);
  }
  return std::make_unique<NcursesScreen>(screen);
}

}  // namespace kvasir::ctl
