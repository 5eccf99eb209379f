// SIGKILL of a daemon whose descriptors are kept while engines publish, attach and evict: after
// each restart rows are right or a miss, and nothing is held that nobody names.
#include <atomic>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "tests/support/environment.h"
#include "tests/support/handover_daemon.h"
#include "tests/support/kill_load.h"

namespace kvasir::testing {
namespace {

using HandoverKillTest = HandoverDaemonTest;

TEST_F(HandoverKillTest, KilledAtAnyMoment) {
  std::mt19937_64 random(FromEnvironment("KVASIR_SEED", std::random_device{}()));
  const uint64_t kills = FromEnvironment("KVASIR_KILLS", 20);
  // Less than the prompts take together, so that groups are evicted and used again.
  daemon_.config().tenants[0].limit_bytes = 8 * kMiB;
  uint64_t rows_found = 0;
  ASSERT_TRUE(daemon_.Start());
  for (uint64_t i = 0; i < kills && !HasFailure(); ++i) {
    SCOPED_TRACE(i);
    std::atomic<uint64_t> steps{0};
    std::vector<absl::Status> ends(2);
    std::vector<std::thread> threads;
    for (absl::Status& end : ends) {
      threads.emplace_back([&, seed = random()] { end = PublishAndAttach(daemon_, seed, &steps); });
    }
    const uint64_t wanted = random() % 60;
    while (steps < wanted) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
    daemon_.Kill();
    for (std::thread& thread : threads) thread.join();
    for (const absl::Status& end : ends) {
      EXPECT_NE(end.code(), absl::StatusCode::kDataLoss) << MessageOf(end);
    }
    ASSERT_TRUE(daemon_.Start());
    for (uint64_t number = 0; number < kKillPrompts; ++number)
      rows_found += Found(KillPrompt(number), KillRetention(number));
  }
  EXPECT_GT(rows_found, 0U);
  daemon_.Drop();
  while (keeper_.Count("kvasir-extent-") > 0) std::this_thread::yield();
  WaitForRecords(0);
}

}  // namespace
}  // namespace kvasir::testing
