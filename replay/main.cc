// kvasir-replay: a trace of requests through eviction policies; what a cache would have hit.
// Exit codes: 0 done, 1 failed (reason on standard error), 2 wrong command line.
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "base/error.h"
#include "replay/hints_program.h"
#include "replay/program.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

struct Hints {
  bool on = false;
  kvasir::replay::HintsOptions options;
};

void AddOptions(CLI::App& app, kvasir::replay::ProgramOptions& o, Hints& hints,
                std::string& output) {
  app.add_option("FILE", o.path, "Trace in Mooncake's format: one JSON object a line")->required();
  app.add_option("--capacity-blocks", o.capacities,
                 "Sizes: blocks, or percent of the trace's different blocks, e.g. 2000,5%")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str();
  app.add_option_function<std::string>(
         "--eviction",
         [&o](const std::string& text) { o.evictions = kvasir::replay::SplitEvictions(text); },
         "Policies, e.g. return-hazard:ghost_factor=4,lru; all without it")
      ->type_name("NAME,...");
  app.add_option("--block-tokens", o.block_tokens, "Tokens of a full block")
      ->check(CLI::Range(1U, 65536U))
      ->capture_default_str();
  app.add_option("--block-bytes", o.block_bytes,
                 "Bytes of a block: shows what is read for hits and written for new blocks")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 32));
  app.add_option("-o,--output", output, "text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  app.add_option("--plot", o.plot_path, "Draw block hits over capacity: a .svg or .png");
  CLI::Option* const suspend =
      app.add_flag("--hints", hints.on,
                   "Instead: how much sooner a decode server that is short of memory answers where "
                   "it is told how long responses will be");
  app.add_option("--load", hints.options.load, "With --hints: what the requests want of the memory")
      ->check(CLI::Range(0.1, 10.0))
      ->needs(suspend)
      ->capture_default_str();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("What eviction policies would have hit on a trace of requests.");
  kvasir::replay::ProgramOptions options;
  std::string output = "text";
  Hints hints;
  AddOptions(app, options, hints, output);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsage;
  }
  options.json = output == "json";
  hints.options.path = options.path;
  hints.options.json = options.json;
  const absl::Status status = hints.on ? kvasir::replay::RunHints(hints.options, std::cout)
                                       : kvasir::replay::Run(options, std::cout);
  if (status.ok()) return 0;
  fmt::print(stderr, "kvasir-replay: {}\n", kvasir::MessageOf(status));
  return status.code() == absl::StatusCode::kInvalidArgument ? kUsage : kFailed;
}
