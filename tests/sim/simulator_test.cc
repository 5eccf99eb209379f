// Simulated worlds of fixed seeds. What fails is shown again by kvasir_sim, as CONTRIBUTING.md
// says.
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "base/log.h"
#include "tests/sim/world.h"

#include <fmt/format.h>

namespace kvasir::sim {
namespace {

constexpr uint64_t kSteps = 10'000;

class SimulatorTest : public ::testing::Test {
 protected:
  SimulatorTest() { spdlog::set_level(spdlog::level::off); }

  // Its digest.
  static uint64_t Run(uint64_t seed, uint64_t steps, std::map<std::string, uint64_t>* counts) {
    World world(seed);
    while (world.steps() < steps && !world.findings().any()) world.Step();
    if (!world.findings().any()) world.Finish();
    EXPECT_FALSE(world.findings().any())
        << world.findings().first() << "\n"
        << "step=" << world.steps() << " operation=\"" << world.operation() << "\"\n"
        << world.Figures() << "again: build/release/bin/kvasir_sim --seed=" << seed
        << " --steps=" << steps;
    for (const auto& [name, count] : world.counts()) (*counts)[name] += count;
    return world.digest();
  }
};

TEST_F(SimulatorTest, NothingIsFoundInWorldsOfFixedSeeds) {
  std::map<std::string, uint64_t> counts;
  for (uint64_t seed = 1; seed <= 8 && !HasFailure(); ++seed) (void)Run(seed, kSteps, &counts);
  for (const auto& [name, count] : counts) fmt::print("{}: {}\n", name, count);
  for (const char* const name : {"rows",
                                 "jobs",
                                 "jobs that score",
                                 "jobs put back",
                                 "opened",
                                 "open refused",
                                 "rows refused",
                                 "gone on from a prefix",
                                 "gone on from a snapshot",
                                 "snapshot gone",
                                 "saved",
                                 "published",
                                 "truncated",
                                 "closed",
                                 "opening given up",
                                 "leased",
                                 "leased rows opened",
                                 "stores",
                                 "stores that failed",
                                 "loads",
                                 "loads that failed",
                                 "erasures",
                                 "waits for a tier",
                                 "ended with a job out",
                                 "ended for a forged desk",
                                 "ended for a forged entry",
                                 "forged calls",
                                 "spoilt",
                                 "sequences taken back",
                                 "heard that memory is wanted back",
                                 "budgets set",
                                 "budgets refused",
                                 "resized",
                                 "cached rows given up",
                                 "refilled"}) {
    EXPECT_GT(counts[name], 0U) << name;  // else the worlds are smaller than they say
  }
}

TEST_F(SimulatorTest, EqualSeedsMakeEqualWorlds) {
  std::map<std::string, uint64_t> first, second, other;
  const uint64_t digest = Run(77, 3'000, &first);
  EXPECT_EQ(Run(77, 3'000, &second), digest);
  EXPECT_EQ(first, second);
  EXPECT_NE(Run(78, 3'000, &other), digest);
}

}  // namespace
}  // namespace kvasir::sim
