// HostPool: exact sizes, bytes that always add up, errors with the figures.
#include "allocator/host_pool.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <random>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

HostPoolOptions SmallOptions(uint64_t ready_bytes) {
  HostPoolOptions options;
  options.pool_bytes = 4 * kMiB;
  options.extent_bytes = 512 * kKiB;
  options.small_extent_bytes = 128 * kKiB;
  options.ready_bytes = ready_bytes;
  options.lock = Demand::kOff;
  return options;
}

std::unique_ptr<HostPool> Make(const HostPoolOptions& options) {
  absl::StatusOr<std::unique_ptr<HostPool>> pool = HostPool::Create(options, {});
  EXPECT_TRUE(pool.ok()) << MessageOf(pool.status());
  return *std::move(pool);
}

void ExpectConserved(const HostPool& pool) {
  const absl::Status conserved = pool.CheckConservation();
  EXPECT_TRUE(conserved.ok()) << MessageOf(conserved);
}

TEST(HostPoolTest, StockIsFilledWithProgress) {
  std::vector<uint64_t> done;
  const absl::StatusOr<std::unique_ptr<HostPool>> pool =
      HostPool::Create(SmallOptions(2 * kMiB), [&](uint64_t bytes, uint64_t wanted) {
        EXPECT_EQ(wanted, 2 * kMiB);
        done.push_back(bytes);
      });
  ASSERT_TRUE(pool.ok()) << MessageOf(pool.status());
  ASSERT_FALSE(done.empty());
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
  EXPECT_GE((*pool)->counts().ready_bytes, 2 * kMiB);
  EXPECT_EQ((*pool)->counts().late_faults, 0U);
  EXPECT_FALSE((*pool)->RefillOnce());  // full
  ExpectConserved(**pool);
}

TEST(HostPoolTest, ReadyExtentsAreCutDown) {
  const std::unique_ptr<HostPool> pool = Make(SmallOptions(kMiB));
  const HostPoolCounts before = pool->counts();
  absl::StatusOr<std::unique_ptr<Extent>> extent = pool->Take(96 * kKiB, ExtentUse::kRecent);
  ASSERT_TRUE(extent.ok());
  EXPECT_EQ((*extent)->bytes(), 96 * kKiB);
  const HostPoolCounts after = pool->counts();
  EXPECT_EQ(after.late_faults, 0U);
  EXPECT_EQ(after.charged_bytes, 96 * kKiB);
  EXPECT_EQ(after.ready_bytes, before.ready_bytes - 128 * kKiB);
  EXPECT_EQ(after.idle_bytes, before.idle_bytes + 32 * kKiB);
  ExpectConserved(*pool);
  pool->Return(*std::move(extent));
  EXPECT_EQ(pool->counts().charged_bytes, 0U);
  ExpectConserved(*pool);
}

TEST(HostPoolTest, ExtentsMadeWhileSomebodyWaitsAreCounted) {
  const std::unique_ptr<HostPool> pool = Make(SmallOptions(0));
  absl::StatusOr<std::unique_ptr<Extent>> extent = pool->Take(kMiB, ExtentUse::kKept);
  ASSERT_TRUE(extent.ok());
  EXPECT_EQ(pool->counts().late_faults, 1U);
  pool->Return(*std::move(extent));
}

TEST(HostPoolTest, AFullPoolSaysSoAndKeepsItsStock) {
  const std::unique_ptr<HostPool> pool = Make(SmallOptions(kMiB));
  absl::StatusOr<std::unique_ptr<Extent>> most = pool->Take(3 * kMiB, ExtentUse::kRecent);
  ASSERT_TRUE(most.ok()) << MessageOf(most.status());
  const uint64_t ready = pool->counts().ready_bytes;
  const absl::Status full = pool->Take(2 * kMiB, ExtentUse::kRecent).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(full), AllOf(HasSubstr(fmt::format("wanted_bytes={}", 2 * kMiB)),
                                     HasSubstr(fmt::format("free_bytes={}", kMiB)),
                                     HasSubstr(fmt::format("charged_bytes={}", 3 * kMiB)),
                                     HasSubstr(fmt::format("pool_bytes={}", 4 * kMiB))));
  EXPECT_EQ(pool->counts().ready_bytes, ready) << "touched memory was thrown away for nothing";
  ExpectConserved(*pool);
  pool->Return(*std::move(most));
}

