// kvasir_sim: one seed, one simulated world. Prints what was reached, or what was wrong and the
// command that shows it again. Exit status 0: nothing was found, 1: something was, 2: usage.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

#include "base/log.h"
#include "tests/sim/seeded_defect.h"
#include "tests/sim/world.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace kvasir::sim {
namespace {

// For the handler of signals: a check of the core's own ends the process.
const World* running_world = nullptr;
std::string* running_command = nullptr;

void SayWhere(int signal_number) {
  std::fprintf(stderr, "signal %d: step=%llu operation=\"%s\"\nagain: %s\n", signal_number,
               static_cast<unsigned long long>(running_world->steps()), running_world->operation(),
               running_command->c_str());
  ::signal(signal_number, SIG_DFL);
  ::raise(signal_number);
}

struct Flags {
  uint64_t seed = 1, steps = 100'000, seeds = 1;
  uint64_t seconds = 0;
  bool random_seeds = false, verbose = false;
  int defect = 0;
};

bool RunOne(const Flags& flags, uint64_t seed, uint64_t* steps, uint64_t* digest) {
  std::string command =
      fmt::format("{} --seed={} --steps={}", program_invocation_name, seed, flags.steps);
  if (flags.defect != 0) command += fmt::format(" --defect={}", flags.defect);
  World world(seed);
  running_world = &world;
  running_command = &command;
  for (uint64_t step = 0; step < flags.steps && !world.findings().any(); ++step) world.Step();
  if (!world.findings().any()) world.Finish();
  *steps += world.steps();
  *digest = world.digest();
  if (flags.verbose) {
    for (const auto& [name, count] : world.counts()) fmt::print("  {}: {}\n", name, count);
  }
  if (!world.findings().any()) return true;
  fmt::print("FOUND: {}\n  seed={} step={} operation=\"{}\"\n{}again: {}\n",
             world.findings().first(), seed, world.steps(), world.operation(), world.Figures(),
             command);
  // What is left is in no state to be taken apart.
  std::fflush(stdout);
  std::_Exit(1);
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Simulates core, allocator and policies; everything follows from the seed.");
  app.add_option("--seed", flags.seed, "of the first world");
  app.add_option("--steps", flags.steps, "operations of a world")->check(CLI::PositiveNumber);
  app.add_option("--seeds", flags.seeds, "worlds, of consecutive seeds");
  app.add_option("--seconds", flags.seconds, "goes on with further seeds for so long");
  app.add_flag("--random-seeds", flags.random_seeds, "begins with a seed that nobody has chosen");
  app.add_flag("--verbose", flags.verbose, "prints how often what was reached");
#ifdef KVASIR_SEEDED_DEFECTS
  app.add_option("--defect", flags.defect, "which of the seeded defects is on; 0: none");
#endif
  CLI11_PARSE(app, argc, argv);
  seeded_defect = flags.defect;
  spdlog::set_level(spdlog::level::off);
  for (const int number : {SIGABRT, SIGSEGV, SIGBUS}) ::signal(number, SayWhere);
  if (flags.random_seeds) flags.seed = std::random_device()() * uint64_t{1'000'003};

  const auto began = std::chrono::steady_clock::now();
  const auto elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  };
  uint64_t steps = 0, digest = 0, worlds = 0;
  while (worlds < flags.seeds || elapsed() < static_cast<double>(flags.seconds)) {
    if (!RunOne(flags, flags.seed + worlds, &steps, &digest)) return 1;
    ++worlds;
  }
  const double seconds = elapsed();
  fmt::print("seeds={}..{} steps={} seconds={:.2f} steps_per_minute={:.0f} digest={:016x}\n",
             flags.seed, flags.seed + worlds - 1, steps, seconds,
             static_cast<double>(steps) / seconds * 60, digest);
  return 0;
}

}  // namespace
}  // namespace kvasir::sim

int main(int argc, char** argv) { return kvasir::sim::Main(argc, argv); }
