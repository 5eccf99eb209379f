// What bench_peers compares: stores that hold K and V of one prompt, each behind the same calls.
//
// All hold the same bytes, so that every fetch must give the same sum of all words: a fetch is over
// when each byte of it was read. Not thread-safe.
#ifndef KVASIR_BENCH_PEER_H_
#define KVASIR_BENCH_PEER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/bytes.h"

namespace kvasir::bench {

// A prompt of 4,096 tokens of Llama-3-8B in f16: blocks of 16 tokens, each [layer][K|V][token].
inline constexpr uint64_t kPromptTokens = 4096, kBlockTokens = 16, kLayers = 32;
inline constexpr uint64_t kBlocks = kPromptTokens / kBlockTokens;
inline constexpr uint64_t kRowBytes = 8 * 128 * 2;                 // K of a token in a layer
inline constexpr uint64_t kPieceBytes = kBlockTokens * kRowBytes;  // K of a block in a layer
inline constexpr uint64_t kSliceBytes = 2 * kPieceBytes;           // K and V of a block in a layer
inline constexpr uint64_t kBlockBytes = kLayers * kSliceBytes;
inline constexpr uint64_t kPrefixBytes = kBlocks * kBlockBytes;
inline constexpr uint64_t kLayerBytes = kBlocks * kSliceBytes;
static_assert(kPrefixBytes == 512 * kMiB && kLayerBytes == 16 * kMiB);
// Blocks that are found one by one: of 16 tokens of a model with four such layers.
inline constexpr uint64_t kSmallLayers = 4, kSmallBlocks = 192;
inline constexpr uint64_t kSmallBytes = kSmallLayers * kSliceBytes;
static_assert(kSmallBytes == 256 * kKiB);

// What a round asks for: another layer in each, so that it does not lie in a cache; and some
// blocks, one by one.
inline constexpr uint32_t kSmallCalls = 48;
constexpr uint64_t LayerOf(uint32_t round) { return (round * 7 + 3) % kLayers; }
constexpr uint64_t SmallOf(uint32_t round, uint32_t call) {
  return (round * kSmallCalls + call * 29) % kSmallBlocks;
}

// The bytes that all of them hold.
struct PeerData {
  const std::byte* prefix = nullptr;  // kPrefixBytes
  const std::byte* small = nullptr;   // kSmallBlocks * kSmallBytes
  bool huge_pages = false;            // Kvasir's pool, if the host has them
};

class Peer {
 public:
  virtual ~Peer() = default;

  // The sum of all words of what was read; kNoSum where nothing is read, but copied.
  static constexpr uint64_t kNoSum = ~uint64_t{0};
  virtual absl::StatusOr<uint64_t> FetchPrefix() = 0;
  virtual absl::StatusOr<uint64_t> FetchLayer(uint64_t layer) = 0;
  virtual absl::StatusOr<uint64_t> FetchSmall(uint64_t block) = 0;
  // Whether a small block is there. Errors: kNotFound, and kUnimplemented where there is nothing to
  // ask.
  virtual absl::Status Look(uint64_t block) = 0;
  // Stores the prefix once more, in place of the one stored last. `rows_in_place`: an engine has
  // written its rows where the store wants them, if that is possible, by PrepareStore().
  virtual absl::Status PrepareStore() { return absl::OkStatus(); }
  virtual absl::Status Store(bool rows_in_place) = 0;
  // Not timed: puts away what the last call has left.
  virtual absl::Status Between() { return absl::OkStatus(); }

  // Of the last FetchPrefix(): until the first byte could be read, where that is a step of its own.
  virtual double open_ms() const { return 0; }

  // For Join() in another process; empty: it cannot be joined.
  virtual std::string address() const { return {}; }
};

// The limit: reading memory of this process, ordinary pages, one stream. No errors.
absl::StatusOr<std::unique_ptr<Peer>> StartReadLimit(const PeerData& data);
// memcpy within this process, both sides touched. No errors.
absl::StatusOr<std::unique_ptr<Peer>> StartMemcpy(const PeerData& data);

// Each starts what it needs, and fills it. Errors: kNotFound for a program that is not installed,
// kUnavailable for one that does not start.
absl::StatusOr<std::unique_ptr<Peer>> StartKvasir(const PeerData& data);
absl::StatusOr<std::unique_ptr<Peer>> StartRedis(const PeerData& data);
absl::StatusOr<std::unique_ptr<Peer>> StartMemcached(const PeerData& data);
absl::StatusOr<std::unique_ptr<Peer>> StartBoost(const PeerData& data);

// What a new process does first: connects to what another one has started and filled.
absl::StatusOr<std::unique_ptr<Peer>> JoinKvasir(const std::string& address);
absl::StatusOr<std::unique_ptr<Peer>> JoinRedis(const std::string& address);
// The same server without hiredis.
absl::StatusOr<std::unique_ptr<Peer>> JoinRedisInPlace(const std::string& address,
                                                       const PeerData& data);
absl::StatusOr<std::unique_ptr<Peer>> JoinMemcached(const std::string& address);
absl::StatusOr<std::unique_ptr<Peer>> JoinBoost(const std::string& address);

// Ordinary memory of whole pages, all of it touched; that of kernel_data.h asks for huge ones.
struct UnmapMemory {
  size_t bytes = 0;
  void operator()(std::byte* memory) const;
};
using PlainMemory = std::unique_ptr<std::byte[], UnmapMemory>;
PlainMemory MakePlainMemory(size_t bytes);

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_PEER_H_
