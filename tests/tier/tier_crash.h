// What tier_writer and the test that kills it agree on.
#ifndef KVASIR_TESTS_TIER_TIER_CRASH_H_
#define KVASIR_TESTS_TIER_TIER_CRASH_H_

#include <cstdint>
#include <string>

#include "allocator/tier/disk_tier.h"
#include "base/bytes.h"
#include "tests/tier/tier_blocks.h"

namespace kvasir::testing {

inline DiskTierOptions CrashDisk(const std::string& folder) {
  return {.path = folder,
          .capacity_bytes = 32 * kMiB,
          .fingerprint = kFingerprint,
          .segment_bytes = 4 * kMiB,
          .unit_bytes = 4 * kKiB};
}

inline size_t CrashBlockBytes(uint64_t number) { return 1 + Mix(number) % 120'000; }

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_TIER_TIER_CRASH_H_
