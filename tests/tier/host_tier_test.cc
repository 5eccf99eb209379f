#include "allocator/tier/host_tier.h"

#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "tests/tier/tier_blocks.h"

namespace kvasir::testing {
namespace {

constexpr size_t kBytes = 100'000;

HostTierOptions SmallHost(uint64_t capacity_bytes) {
  return {.capacity_bytes = capacity_bytes,
          .fingerprint = kFingerprint,
          .chunk_bytes = 2 * kMiB,
          .unit_bytes = 4 * kKiB};
}

std::unique_ptr<HostTier> MakeTier(uint64_t capacity_bytes) {
  auto tier = HostTier::Create(SmallHost(capacity_bytes));
  EXPECT_TRUE(tier.ok()) << tier.status();
  return *std::move(tier);
}

TEST(HostTierTest, RefusesOptionsOutOfBoundsByName) {
  const auto refused = [](HostTierOptions options) {
    return std::string(HostTier::Create(options).status().message());
  };
  HostTierOptions options = SmallHost(4 * kMiB);
  options.unit_bytes = 5000;
  EXPECT_NE(refused(options).find("unit_bytes=5000"), std::string::npos);
  options = SmallHost(4 * kMiB);
  options.chunk_bytes = kMiB;
  EXPECT_NE(refused(options).find("chunk_bytes=1048576"), std::string::npos);
  for (const uint64_t capacity : {uint64_t{0}, 3 * kMiB, HostTier::kCapacityBytesMax + 2 * kMiB}) {
    EXPECT_NE(refused(SmallHost(capacity)).find("capacity_bytes="), std::string::npos);
  }
}

TEST(HostTierTest, FindsDamageInMemoryAndForgetsTheBlock) {
  auto tier = MakeTier(2 * kMiB);
  ASSERT_EQ(WriteBlock(*tier, 1, kBytes), absl::OkStatus());
  const std::span<std::byte> memory = tier->MemoryForTest()[0];
  memory[kBlockHeaderBytes + 70'000] ^= std::byte{1};
  EXPECT_EQ(OutcomeOf(*tier, 1, kBytes), "corrupt");
  EXPECT_EQ(OutcomeOf(*tier, 1, kBytes), "absent");
  EXPECT_EQ(tier->Stats().held_bytes, 0U);
  ASSERT_EQ(WriteBlock(*tier, 1, kBytes), absl::OkStatus());
  EXPECT_EQ(OutcomeOf(*tier, 1, kBytes), "hit");
}

TEST(HostTierTest, AnotherBlocksBytesAreAForeignKey) {
  auto tier = MakeTier(2 * kMiB);
  ASSERT_EQ(WriteBlock(*tier, 1, kBytes), absl::OkStatus());
  ASSERT_EQ(WriteBlock(*tier, 2, kBytes), absl::OkStatus());
  const std::span<std::byte> memory = tier->MemoryForTest()[0];
  const size_t stored = RoundUp(kBlockHeaderBytes + kBytes, 4 * kKiB);
  std::swap_ranges(memory.begin(), memory.begin() + static_cast<std::ptrdiff_t>(stored),
                   memory.begin() + static_cast<std::ptrdiff_t>(stored));
  EXPECT_EQ(OutcomeOf(*tier, 1, kBytes), "foreign_key");
  EXPECT_EQ(OutcomeOf(*tier, 2, kBytes), "foreign_key");
}

TEST(HostTierTest, GrowsAndShrinksWithItsBlocks) {
  auto tier = MakeTier(2 * kMiB);
  uint64_t count = 0;
  while (WriteBlock(*tier, count, kBytes).ok()) ++count;
  ASSERT_EQ(count, 20U);
  ASSERT_EQ(tier->Resize(6 * kMiB), absl::OkStatus());
  while (WriteBlock(*tier, count, kBytes).ok()) ++count;
  ASSERT_EQ(count, 61U);
  EXPECT_TRUE(absl::IsResourceExhausted(tier->Resize(4 * kMiB)));
  EXPECT_EQ(tier->Stats().capacity_bytes, 6 * kMiB);
  // Every third stays, so that blocks of the memory that goes move into gaps shorter than they are.
  std::vector<TierKey> erased;
  for (uint64_t i = 0; i < count; ++i) {
    if (i % 3 != 0) erased.push_back(KeyOf(i));
  }
  ASSERT_EQ(tier->Erase(erased), absl::OkStatus());
  ASSERT_EQ(tier->Resize(4 * kMiB), absl::OkStatus());
  EXPECT_EQ(tier->Stats().capacity_bytes, 4 * kMiB);
  EXPECT_EQ(tier->MemoryForTest().size(), 2U);
  for (uint64_t i = 0; i < count; i += 3) EXPECT_EQ(OutcomeOf(*tier, i, kBytes), "hit") << i;
  while (WriteBlock(*tier, count, kBytes).ok()) ++count;
  EXPECT_EQ(tier->Stats().blocks, 40U);
}

TEST(HostTierTest, ResizesWhileThreadsUseIt) {
  auto tier = MakeTier(8 * kMiB);
  std::vector<std::thread> threads;
  std::vector<std::string> wrong(3);
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&tier, &wrong, t] {
      for (uint64_t step = 0; step < 300; ++step) {
        const uint64_t number = step * 7 % 10 + t * 5;
        if (!WriteBlock(*tier, number, kBytes).ok()) wrong[t] = "a write failed";
        const std::string outcome = OutcomeOf(*tier, number, kBytes);
        if (outcome != "hit" && outcome != "absent") wrong[t] = outcome;
        const TierKey key = KeyOf(number);
        if (step % 3 == 0) (void)tier->Erase(std::span(&key, 1));
      }
    });
  }
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(tier->Resize((i % 2 == 0 ? 4 : 10) * kMiB), absl::OkStatus());
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<std::string>(3));
}

}  // namespace
}  // namespace kvasir::testing
