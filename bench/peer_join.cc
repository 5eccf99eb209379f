#include "bench/peer_join.h"

#include <errno.h>
#include <unistd.h>

#include <cstdio>

#include "base/error.h"
#include "base/posix.h"
#include "base/status_macros.h"

#include <fmt/format.h>

namespace kvasir::bench {

absl::Status RunJoined(const std::string& name, const std::string& address) {
  for (const PeerKind& kind : kPeerKinds) {
    if (kind.name != name || kind.join == nullptr) continue;
    Instant start = SystemClock().Now();
    KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<Peer> peer, kind.join(address));
    const double connect = Milliseconds(start);
    start = SystemClock().Now();
    KVASIR_ASSIGN_OR_RETURN(const uint64_t sum, peer->FetchPrefix());
    const double first = Milliseconds(start), open = peer->open_ms();
    KVASIR_RETURN_IF_ERROR(peer->Between());
    start = SystemClock().Now();
    KVASIR_RETURN_IF_ERROR(peer->FetchPrefix().status());
    const double second = Milliseconds(start);
    // What the first read of all bytes took longer than the second.
    const double populate = first - open - (second - peer->open_ms());
    const nlohmann::json found = {{"connect", connect},
                                  {"open", open},
                                  {"first", first},
                                  {"sum", sum},
                                  {"populate", populate}};
    fmt::print("{}\n", found.dump());
    return absl::OkStatus();
  }
  return InvalidArgument("nothing of that name can be joined: name={}", name);
}

absl::StatusOr<nlohmann::json> Joined(const std::string& name, const std::string& address) {
  const std::string command =
      fmt::format("/proc/{}/exe --join {} --at '{}'", ::getpid(), name, address);
  FILE* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return ErrnoStatus(errno, "popen");
  char text[4096];
  const size_t bytes = std::fread(text, 1, sizeof(text), pipe);
  const int status = ::pclose(pipe);
  nlohmann::json found = nlohmann::json::parse(text, text + bytes, nullptr, false);
  if (status == 0 && !found.is_discarded()) return found;
  return Internal("a process that attaches has failed: name={} status={}", name, status);
}

}  // namespace kvasir::bench
