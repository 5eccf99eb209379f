// TableArena against a plain map of what is taken.
#include "daemon/core/table_arena.h"

#include <algorithm>
#include <map>
#include <random>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "proto/shm/layout.h"
#include "tests/core/fake_engine.h"

namespace kvasir::core {
namespace {

constexpr uint64_t kOffset = 8192, kBytes = 64 * kKiB;

TEST(TableArenaTest, NeighboursMerge) {
  TableArena arena(kOffset, 3 * 64);
  const uint64_t a = *arena.Allocate(64), b = *arena.Allocate(1), c = *arena.Allocate(0);
  EXPECT_EQ(arena.free_bytes(), 0U);
  EXPECT_EQ(arena.Allocate(1).status().code(), absl::StatusCode::kResourceExhausted);
  arena.Free(a, 64);
  arena.Free(c, 0);
  EXPECT_FALSE(arena.Allocate(128).ok());  // the free ranges do not touch
  arena.Free(b, 1);
  const absl::StatusOr<uint64_t> all = arena.Allocate(3 * 64);
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(*all, kOffset);
}

TEST(TableArenaTest, RandomUseAgreesWithAMap) {
  std::mt19937_64 random(testing::TestSeed(11));
  TableArena arena(kOffset, kBytes);
  std::map<uint64_t, uint64_t> taken;  // offset -> bytes asked for
  uint64_t used = 0, refused = 0;
  for (int step = 0; step < 20000; ++step) {
    if (random() % 2 == 0 && !taken.empty()) {
      auto at = taken.lower_bound(kOffset + random() % kBytes);
      if (at == taken.end()) at = taken.begin();
      arena.Free(at->first, at->second);
      used -= RoundUp(std::max<uint64_t>(at->second, 1), shm::kArenaUnit);
      taken.erase(at);
    } else {
      const uint64_t bytes = random() % 4000;
      const absl::StatusOr<uint64_t> offset = arena.Allocate(bytes);
      if (!offset.ok()) {
        ++refused;
        continue;
      }
      const uint64_t rounded = RoundUp(std::max<uint64_t>(bytes, 1), shm::kArenaUnit);
      ASSERT_EQ(*offset % shm::kArenaUnit, 0U);
      ASSERT_GE(*offset, kOffset);
      ASSERT_LE(*offset + rounded, kOffset + kBytes);
      const auto next = taken.lower_bound(*offset);
      ASSERT_TRUE(next == taken.end() || next->first >= *offset + rounded);
      ASSERT_TRUE(next == taken.begin() ||
                  std::prev(next)->first + std::prev(next)->second <= *offset);
      taken[*offset] = bytes;
      used += rounded;
    }
    ASSERT_EQ(arena.free_bytes(), kBytes - used);
  }
  EXPECT_GT(refused, 0U);
  for (const auto& [offset, bytes] : taken) arena.Free(offset, bytes);
  EXPECT_TRUE(arena.Allocate(kBytes).ok());  // one range again
}

}  // namespace
}  // namespace kvasir::core
