// An engine of another tenant, as a program: publishes a prompt, and goes on from it.
// Arguments: control socket, data socket, seed of the prompt, rows. Prints the rows that it found.
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "base/status_macros.h"
#include "tests/support/tier_daemon.h"

#include <fmt/format.h>

int main(int argc, char** argv) {
  using kvasir::MessageOf;
  using kvasir::testing::PromptOf;
  using kvasir::testing::TierEngine;
  if (argc != 5) return 2;
  kvasir::Config config;
  config.server.control_socket = argv[1];
  config.server.data_socket = argv[2];
  const auto prompt =
      PromptOf(std::strtoull(argv[3], nullptr, 10), std::strtoull(argv[4], nullptr, 10));
  const auto run = [&]() -> absl::StatusOr<uint64_t> {
    KVASIR_ASSIGN_OR_RETURN(TierEngine engine,
                            TierEngine::Connect(config, kvasir::testing::TinySpec(2)));
    KVASIR_RETURN_IF_ERROR(engine.Publish(prompt));
    return engine.AttachedRows(prompt);
  };
  const absl::StatusOr<uint64_t> rows = run();
  if (!rows.ok()) {
    fmt::print(stderr, "{}\n", MessageOf(rows.status()));
    return 1;
  }
  fmt::print("{}\n", *rows);
  return 0;
}