TEST(HostPoolTest, RandomTakesReturnsAndSizesConserveBytes) {
  const char* text = std::getenv("KVASIR_SEED");
  const uint64_t seed = text != nullptr ? std::strtoull(text, nullptr, 10) : 20240501;
  fmt::print("KVASIR_SEED={}\n", seed);
  std::mt19937_64 random(seed);
  const std::unique_ptr<HostPool> pool = Make(SmallOptions(kMiB));
  std::vector<std::unique_ptr<Extent>> taken;
  uint64_t charged = 0, refused = 0, size = 4 * kMiB, times_over = 0;
  for (int step = 0; step < 2000; ++step) {
    const uint64_t bytes = (1 + random() % 160) * kPageBytes;
    if (random() % 3 == 0) (void)pool->RefillOnce();
    if (random() % 16 == 0) {
      size = random() % (6 * kMiB) / kPageBytes * kPageBytes;
      ASSERT_TRUE(pool->Resize(size).ok());
      times_over += charged > size ? 1 : 0;
    } else if (random() % 2 == 0 && !taken.empty()) {
      const size_t at = random() % taken.size();
      charged -= taken[at]->bytes();
      std::swap(taken[at], taken.back());
      pool->Return(std::move(taken.back()));
      taken.pop_back();
    } else {
      absl::StatusOr<std::unique_ptr<Extent>> extent = pool->Take(bytes, ExtentUse::kRecent);
      ASSERT_EQ(extent.ok(), charged + bytes <= size) << MessageOf(extent.status());
      refused += extent.ok() ? 0 : 1;
      if (extent.ok()) {
        ASSERT_EQ((*extent)->bytes(), bytes);
        charged += bytes;
        taken.push_back(*std::move(extent));
      }
    }
    ASSERT_EQ(pool->counts().pool_bytes, size);
    ASSERT_EQ(pool->counts().charged_bytes, charged);
    ASSERT_EQ(pool->counts().over_bytes, charged > size ? charged - size : 0);
    ASSERT_TRUE(pool->CheckConservation().ok());
  }
  EXPECT_GT(refused, 0U);
  EXPECT_GT(times_over, 0U);
  for (std::unique_ptr<Extent>& extent : taken) pool->Return(std::move(extent));
  EXPECT_EQ(pool->counts().charged_bytes, 0U);
  ExpectConserved(*pool);
}

TEST(HostPoolTest, ALargerPoolGivesMoreAtOnce) {
  const std::unique_ptr<HostPool> pool = Make(SmallOptions(0));
  EXPECT_FALSE(pool->Take(5 * kMiB, ExtentUse::kRecent).ok());
  ASSERT_TRUE(pool->Resize(6 * kMiB).ok());
  EXPECT_EQ(pool->counts().pool_bytes, 6 * kMiB);
  absl::StatusOr<std::unique_ptr<Extent>> extent = pool->Take(5 * kMiB, ExtentUse::kRecent);
  ASSERT_TRUE(extent.ok()) << MessageOf(extent.status());
  ExpectConserved(*pool);
  pool->Return(*std::move(extent));
}

TEST(HostPoolTest, ASmallerPoolGivesUpStockOnlyAsFarAsItMust) {
  const std::unique_ptr<HostPool> pool = Make(SmallOptions(2 * kMiB));
  const uint64_t ready = pool->counts().ready_bytes;
  ASSERT_TRUE(pool->Resize(ready).ok());
  EXPECT_EQ(pool->counts().ready_bytes, ready);
  ASSERT_TRUE(pool->Resize(ready - kPageBytes).ok());
  EXPECT_EQ(pool->counts().ready_bytes, ready - 512 * kKiB) << "the largest one went";
  EXPECT_EQ(pool->counts().idle_bytes, 512 * kKiB - kPageBytes);
  EXPECT_EQ(pool->counts().over_bytes, 0U);
  ExpectConserved(*pool);
}

