// Leases the beginning of a prompt for models that other sessions have, says so, and waits to be
// killed.
//
//   lease_owner CONTROL_SOCKET DATA_SOCKET PROMPT_ROWS FINGERPRINT...
// Fingerprints and, on standard output, the lease's id are hex. Exit code 3: the daemon refused it.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include <absl/strings/escaping.h>

#include "base/error.h"
#include "tests/integration/prefix_engines.h"

#include <fmt/format.h>

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  kvasir::ConnectOptions options;
  options.control_socket = argv[1];
  options.data_socket = argv[2];
  const absl::StatusOr<std::unique_ptr<kvasir::Session>> session =
      kvasir::Session::Connect(options);
  if (!session.ok()) return 3;
  kvasir::LeaseOptions asked;
  asked.prefix.tokens = kvasir::testing::PromptTokens(std::strtoull(argv[3], nullptr, 10));
  for (int i = 4; i < argc; ++i) asked.members.push_back({absl::HexStringToBytes(argv[i])});
  const absl::StatusOr<kvasir::PrefixLease> lease = (*session)->LeasePrefix(asked);
  if (!lease.ok()) {
    fmt::print(stderr, "lease_owner: {}\n", kvasir::MessageOf(lease.status()));
    return 3;
  }
  fmt::print("{}\n", absl::BytesToHexString(lease->id()));
  std::fflush(stdout);
  for (;;) ::pause();
}
