// Blocks with bytes that a test can make again, and one-block forms of a tier's calls.
#ifndef KVASIR_TESTS_TIER_TIER_BLOCKS_H_
#define KVASIR_TESTS_TIER_TIER_BLOCKS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "allocator/tier/tier.h"
#include "base/bytes.h"

#include <stdlib.h>

namespace kvasir::testing {

inline constexpr uint64_t kFingerprint = 0x5eed'0123'4567'89ab;

inline uint64_t Mix(uint64_t value) {
  value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
  value = (value ^ value >> 27) * 0x94d049bb133111eb;
  return value ^ value >> 31;
}

// All 40 bytes follow from the number.
inline TierKey KeyOf(uint64_t number) {
  TierKey key;
  for (size_t i = 0; i < kTierKeyBytes; i += 8) {
    const uint64_t word = Mix(number * 31 + i + 1);
    std::memcpy(key.bytes.data() + i, &word, 8);
  }
  return key;
}

// Bytes that follow from number and length: no two blocks look alike at any page.
inline std::vector<std::byte> BytesFor(uint64_t number, size_t bytes) {
  std::vector<std::byte> payload(bytes);
  for (size_t at = 0; at < bytes; at += 8) {
    const uint64_t word = Mix(number << 32 ^ at ^ bytes << 8);
    std::memcpy(payload.data() + at, &word, std::min<size_t>(8, bytes - at));
  }
  return payload;
}

// Memory at a page, as an engine's groups have.
class PageMemory {
 public:
  explicit PageMemory(size_t bytes)
      : data_(static_cast<std::byte*>(::aligned_alloc(kPageBytes, RoundUp(bytes, kPageBytes)))),
        bytes_(bytes) {}
  PageMemory(const PageMemory&) = delete;
  PageMemory& operator=(const PageMemory&) = delete;
  ~PageMemory() { ::free(data_); }
  std::span<std::byte> span() const { return {data_, bytes_}; }

 private:
  std::byte* data_;
  size_t bytes_;
};

inline absl::Status WriteOne(Tier& tier, const TierKey& key, std::span<const std::byte> payload) {
  const WriteItem item = {key, std::span(&payload, 1)};
  absl::Status status;
  tier.Write(std::span(&item, 1), std::span(&status, 1));
  return status;
}

// Writes the block of `number`.
inline absl::Status WriteBlock(Tier& tier, uint64_t number, size_t bytes) {
  return WriteOne(tier, KeyOf(number), BytesFor(number, bytes));
}

struct ReadBack {
  ReadOutcome outcome = ReadOutcome::kAbsent;
  std::vector<std::byte> bytes;
};

inline ReadBack ReadOne(Tier& tier, const TierKey& key, size_t bytes) {
  ReadBack back;
  back.bytes.resize(bytes);
  const ReadItem item = {key, back.bytes};
  tier.Read(std::span(&item, 1), std::span(&back.outcome, 1));
  return back;
}

// What a read of the block of `number` comes to; "wrong bytes" is what must never happen.
inline std::string OutcomeOf(Tier& tier, uint64_t number, size_t bytes) {
  const ReadBack back = ReadOne(tier, KeyOf(number), bytes);
  if (back.outcome == ReadOutcome::kHit && back.bytes != BytesFor(number, bytes)) {
    return "wrong bytes";
  }
  return std::string(NameOf(back.outcome));
}

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_TIER_TIER_BLOCKS_H_