TEST(HostPoolTest, WhatIsChargedStaysAndIsPaidBackBeforeAnythingIsGiven) {
  const std::unique_ptr<HostPool> pool = Make(SmallOptions(kMiB));
  absl::StatusOr<std::unique_ptr<Extent>> one = pool->Take(kMiB, ExtentUse::kRecent);
  absl::StatusOr<std::unique_ptr<Extent>> two = pool->Take(2 * kMiB, ExtentUse::kRecent);
  ASSERT_TRUE(one.ok() && two.ok());
  ASSERT_TRUE(pool->Resize(kMiB + kMiB / 2).ok());
  HostPoolCounts counts = pool->counts();
  EXPECT_EQ(counts.charged_bytes, 3 * kMiB);
  EXPECT_EQ(counts.over_bytes, kMiB + kMiB / 2);
  EXPECT_EQ(counts.ready_bytes + counts.idle_bytes, 0U);
  ExpectConserved(*pool);
  EXPECT_FALSE(pool->Take(kPageBytes, ExtentUse::kRecent).ok());
  EXPECT_FALSE(pool->RefillOnce()) << "stock is made of what there is none of";
  pool->Return(*std::move(one));
  EXPECT_EQ(pool->counts().over_bytes, kMiB / 2);
  EXPECT_FALSE(pool->Take(kPageBytes, ExtentUse::kRecent).ok());
  pool->Return(*std::move(two));
  counts = pool->counts();
  EXPECT_EQ(counts.over_bytes, 0U);
  EXPECT_EQ(counts.idle_bytes, kMiB + kMiB / 2);
  ExpectConserved(*pool);
}

TEST(HostPoolTest, APoolIsNotMadeLargerThanTheHost) {
  const std::unique_ptr<HostPool> pool = Make(SmallOptions(0));
  const absl::Status status = pool->Resize(uint64_t{1} << 50);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(status), AllOf(HasSubstr("memory.pool_bytes=1125899906842624"),
                                       HasSubstr("available_bytes=")));
  EXPECT_EQ(pool->counts().pool_bytes, 4 * kMiB);
}

TEST(HostPoolTest, APoolLargerThanTheHostIsRefused) {
  HostPoolOptions options = SmallOptions(0);
  options.pool_bytes = uint64_t{1} << 50;
  const absl::Status status = HostPool::Create(options, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(status), AllOf(HasSubstr("memory.pool_bytes=1125899906842624"),
                                       HasSubstr("available_bytes=")));
}

// With a limit that covers the first size and no larger one.
TEST(HostPoolDeathTest, ASizeThatCannotBeLockedIsRefused) {
  const auto grow = [] {
    const rlimit some{8 * kMiB, 8 * kMiB};
    if (::setrlimit(RLIMIT_MEMLOCK, &some) != 0) _exit(9);
    if (::geteuid() == 0 && (::setgid(12001) != 0 || ::setuid(12001) != 0)) _exit(9);
    HostPoolOptions options = SmallOptions(kMiB);
    options.lock = Demand::kRequire;
    const absl::StatusOr<std::unique_ptr<HostPool>> pool = HostPool::Create(options, {});
    if (!pool.ok() || !(*pool)->Resize(6 * kMiB).ok()) _exit(8);
    const absl::Status status = (*pool)->Resize(16 * kMiB);
    fmt::print(stderr, "{} pool={}\n", MessageOf(status), (*pool)->counts().pool_bytes);
    _exit(status.ok() ? 7 : 0);
  };
  EXPECT_EXIT(grow(), ::testing::ExitedWithCode(0),
              "memory.lock=require.*pool_bytes=16777216.*limit_bytes=8388608.*pool=6291456");
}

// Locking is refused in a child that gave up its right to lock.
TEST(HostPoolDeathTest, LockDemandsAreKept) {
  const auto refuse = [](Demand demand, uint64_t ready) {
    const rlimit none{64 * kKiB, 64 * kKiB};
    if (::setrlimit(RLIMIT_MEMLOCK, &none) != 0) _exit(9);
    if (::geteuid() == 0 && (::setgid(12001) != 0 || ::setuid(12001) != 0)) _exit(9);
    HostPoolOptions options = SmallOptions(ready);
    options.lock = demand;
    const absl::StatusOr<std::unique_ptr<HostPool>> pool = HostPool::Create(options, {});
    if (!pool.ok()) {
      fmt::print(stderr, "refused: {}\n", MessageOf(pool.status()));
      _exit(1);
    }
    fmt::print(stderr, "locked={}\n", (*pool)->counts().locked);
    _exit(0);
  };
  for (const uint64_t ready : {uint64_t{0}, uint64_t{128 * kKiB}}) {
    EXPECT_EXIT(refuse(Demand::kRequire, ready), ::testing::ExitedWithCode(1),
                "memory.lock=require.*pool_bytes=4194304.*limit_bytes=65536");
    EXPECT_EXIT(refuse(Demand::kTry, ready), ::testing::ExitedWithCode(0), "locked=false");
  }
}

}  // namespace
}  // namespace kvasir
