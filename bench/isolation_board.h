// What the processes of bench_isolation share: orders to the victim, and what it has measured.
#ifndef KVASIR_BENCH_ISOLATION_BOARD_H_
#define KVASIR_BENCH_ISOLATION_BOARD_H_

#include <array>
#include <atomic>
#include <cstdint>

namespace kvasir::bench {

inline constexpr uint32_t kVictimUid = 12001, kAttackerUid = 12002;

// What the victim calls.
enum class Kind : uint32_t {
  kRing,     // a look at a prefix, through the ring: the core answers at once
  kGrpc,     // the same by gRPC
  kBlock,    // a block of rows written and committed: a grant, and a table when one is due
  kOpen,     // a sequence opened and closed
  kConnect,  // a session connected and closed
  kCount,
};
inline constexpr size_t kKinds = static_cast<size_t>(Kind::kCount);

struct Sample {
  uint32_t window = 0;
  Kind kind = Kind::kRing;
  bool failed = false;
  float us = 0;
};

// Lies in memory that is shared by fork(). The window is the parent's, all else the victim's.
struct VictimBoard {
  std::atomic<uint32_t> window{0};   // samples carry its number; 0: nothing is noted
  std::atomic<uint32_t> current{0};  // the window in which the call under way has begun
  std::atomic<bool> ready{false}, ended{false};
  std::atomic<uint32_t> count{0};
  std::array<char, 256> error{};  // of the last call that failed
  std::array<Sample, 1 << 19> samples;
};

struct AttackBoard {
  std::atomic<bool> ready{false};  // its sessions are there
  std::atomic<uint64_t> done{0}, refused{0};
};

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_ISOLATION_BOARD_H_
