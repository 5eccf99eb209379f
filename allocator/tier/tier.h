// Tier: a place where the bytes of filled blocks can lie: host memory, local disk, a Redis server.
//
// Values are immutable: a key stands for its bytes for ever, so writing a key that is there does
// nothing and succeeds. A tier never evicts by itself: a block that does not fit is refused, and
// whoever holds the policy erases first. Every value carries a header with its key, the layout
// fingerprint and a checksum (block_header.h) that each read verifies, so that a tier can lose
// blocks but never hands out wrong bytes.
//
// Thread-safe; calls block, and the caller brings the threads. A batch gives depth: a tier works
// on many of its blocks at once.
#ifndef KVASIR_ALLOCATOR_TIER_TIER_H_
#define KVASIR_ALLOCATOR_TIER_TIER_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>

#include <absl/status/status.h>

#include "allocator/tier/tier_key.h"

namespace kvasir {

// Of one block; above it a write is refused. Redis takes at most 512 MB.
inline constexpr uint64_t kTierPayloadBytesMax = uint64_t{256} << 20;

struct WriteItem {
  TierKey key;
  std::span<const std::span<const std::byte>> parts;  // the payload, gathered in this order
};

struct ReadItem {
  TierKey key;
  std::span<std::byte> into;  // exactly as long as the payload that was written
};

// What a read came to: a hit, or a miss by its cause.
enum class ReadOutcome : uint8_t {
  kHit,
  kAbsent,         // the tier does not know the key
  kCut,            // the value ends early
  kCorrupt,        // no header, or another checksum
  kForeignFormat,  // written for another layout fingerprint
  kForeignKey,     // another block's value
  kOldVersion,     // another version of the header
  kWrongLength,    // `into` is not as long as the payload; the block stays
  kFailed,         // the place could not be asked
  kTimeout,        // it did not answer in time
  kCancelled,
};
inline constexpr size_t kReadOutcomes = 11;

// Lower-case name, as in metrics: "hit", "absent", "foreign_format", ...
std::string_view NameOf(ReadOutcome outcome);

// True for what says that the place is ill, not that one block is gone or damaged.
constexpr bool IsFailure(ReadOutcome outcome) {
  return outcome == ReadOutcome::kFailed || outcome == ReadOutcome::kTimeout;
}

// Since the tier was opened, but for the first three. What a tier cannot know is nothing, not zero.
struct TierStats {
  std::optional<uint64_t> capacity_bytes;
  std::optional<uint64_t> held_bytes;  // taken out of capacity: payload, headers and rounding
  std::optional<uint64_t> blocks;
  uint64_t writes = 0;                          // blocks written, without those that were there
  uint64_t write_errors = 0;                    // blocks refused or failed
  uint64_t erases = 0;                          // blocks that were there and are not any more
  std::array<uint64_t, kReadOutcomes> reads{};  // by ReadOutcome
  uint64_t written_bytes = 0;                   // of payload
  uint64_t read_bytes = 0;                      // of payload, hits alone
  uint64_t write_ns = 0;                        // spent in calls, added over threads
  uint64_t read_ns = 0;

  uint64_t reads_of(ReadOutcome outcome) const { return reads[static_cast<size_t>(outcome)]; }
};

// Stops a batch between blocks, from any thread. What was done stays done.
class CancelToken {
 public:
  // relaxed: nothing else is published by it.
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> cancelled_{false};
};

class Tier {
 public:
  virtual ~Tier() = default;

  // Writes each item, or finds it there. No part of a block is ever visible: a block can be read
  // when its result says OK, and not before. `results[i]` is of `items[i]`: kResourceExhausted (no
  // room), kInvalidArgument (no bytes or too many), kUnavailable, kDeadlineExceeded, kInternal (the
  // place fails), kCancelled. A key that comes twice is written once or twice and counts as one.
  // REQUIRES: as many results as items; the parts do not change before the call returns.
  virtual void Write(std::span<const WriteItem> items, std::span<absl::Status> results,
                     const CancelToken* cancel = nullptr) = 0;

  // Reads each item into the caller's memory. `into` holds the block when its result is kHit; else
  // it may hold anything. A damaged block is forgotten, so that it can be written anew.
  // REQUIRES: as many results as items; no two `into` overlap.
  virtual void Read(std::span<const ReadItem> items, std::span<ReadOutcome> results,
                    const CancelToken* cancel = nullptr) = 0;

  // Forgets the keys; one that is not there is no error. Reads that have begun end well. Errors:
  // of the place; what was forgotten is not said then.
  virtual absl::Status Erase(std::span<const TierKey> keys) = 0;

  // Calls `visit` for what is there: key and bytes of payload. For a restart: blocks that come or
  // go meanwhile may be left out or named. `visit` must not call the tier.
  virtual absl::Status ForEach(const std::function<void(const TierKey&, uint64_t)>& visit) = 0;

  // When it returns OK, every block whose write had succeeded before the call is as safe as the
  // place can make it: from a loss of power on disk; nothing more than before elsewhere.
  virtual absl::Status Flush() = 0;

  // Does not ask the place, so that it never waits.
  virtual TierStats Stats() const = 0;
};

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_TIER_H_
