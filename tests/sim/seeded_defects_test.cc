// The simulator finds what it is there to find: the daemon's sources with defects in them, one on
// at a time (defects.json). Each runs in a process of its own, since some end it.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "base/log.h"
#include "tests/sim/seeded_defect.h"
#include "tests/sim/world.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace kvasir::sim {
namespace {

constexpr uint64_t kSteps = 30'000;  // of a world
constexpr uint64_t kSeeds = 4;       // a defect that none of them finds is not found

struct Found {
  bool found = false;
  std::string what;
};

// Whether the world of this seed shows the defect.
Found RunWith(int defect, uint64_t seed) {
  int ends[2];
  if (::pipe(ends) != 0) return {};
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[0]);
    ::close(STDERR_FILENO);  // where a check of the core's own says why it ends the process
    (void)::alarm(100);      // one that would hang is none that was found
    seeded_defect = defect;
    World world(seed);
    const auto tell = [&](const std::string& what) {
      const std::string text =
          fmt::format("step {} ({}): {}", world.steps(), world.operation(), what);
      (void)!::write(ends[1], text.data(), text.size());
    };
    static const World* running = nullptr;
    static int end = -1;
    running = &world;
    end = ends[1];
    for (const int number : {SIGABRT, SIGSEGV, SIGBUS}) {
      ::signal(number, [](int signal_number) {
        const std::string text = fmt::format("step {} ({}): it ends itself, signal {}",
                                             running->steps(), running->operation(), signal_number);
        (void)!::write(end, text.data(), text.size());
        std::_Exit(1);
      });
    }
    while (world.steps() < kSteps && !world.findings().any()) world.Step();
    if (!world.findings().any()) world.Finish();
    if (world.findings().any()) tell(world.findings().first());
    std::_Exit(world.findings().any() ? 1 : 0);
  }
  ::close(ends[1]);
  Found found;
  char bytes[4096];
  for (ssize_t got = 0; (got = ::read(ends[0], bytes, sizeof(bytes))) > 0;) {
    found.what.append(bytes, static_cast<size_t>(got));
  }
  ::close(ends[0]);
  int status = 0;
  if (::waitpid(child, &status, 0) != child) return found;
  const bool hangs = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
  found.found = !hangs && !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  if (found.found && found.what.empty()) found.what = fmt::format("status {}", status);
  return found;
}

TEST(SeededDefectsTest, EachIsFoundAndWithoutThemNothingIs) {
  spdlog::set_level(spdlog::level::off);
  std::ifstream file("tests/sim/defects.json");
  const nlohmann::json defects = nlohmann::json::parse(file);
  ASSERT_GE(defects.size(), 10U);
  for (const nlohmann::json& defect : defects) {
    const int number = defect.at("number").get<int>();
    Found found;
    uint64_t seed = 1;
    for (; seed <= kSeeds; ++seed) {
      found = RunWith(number, seed);
      if (found.found) break;
    }
    EXPECT_TRUE(found.found) << number << ": " << defect.at("says");
    fmt::print("{:2} {}: {}\n   seed {} {}\n", number, defect.at("kind").get<std::string>(),
               defect.at("says").get<std::string>(), seed, found.what);
  }
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Found found = RunWith(0, seed);
    EXPECT_FALSE(found.found) << "seed " << seed << " " << found.what;
  }
}

}  // namespace
}  // namespace kvasir::sim
