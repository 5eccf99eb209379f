// kvasir-conformance: does an engine do right by the daemon's memory?
// Exit codes: 0 nothing failed, 1 something did, 2 wrong usage.
#include <signal.h>

#include <filesystem>
#include <iostream>
#include <string>

#include "client/conformance/program.h"

#include <CLI/CLI.hpp>

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);  // an engine that is gone is an answer
  kvasir::conformance::ProgramOptions options;
  auto& settings = options.settings;
  std::error_code error;
  settings.daemon =
      (std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / "kvasird").string();
  bool list = false;
  int64_t deadline_ms = settings.deadline.count(), patience_ms = settings.patience.count();
  CLI::App app{"Checks an engine against a kvasird of its own: docs/engine_guide.md",
               "kvasir-conformance"};
  auto* engine = app.add_option("--engine", settings.engine,
                                "Command that speaks the guide's lines on its standard input and "
                                "output; run by the shell, once and again");
  app.add_option("--only", options.only, "Run this check alone; may be given again")
      ->allow_extra_args(false);
  app.add_flag("--list", list, "List the checks")->excludes(engine);
  app.add_flag("--json", options.json, "One JSON object a check");
  app.add_option("--daemon", settings.daemon, "kvasird; default: the one beside this program");
  app.add_option("--tolerance", settings.tolerance,
                 "Of logits that should agree, of the largest one's size")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--deadline-ms", deadline_ms, "That the engine gives its calls")
      ->check(CLI::Range(100, 60'000))
      ->capture_default_str();
  app.add_option("--patience-ms", patience_ms, "To wait for an answer; more than the deadline")
      ->check(CLI::Range(100, 3'600'000))
      ->capture_default_str();
  app.add_option("--pool-bytes", settings.pool_bytes, "Memory of the daemon, at most")
      ->transform(CLI::AsSizeValue(false))
      ->default_str("1GiB");
  app.add_option("--device", settings.device,
                 "Rows lie in a pool of this device (host, cuda:0, GPU-UUID), which the engine "
                 "finds as KVASIR_POOL and KVASIR_DEVICE; default: in host memory");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& wrong) {
    return app.exit(wrong) == 0 ? 0 : 2;
  }
  settings.deadline = kvasir::conformance::Milliseconds(deadline_ms);
  settings.patience = kvasir::conformance::Milliseconds(patience_ms);
  if (list) {
    kvasir::conformance::ListChecks(std::cout);
    return 0;
  }
  if (settings.engine.empty()) {
    std::cerr << "kvasir-conformance: --engine is required\n";
    return 2;
  }
  return kvasir::conformance::RunProgram(options, std::cout, std::cerr);
}
