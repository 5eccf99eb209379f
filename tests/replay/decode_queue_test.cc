// DecodeQueue: worked by hand, and what hints are worth on a trace made here.
#include "replay/decode_queue.h"

#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"

namespace kvasir::replay {
namespace {

DecodeServer SmallServer(uint64_t memory_rows) {
  DecodeServer server;
  server.memory_rows = memory_rows;
  server.step_us = 1000;
  server.restore_rows_per_s = 1e6;
  return server;
}

TEST(DecodeQueueTest, WhoFitsRunsAtOnce) {
  const std::vector<DecodeRequest> requests = {{0, 10, 4, {}}, {0, 10, 8, {}}};
  const absl::StatusOr<DecodeResult> result = Decode(requests, SmallServer(100));
  ASSERT_TRUE(result.ok()) << MessageOf(result.status());
  EXPECT_EQ(result->suspensions, 0U);
  EXPECT_DOUBLE_EQ(result->mean_ms_a_row, 1.0);
  EXPECT_DOUBLE_EQ(result->longest_s, 0.008);
}

TEST(DecodeQueueTest, WhoDoesNotFitIsSuspendedAndComesBackForATime) {
  // Both fit for three steps. Then the second, 23 rows to go, makes room; the first one's last two
  // steps pass, and it comes back: 14 rows in 14 us.
  std::vector<DecodeRequest> requests = {{0, 10, 5, {}}, {0, 10, 26, {}}};
  requests[0].hints.predicted_rows = 5;
  requests[1].hints.predicted_rows = 26;
  const absl::StatusOr<DecodeResult> result = Decode(requests, SmallServer(36));
  ASSERT_TRUE(result.ok()) << MessageOf(result.status());
  EXPECT_EQ(result->suspensions, 0U) << "10 + 5 and 10 + 5 fit in 36";
  const absl::StatusOr<DecodeResult> tight = Decode(requests, SmallServer(36 - 8));
  EXPECT_EQ(tight.status().code(), absl::StatusCode::kInvalidArgument);
  requests[1].response_rows = 16;
  const absl::StatusOr<DecodeResult> scarce = Decode(requests, SmallServer(26));
  ASSERT_TRUE(scarce.ok()) << MessageOf(scarce.status());
  EXPECT_EQ(scarce->suspensions, 1U);
  EXPECT_DOUBLE_EQ(scarce->longest_s, 0.018014) << "16 steps, two of waiting, and 14 us";
}

TEST(DecodeQueueTest, GoodHintsHelpAndNobodyWaitsForEver) {
  std::mt19937_64 random(5);
  std::vector<DecodeRequest> requests;
  uint64_t now_us = 0;
  for (int i = 0; i < 400; ++i) {
    now_us += random() % 60'000;
    const uint64_t rows = random() % 10 == 0 ? 400 + random() % 400 : 4 + random() % 40;
    requests.push_back({now_us, 100 + random() % 200, rows, {}});
  }
  DecodeServer server = SmallServer(0);
  server.step_us = 10'000;
  server.starving_after_ms = 4'000;
  server.memory_rows = MemoryRowsFor(requests, 1.1, server.step_us);
  const DecodeResult before = *Decode(requests, server);
  Predict({"exact"}, 1, requests);
  EXPECT_EQ(TauOf(requests), 1.0);
  const DecodeResult exact = *Decode(requests, server);
  EXPECT_LT(exact.mean_ms_a_row - 10, (before.mean_ms_a_row - 10) / 2) << "a step is 10 ms";
  Predict({"noisy", false, 0.6}, 1, requests);
  const DecodeResult noisy = *Decode(requests, server);
  EXPECT_LT(*TauOf(requests), 0.9);
  EXPECT_LT(noisy.mean_ms_a_row, before.mean_ms_a_row);
  // Some times the guard's time, and that which the longest takes by itself.
  EXPECT_LT(exact.longest_s, 3 * 4.0 + 8.0);
  server.starving_after_ms = 1'000'000;
  Predict({"exact"}, 1, requests);
  EXPECT_GT(Decode(requests, server)->longest_s, exact.longest_s) << "the guard is of use";
}

}  // namespace
}  // namespace kvasir::replay
