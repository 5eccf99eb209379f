// Who is compared in bench_peers, and a fetch by a process that has just started.
#ifndef KVASIR_BENCH_PEER_JOIN_H_
#define KVASIR_BENCH_PEER_JOIN_H_

#include <chrono>
#include <memory>
#include <string>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/clock.h"
#include "bench/peer.h"

#include <nlohmann/json.hpp>

namespace kvasir::bench {

inline double Milliseconds(Instant since) {
  return std::chrono::duration<double, std::milli>(SystemClock().Now() - since).count();
}

// Redis without hiredis: figures beside those of the row with it.
inline constexpr char kRedisInPlace[] = "redis_in_place";

struct PeerKind {
  const char* name;
  absl::StatusOr<std::unique_ptr<Peer>> (*start)(const PeerData& data);       // null: by another's
  absl::StatusOr<std::unique_ptr<Peer>> (*join)(const std::string& address);  // null: it cannot
};
inline constexpr PeerKind kPeerKinds[] = {
    {"kvasir", StartKvasir, JoinKvasir},
    {"read_limit", StartReadLimit, nullptr},
    {"memcpy", StartMemcpy, nullptr},
    {"redis", StartRedis, JoinRedis},
    {kRedisInPlace, nullptr, [](const std::string& at) { return JoinRedisInPlace(at, {}); }},
    {"memcached", StartMemcached, JoinMemcached},
    {"boost_shm", StartBoost, JoinBoost},
};

// Of the process that has just started: how long connecting and the fetch took, and of that what
// came before the first byte and what went into page tables, printed as one line of JSON. Errors:
// kInvalidArgument for an unknown name, the peer's.
absl::Status RunJoined(const std::string& name, const std::string& address);

// Has this program do so, and returns what it printed. Errors: kInternal.
absl::StatusOr<nlohmann::json> Joined(const std::string& name, const std::string& address);

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_PEER_JOIN_H_
