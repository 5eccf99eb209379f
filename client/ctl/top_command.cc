#include "client/ctl/top_command.h"

#include <string>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir::ctl {

absl::Status RunTopOn(TopScreen& screen, const CommandLine& line, const StatsFunction& stats) {
  KVASIR_ASSIGN_OR_RETURN(v1::GetStatsResponse now, stats());
  v1::GetStatsResponse before = now;
  TopView view;
  view.sort = line.sort;
  view.keys = true;
  Instant next = SystemClock().Now() + line.interval;
  for (;;) {
    view.columns = screen.columns();
    view.lines = screen.lines();
    screen.Draw(RenderTop(before, now, view));
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(next - SystemClock().Now());
    switch (screen.Wait(view.paused ? line.interval : left)) {
      case TopScreen::Key::kQuit:
        return absl::OkStatus();
      case TopScreen::Key::kSort:
        view.sort = NextSort(view.sort);
        continue;
      case TopScreen::Key::kPause:
        view.paused = !view.paused;
        continue;
      case TopScreen::Key::kResized:
        continue;
      case TopScreen::Key::kNone:
        break;
    }
    if (view.paused) continue;
    absl::StatusOr<v1::GetStatsResponse> answer = stats();
    next = SystemClock().Now() + line.interval;
    view.trouble = answer.ok() ? "" : MessageOf(answer.status());
    if (answer.ok()) before = std::exchange(now, *std::move(answer));
  }
}

absl::Status RunTop(const CommandLine& line, const StatsFunction& stats, std::ostream& out) {
  if (line.live) {
    // Before the screen changes: an error that is there from the beginning is a plain message.
    KVASIR_ASSIGN_OR_RETURN(const v1::GetStatsResponse first, stats());
    KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TopScreen> screen, OpenTopScreen());
    return RunTopOn(*screen, line, stats);
  }
  TopView view;
  view.sort = line.sort;
  KVASIR_ASSIGN_OR_RETURN(v1::GetStatsResponse before, stats());
  for (uint64_t shown = 0; line.count == 0 || shown < line.count; ++shown) {
    std::this_thread::sleep_for(line.interval);
    KVASIR_ASSIGN_OR_RETURN(v1::GetStatsResponse now, stats());
    if (line.json) {
      out << RenderTopJson(before, now);
    } else {
      if (shown > 0) out << "\n";
      for (const std::string& text : RenderTop(before, now, view)) out << text << "\n";
    }
    if (!(out << std::flush).good()) return Unavailable("cannot write the result");
    before = std::move(now);
  }
  return absl::OkStatus();
}

}  // namespace kvasir::ctl
