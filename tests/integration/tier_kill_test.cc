// SIGKILL of a daemon with a disk tier while engines publish, attach and evict and an operator
// drains: after each restart rows are right or a miss, and the disk holds what prefixes name.
#include <atomic>
#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "tests/support/environment.h"
#include "tests/support/kill_load.h"
#include "tests/support/tier_daemon.h"

namespace kvasir::testing {
namespace {

using ::testing::AnyOf;
using ::testing::Eq;

class TierKillTest : public TierDaemonTest {
 protected:
  static Config Pressed(Config config) {
    // Less than the prompts take together, so that they are written down and evicted as well.
    config.tenants[0].limit_bytes = 8 * kMiB;
    config.tier.write_down_high_percent = 40;
    config.tier.write_down_low_percent = 20;
    return config;
  }

  // A new daemon's prompts are right or misses. Returns how many rows there were.
  uint64_t CheckAll() const {
    absl::StatusOr<TierEngine> engine = daemon_.Connect();
    EXPECT_TRUE(engine.ok()) << MessageOf(engine.status());
    uint64_t rows = 0;
    for (uint64_t number = 0; engine.ok() && number < kKillPrompts; ++number) {
      engine->set_retention(KillRetention(number));
      const absl::StatusOr<uint64_t> found = engine->AttachedRows(KillPrompt(number));
      EXPECT_TRUE(found.ok()) << "prompt " << number << ": " << MessageOf(found.status());
      rows += found.value_or(0);
    }
    return rows;
  }

  TierDaemon daemon_{folder_.path(), Pressed(DiskConfig())};
};

TEST_F(TierKillTest, KilledAtAnyMoment) {
  std::mt19937_64 random(FromEnvironment("KVASIR_SEED", std::random_device{}()));
  const uint64_t kills = FromEnvironment("KVASIR_KILLS", 20);
  uint64_t rows_found = 0;
  ASSERT_TRUE(daemon_.Start());
  for (uint64_t i = 0; i < kills && !HasFailure(); ++i) {
    SCOPED_TRACE(i);
    std::atomic<uint64_t> steps{0};
    std::atomic<bool> killed{false};
    std::vector<absl::Status> ends(2);
    std::vector<std::thread> threads;
    for (absl::Status& end : ends) {
      threads.emplace_back([&, seed = random()] { end = PublishAndAttach(daemon_, seed, &steps); });
    }
    threads.emplace_back([&] {
      while (!killed) (void)daemon_.Drain();
    });
    const uint64_t wanted = random() % 60;
    while (steps < wanted) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
    daemon_.Kill();
    killed = true;
    for (std::thread& thread : threads) thread.join();
    for (const absl::Status& end : ends) {
      EXPECT_THAT(end.code(),
                  AnyOf(Eq(absl::StatusCode::kUnavailable), Eq(absl::StatusCode::kDeadlineExceeded),
                        Eq(absl::StatusCode::kNotFound)))
          << MessageOf(end);
    }
    ASSERT_TRUE(daemon_.Start());
    const v1::TierInfo tier = daemon_.Tier();
    ASSERT_EQ(tier.tenants_size(), 1);
    // What no prefix names is given up at the start. A group of this model takes 4 KiB and, with
    // its header, at most 16 KiB of disk; a manifest the same.
    EXPECT_LE(tier.held_bytes(), 5 * tier.tenants(0).stored_bytes() + kMiB);
    EXPECT_LE(tier.tenants(0).prefixes(), kKillPrompts);
    rows_found += CheckAll();
  }
  EXPECT_GT(rows_found, 0U);
  // Nothing is left of prefixes that are dropped, so nothing is held that nobody names.
  daemon_.Drop();
  daemon_.Stop();
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(daemon_.Tier().held_bytes(), 0U);
}

}  // namespace
}  // namespace kvasir::testing
