// kvasirctl top: rates between two reports, the picture in every size, the keys, and that the
// terminal comes back whatever ends it.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "client/ctl/terminal_text.h"
#include "client/ctl/top.h"
#include "client/ctl/top_command.h"

#include <nlohmann/json.hpp>
#include <poll.h>
#include <pty.h>

namespace kvasir::ctl {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

v1::TenantStats* Add(v1::GetStatsResponse* stats, const std::string& name, uint64_t charged) {
  v1::TenantStats* const tenant = stats->add_tenants();
  tenant->set_tenant(name);
  tenant->mutable_host()->set_charged_bytes(charged);
  tenant->mutable_host()->set_held_bytes(charged / 2);
  tenant->mutable_host()->set_limit_bytes(kGiB);
  return tenant;
}

v1::GetStatsResponse Before() {
  v1::GetStatsResponse stats;
  stats.set_boot_epoch(7);
  stats.set_version("0.1.0");
  stats.set_uptime_ms(10'000);
  stats.set_pool_bytes(4 * kGiB);
  stats.set_pool_free_bytes(3 * kGiB);
  stats.set_pool_ready_bytes(kGiB);
  stats.set_charged_bytes(kGiB);
  stats.set_held_bytes(kGiB / 2);
  v1::TenantStats* const a = Add(&stats, "a", 256 * kMiB);
  a->set_prefix_lookups(10);
  a->set_prefix_rows(1000);
  a->set_prefix_rows_hit(100);
  Add(&stats, "b", 768 * kMiB);
  return stats;
}

v1::GetStatsResponse After() {
  v1::GetStatsResponse stats = Before();
  stats.set_uptime_ms(12'000);
  v1::TenantStats* const a = stats.mutable_tenants(0);
  a->set_sessions(1);
  a->set_sequences(2);
  a->set_rows_seen(4096);
  a->set_rows_kept(512);
  a->set_prefix_lookups(13);
  a->set_prefix_rows(1400);
  a->set_prefix_rows_hit(400);
  a->set_compactions(8);
  a->set_rejected_calls(1);
  a->set_violations(5);
  return stats;
}

TEST(KvasirctlTopTest, ThePicture) {
  EXPECT_THAT(
      RenderTop(Before(), After(), {}),
      ElementsAre("kvasird 0.1.0  up 12 s  interval 2.0 s",
                  "pool 4.00 GiB  charged 1.00 GiB  held 512.0 MiB  free 3.00 GiB  ready 1.00 GiB",
                  "",
                  "TENANT  OF LIMIT             CHARGED       HELD     LIMIT  SESSIONS  SEQUENCES"
                  "  SEEN  KEPT    HIT  LOOKUPS/S  COMPACTIONS/S  REJECTED/S  VIOLATIONS",
                  "b       [########..]  75%  768.0 MiB  384.0 MiB  1.00 GiB         0          0"
                  "     0     0      -        0.0            0.0         0.0           0",
                  "a       [###.......]  25%  256.0 MiB  128.0 MiB  1.00 GiB         1          2"
                  "  4096   512  75.0%        1.5            4.0         0.5           5"));
}

TEST(KvasirctlTopTest, WhatCannotBeComparedHasNoRates) {
  const auto rate_of = [](const v1::GetStatsResponse& before, const v1::GetStatsResponse& now) {
    return Between(before, now).rates.at(0).has_value();
  };
  EXPECT_TRUE(rate_of(Before(), After()));
  EXPECT_FALSE(rate_of(Before(), Before())) << "no time passed";
  EXPECT_FALSE(rate_of(After(), Before())) << "time went back";
  v1::GetStatsResponse other = After();
  other.set_boot_epoch(8);
  EXPECT_FALSE(rate_of(Before(), other)) << "another daemon";
  other = After();
  other.mutable_tenants(0)->set_tenant("new");
  EXPECT_FALSE(rate_of(Before(), other));
  other = After();
  other.mutable_tenants(0)->set_prefix_lookups(9);
  EXPECT_FALSE(rate_of(Before(), other)) << "a counter fell";
}

TEST(KvasirctlTopTest, SortsByEveryColumn) {
  const auto first = [](TopSort sort) {
    TopView view;
    view.sort = sort;
    return RenderTop(Before(), After(), view).at(4).substr(0, 1);
  };
  std::string order;
  TopSort sort = TopSort::kTenant;
  do {
    EXPECT_EQ(TopSortOf(NameOf(sort)), sort);
    order += first(sort);
    sort = NextSort(sort);
  } while (sort != TopSort::kTenant);
  EXPECT_EQ(order, "abbbaaaa");
  EXPECT_EQ(TopSortNames().size(), order.size());
  EXPECT_EQ(TopSortOf("colour"), std::nullopt);
}

TEST(KvasirctlTopTest, FitsEveryTerminal) {
  v1::GetStatsResponse now = After();
  for (int i = 0; i < 30; ++i) Add(&now, "a-tenant-with-a-long-name-" + std::to_string(i), kMiB);
  for (size_t columns = 1; columns < 200; ++columns) {
    for (const size_t lines : {1U, 2U, 3U, 4U, 5U, 8U, 24U, 100U}) {
      TopView view;
      view.columns = columns;
      view.lines = lines;
      view.keys = true;
      const std::vector<std::string> text = RenderTop(Before(), now, view);
      EXPECT_LE(text.size(), lines);
      for (const std::string& line : text) EXPECT_LE(CountColumns(line), columns) << line;
    }
  }
  TopView view;
  view.columns = 20;
  view.lines = 8;
  view.keys = true;
  EXPECT_THAT(RenderTop(Before(), now, view),
              ElementsAre("kvasird 0.1.0  up 12", "pool 4.00 GiB  charg", "", "TENANT      CHARGED",
                          "b         768.0 MiB", "a         256.0 MiB", "... 30 tenants more",
                          "q quit  s sort: shar"));
}

TEST(KvasirctlTopTest, HostileTextIsPrintable) {
  v1::GetStatsResponse now = After();
  now.set_version("\x1b[2J");
  now.mutable_tenants(0)->set_tenant("\x1b]0;x\x07\n\xff");
  now.mutable_tenants(1)->mutable_host()->set_charged_bytes(UINT64_MAX);
  now.mutable_tenants(1)->mutable_host()->set_limit_bytes(1);
  TopView view;
  view.keys = true;
  view.trouble = "no\x1b[31m daemon";
  for (const std::string& line : RenderTop(Before(), now, view)) {
    EXPECT_THAT(line, AllOf(Not(HasSubstr("\x1b")), Not(HasSubstr("\n")), Not(HasSubstr("\xff"))));
  }
  EXPECT_THAT(RenderTop(Before(), v1::GetStatsResponse(), view).at(2), "no tenants");
}

TEST(KvasirctlTopTest, JsonHasTheReportAndItsRates) {
  const std::string line = RenderTopJson(Before(), After());
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
  const json object = json::parse(line);
  EXPECT_EQ(object["interval_ms"], 2000);
  EXPECT_EQ(object["stats"]["pool_bytes"], std::to_string(4 * kGiB));
  EXPECT_EQ(object["rates"][0], json::parse(R"({"tenant": "a", "prefix_hit_ratio": 0.75,
      "lookups_per_s": 1.5, "compactions_per_s": 4.0, "rejected_per_s": 0.5})"));
  EXPECT_TRUE(object["rates"][1]["prefix_hit_ratio"].is_null());
  EXPECT_EQ(object["rates"][1]["lookups_per_s"], 0.0);
}

CommandLine TopLine(std::vector<std::string> arguments, bool live = true) {
  arguments.insert(arguments.begin(), "top");
  return std::get<CommandLine>(
      ParseCommandLine(std::move(arguments), {.socket = "", .terminal = false, .live = live}));
}

TEST(KvasirctlTopTest, IsLiveOnATerminalOnly) {
  EXPECT_TRUE(TopLine({}).live);
  EXPECT_FALSE(TopLine({}, false).live);
  EXPECT_EQ(TopLine({}, false).count, 1u);
  EXPECT_FALSE(TopLine({"--once"}).live);
  EXPECT_FALSE(TopLine({"--count=3"}).live);
  EXPECT_FALSE(TopLine({"--output=json"}).live);
  EXPECT_EQ(TopLine({"--output=json"}).count, 0u);
  EXPECT_EQ(TopLine({"--output=json", "--once"}).count, 1u);
  EXPECT_EQ(TopLine({"--interval=0.5"}).interval, std::chrono::milliseconds(500));
  EXPECT_EQ(TopLine({"--sort=held"}).sort, TopSort::kHeld);
  for (const char* wrong : {"--interval=0", "--sort=colour", "--count=-1"}) {
    EXPECT_TRUE(std::holds_alternative<EarlyEnd>(ParseCommandLine({"top", wrong}, {}))) << wrong;
  }
}

// Answers in turn, then an error.
StatsFunction Reports(std::deque<v1::GetStatsResponse> reports) {
  return [reports = std::move(reports)]() mutable -> absl::StatusOr<v1::GetStatsResponse> {
    if (reports.empty()) return Unavailable("nobody answers");
    v1::GetStatsResponse report = reports.front();
    reports.pop_front();
    return report;
  };
}

TEST(KvasirctlTopTest, WithoutATerminalWritesTablesAndObjects) {
  CommandLine line = TopLine({"--count=2"});
  line.interval = std::chrono::milliseconds(1);
  std::ostringstream tables;
  EXPECT_TRUE(RunTop(line, Reports({Before(), After(), After()}), tables).ok());
  EXPECT_THAT(tables.str(), AllOf(StartsWith("kvasird 0.1.0  up 12 s  interval 2.0 s\n"),
                                  HasSubstr("\n\nkvasird 0.1.0  up 12 s  interval 0.0 s\n")));
  line.json = true;
  line.count = 0;
  std::ostringstream objects;
  EXPECT_EQ(RunTop(line, Reports({Before(), After(), After()}), objects).code(),
            absl::StatusCode::kUnavailable);
  const std::string text = objects.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
}

class FakeScreen final : public TopScreen {
 public:
  explicit FakeScreen(std::deque<Key> keys) : keys_(std::move(keys)) {}
  size_t columns() const override { return 100; }
  size_t lines() const override { return 24; }
  void Draw(const std::vector<std::string>& text) override { last_lines.push_back(text.back()); }
  Key Wait(std::chrono::milliseconds) override {
    const Key key = keys_.empty() ? Key::kQuit : keys_.front();
    if (!keys_.empty()) keys_.pop_front();
    return key;
  }
  std::vector<std::string> last_lines;

 private:
  std::deque<Key> keys_;
};

TEST(KvasirctlTopTest, KeysAndAFailedCall) {
  using Key = TopScreen::Key;
  FakeScreen screen({Key::kSort, Key::kPause, Key::kNone, Key::kPause, Key::kNone, Key::kNone});
  EXPECT_TRUE(RunTopOn(screen, TopLine({}), Reports({Before(), After()})).ok());
  EXPECT_THAT(
      screen.last_lines,
      ElementsAre("q quit  s sort: share  p pause", "q quit  s sort: charged  p pause",
                  "q quit  s sort: charged  p pause: PAUSED",
                  "q quit  s sort: charged  p pause: PAUSED", "q quit  s sort: charged  p pause",
                  "q quit  s sort: charged  p pause", "q quit  nobody answers"));
}

// A process of ours whose terminal the test holds.
class Terminal {
 public:
  // REQUIRES: this process has no thread beside this one.
  explicit Terminal(const std::string& term) {
    winsize size{.ws_row = 24, .ws_col = 100, .ws_xpixel = 0, .ws_ypixel = 0};
    pid_ = ::forkpty(&fd_, nullptr, nullptr, &size);
    if (pid_ != 0) return;
    ::setenv("TERM", term.c_str(), 1);
    std::ostringstream none;
    v1::GetStatsResponse stats = Before();
    const absl::Status status = RunTop(
        TopLine({}), [&stats] { return stats; }, none);
    termios settings{};
    ::tcgetattr(STDOUT_FILENO, &settings);
    const bool echo = (settings.c_lflag & ECHO) != 0 && (settings.c_lflag & ICANON) != 0;
    ::_exit(!echo ? 3 : status.ok() ? 0 : 1);
  }
  ~Terminal() { ::close(fd_); }

  // What the process has written until `text` is there or it ends.
  std::string ReadUntil(const std::string& text) {
    std::string all;
    char buffer[4096];
    while (text.empty() || all.find(text) == std::string::npos) {
      const ssize_t got = ::read(fd_, buffer, sizeof buffer);
      if (got <= 0) break;
      all.append(buffer, static_cast<size_t>(got));
    }
    return all;
  }
  void Type(char key) { EXPECT_EQ(::write(fd_, &key, 1), 1); }
  void Send(int signal) { EXPECT_EQ(::kill(pid_, signal), 0); }
  int ExitCode() {
    int status = 0;
    EXPECT_EQ(::waitpid(pid_, &status, 0), pid_);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  int fd_ = -1;
  pid_t pid_ = -1;
};

constexpr char kLeavesAlternateScreen[] = "\x1b[?1049l";

TEST(KvasirctlTopScreenTest, AKeyOrASignalGivesTheTerminalBack) {
  for (const int signal : {0, SIGINT, SIGTERM, SIGHUP}) {
    Terminal terminal("xterm-256color");
    EXPECT_THAT(terminal.ReadUntil("p pause"), HasSubstr("768.0 MiB"));
    if (signal == 0) {
      terminal.Type('q');
    } else {
      terminal.Send(signal);
    }
    EXPECT_THAT(terminal.ReadUntil(""), HasSubstr(kLeavesAlternateScreen)) << signal;
    EXPECT_EQ(terminal.ExitCode(), 0) << signal;
  }
}

TEST(KvasirctlTopScreenTest, AnUnknownTerminalIsAnErrorAndNothingChanges) {
  Terminal terminal("no-such-terminal");
  EXPECT_EQ(terminal.ReadUntil(""), "");
  EXPECT_EQ(terminal.ExitCode(), 1);
}

}  // namespace
}  // namespace kvasir::ctl
