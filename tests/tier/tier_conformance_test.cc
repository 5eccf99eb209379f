// What every tier does, whatever stands behind it.
#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "allocator/tier/tier.h"
#include "base/bytes.h"
#include "tests/tier/tier_blocks.h"
#include "tests/tier/tier_places.h"

namespace kvasir::testing {
namespace {

constexpr uint64_t kCapacity = 32 * kMiB;
constexpr size_t kSmallGroup = 188'416;  // SmolLM2-135M's small block group
constexpr size_t kGroup = 1'478'656;     // and its whole one

class TierConformance : public ::testing::TestWithParam<TierMaker> {
 protected:
  void SetUp() override {
    place_ = GetParam().make(kCapacity);
    ASSERT_NE(place_.tier, nullptr);
  }
  Tier& tier() { return *place_.tier; }
  TierPlace place_;
};

TEST_P(TierConformance, GivesBackWhatWasWrittenWhateverItsLength) {
  uint64_t number = 0;
  for (const size_t bytes : {size_t{1}, size_t{7}, size_t{3968}, size_t{3969}, size_t{4095},
                             size_t{4096}, size_t{4097}, size_t{65'536}, kSmallGroup, kGroup}) {
    ++number;
    ASSERT_EQ(WriteBlock(tier(), number, bytes), absl::OkStatus()) << bytes;
    EXPECT_EQ(OutcomeOf(tier(), number, bytes), "hit") << bytes;
  }
}

TEST_P(TierConformance, GathersPartsOfAnyLengthAndReadsIntoMemoryAtAnyAddress) {
  const std::vector<std::byte> payload = BytesFor(1, kSmallGroup + 123);
  const std::span<const std::byte> all(payload);
  std::vector<std::span<const std::byte>> parts = {all.first(1), all.subspan(1, 4095),
                                                   all.subspan(4096, 0), all.subspan(4096, 70'001),
                                                   all.subspan(4096 + 70'001)};
  const PageMemory pages(payload.size());
  std::copy(payload.begin(), payload.end(), pages.span().begin());
  const std::vector<std::span<const std::byte>> page_parts = {
      pages.span().first(8192), pages.span().subspan(8192, 4096), pages.span().subspan(12'288)};
  const WriteItem items[] = {{KeyOf(1), parts}, {KeyOf(2), page_parts}};
  absl::Status statuses[2];
  tier().Write(items, statuses);
  ASSERT_THAT(statuses, ::testing::Each(absl::OkStatus()));
  for (const uint64_t number : {1U, 2U}) {
    const PageMemory memory(payload.size() + 64);
    for (const size_t offset : {0U, 1U, 64U}) {
      const ReadItem item = {KeyOf(number), memory.span().subspan(offset, payload.size())};
      ReadOutcome outcome = ReadOutcome::kFailed;
      tier().Read(std::span(&item, 1), std::span(&outcome, 1));
      EXPECT_EQ(outcome, ReadOutcome::kHit);
      EXPECT_TRUE(std::equal(payload.begin(), payload.end(), item.into.begin()));
    }
  }
}

TEST_P(TierConformance, ABlockThatWasNeverWrittenIsAbsent) {
  EXPECT_EQ(OutcomeOf(tier(), 1, 100), "absent");
  ASSERT_EQ(WriteBlock(tier(), 2, 100), absl::OkStatus());
  TierKey near = KeyOf(2);
  near.bytes.back() ^= 1;
  EXPECT_EQ(ReadOne(tier(), near, 100).outcome, ReadOutcome::kAbsent);
}

TEST_P(TierConformance, AKeyStandsForItsFirstBytesForEver) {
  ASSERT_EQ(WriteBlock(tier(), 1, 5000), absl::OkStatus());
  EXPECT_EQ(WriteOne(tier(), KeyOf(1), BytesFor(2, 5000)), absl::OkStatus());
  EXPECT_EQ(OutcomeOf(tier(), 1, 5000), "hit");
  EXPECT_EQ(tier().Stats().writes, 1);
}

TEST_P(TierConformance, AnErasedBlockIsAbsentAndCanBeWrittenAnew) {
  ASSERT_EQ(WriteBlock(tier(), 1, 5000), absl::OkStatus());
  const TierKey keys[] = {KeyOf(1), KeyOf(2)};
  EXPECT_EQ(tier().Erase(keys), absl::OkStatus());
  EXPECT_EQ(OutcomeOf(tier(), 1, 5000), "absent");
  EXPECT_EQ(tier().Erase(keys), absl::OkStatus());
  EXPECT_EQ(tier().Stats().erases, 1);
  ASSERT_EQ(WriteOne(tier(), KeyOf(1), BytesFor(1, 70'000)), absl::OkStatus());
  EXPECT_EQ(OutcomeOf(tier(), 1, 70'000), "hit");
}

TEST_P(TierConformance, ListsWhatIsThereWithItsLength) {
  std::map<std::string, uint64_t> expected;
  for (uint64_t number = 0; number < 40; ++number) {
    ASSERT_EQ(WriteBlock(tier(), number, 1000 + number), absl::OkStatus());
    if (number % 4 != 0) expected[KeyOf(number).ToHex()] = 1000 + number;
  }
  for (uint64_t number = 0; number < 40; number += 4) {
    const TierKey key = KeyOf(number);
    ASSERT_EQ(tier().Erase(std::span(&key, 1)), absl::OkStatus());
  }
  std::map<std::string, uint64_t> listed;
  ASSERT_EQ(
      tier().ForEach([&](const TierKey& key, uint64_t bytes) { listed[key.ToHex()] = bytes; }),
      absl::OkStatus());
  EXPECT_EQ(listed, expected);
}

TEST_P(TierConformance, ABatchAnswersForEachOfItsBlocks) {
  constexpr size_t kCount = 100;
  std::vector<std::vector<std::byte>> payloads(kCount);
  std::vector<std::span<const std::byte>> parts(kCount);
  std::vector<WriteItem> items;
  for (size_t i = 0; i < kCount; ++i) {
    const size_t number = i % 90;  // ten keys come twice
    payloads[i] = BytesFor(number, number == 50 ? 0 : 1000 + number * 700);
    parts[i] = payloads[i];
    items.push_back({KeyOf(number), std::span(&parts[i], 1)});
  }
  std::vector<absl::Status> statuses(kCount);
  tier().Write(items, statuses);
  std::vector<std::unique_ptr<PageMemory>> memory;
  std::vector<ReadItem> reads;
  for (size_t i = 0; i < kCount; ++i) {
    EXPECT_EQ(statuses[i].code(),
              i == 50 ? absl::StatusCode::kInvalidArgument : absl::StatusCode::kOk)
        << i << " " << statuses[i];
    memory.push_back(std::make_unique<PageMemory>(std::max<size_t>(payloads[i].size(), 1)));
    reads.push_back({i == 70 ? KeyOf(1000) : items[i].key, memory.back()->span()});
  }
  std::vector<ReadOutcome> outcomes(kCount);
  tier().Read(reads, outcomes);
  for (size_t i = 0; i < kCount; ++i) {
    const bool there = i != 50 && i != 70;
    ASSERT_EQ(outcomes[i], there ? ReadOutcome::kHit : ReadOutcome::kAbsent) << i;
    EXPECT_TRUE(!there ||
                std::equal(payloads[i].begin(), payloads[i].end(), reads[i].into.begin()));
  }
}

TEST_P(TierConformance, RefusesAPayloadOfNoOrTooManyBytes) {
  EXPECT_TRUE(absl::IsInvalidArgument(WriteOne(tier(), KeyOf(1), {})));
  // One MiB many times over: nobody has to hold so much.
  const std::vector<std::byte> mib(kMiB);
  const std::vector<std::span<const std::byte>> parts(kTierPayloadBytesMax / kMiB + 1, mib);
  const WriteItem item = {KeyOf(1), parts};
  absl::Status status;
  tier().Write(std::span(&item, 1), std::span(&status, 1));
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_EQ(OutcomeOf(tier(), 1, 1), "absent");
}

TEST_P(TierConformance, ABlockOfAnotherLengthThanAskedForStays) {
  ASSERT_EQ(WriteBlock(tier(), 1, 5000), absl::OkStatus());
  EXPECT_EQ(OutcomeOf(tier(), 1, 4999), "wrong_length");
  EXPECT_EQ(OutcomeOf(tier(), 1, 5001), "wrong_length");
  EXPECT_EQ(OutcomeOf(tier(), 1, 5000), "hit");
}

TEST_P(TierConformance, ACancelledBatchDoesNothingMore) {
  CancelToken cancel;
  cancel.Cancel();
  const std::vector<std::byte> payload = BytesFor(1, 5000);
  const std::span<const std::byte> part(payload);
  const WriteItem item = {KeyOf(1), std::span(&part, 1)};
  absl::Status status;
  tier().Write(std::span(&item, 1), std::span(&status, 1), &cancel);
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_EQ(OutcomeOf(tier(), 1, 5000), "absent");
  ASSERT_EQ(WriteBlock(tier(), 1, 5000), absl::OkStatus());
  std::vector<std::byte> into(5000);
  const ReadItem read = {KeyOf(1), into};
  ReadOutcome outcome = ReadOutcome::kHit;
  tier().Read(std::span(&read, 1), std::span(&outcome, 1), &cancel);
  EXPECT_EQ(outcome, ReadOutcome::kCancelled);
  EXPECT_EQ(OutcomeOf(tier(), 1, 5000), "hit");
}

TEST_P(TierConformance, AFullTierRefusesAndLosesNothing) {
  std::vector<uint64_t> written;
  uint64_t number = 0;
  absl::Status status;
  for (size_t refused = 0; refused < 5; ++number) {
    ASSERT_LT(number, 400) << "more was taken than the capacity has room for";
    status = WriteBlock(tier(), number, kSmallGroup);
    if (status.ok()) {
      written.push_back(number);
    } else {
      ++refused;
      ASSERT_TRUE(absl::IsResourceExhausted(status)) << status;
    }
  }
  EXPECT_GT(written.size(), 100);
  for (const uint64_t each : written) ASSERT_EQ(OutcomeOf(tier(), each, kSmallGroup), "hit");
  std::vector<TierKey> keys;
  for (size_t i = 0; i < written.size(); i += 2) keys.push_back(KeyOf(written[i]));
  ASSERT_EQ(tier().Erase(keys), absl::OkStatus());
  EXPECT_EQ(WriteBlock(tier(), 1000, kSmallGroup), absl::OkStatus());
  EXPECT_EQ(OutcomeOf(tier(), 1000, kSmallGroup), "hit");
}

TEST_P(TierConformance, LongUseLeavesNothingBehindAndMixesNothingUp) {
  std::mt19937 random(20261126);
  std::map<uint64_t, size_t> model;  // number -> bytes
  uint64_t next = 0;
  for (int step = 0; step < 1500; ++step) {
    const uint64_t dice = random() % 10;
    if (dice < 5 || model.empty()) {
      const size_t bytes = 1 + random() % 100'000;
      const absl::Status status = WriteBlock(tier(), next, bytes);
      if (status.ok()) {
        model[next] = bytes;
      } else {
        ASSERT_TRUE(absl::IsResourceExhausted(status)) << status;
      }
      ++next;
      continue;
    }
    const auto each = std::next(model.begin(), static_cast<ptrdiff_t>(random() % model.size()));
    if (dice < 8) {
      ASSERT_EQ(OutcomeOf(tier(), each->first, each->second), "hit") << "step " << step;
    } else {
      const TierKey key = KeyOf(each->first);
      ASSERT_EQ(tier().Erase(std::span(&key, 1)), absl::OkStatus());
      ASSERT_EQ(OutcomeOf(tier(), each->first, each->second), "absent");
      model.erase(each);
    }
  }
  for (const auto& [number, bytes] : model) ASSERT_EQ(OutcomeOf(tier(), number, bytes), "hit");
  std::vector<TierKey> keys;
  for (const auto& [number, bytes] : model) keys.push_back(KeyOf(number));
  ASSERT_EQ(tier().Erase(keys), absl::OkStatus());
  const TierStats stats = tier().Stats();
  EXPECT_EQ(stats.held_bytes.value_or(0), 0);
  EXPECT_EQ(stats.blocks.value_or(0), 0);
}

TEST_P(TierConformance, ManyThreadsReadWriteAndEraseTheSameBlocks) {
  constexpr size_t kThreads = 4;
  std::array<std::string, kThreads> wrong;
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t, &wrong] {
      std::mt19937 random(static_cast<uint32_t>(t));
      for (int step = 0; step < 300; ++step) {
        const uint64_t number = random() % 16;
        const size_t bytes = 3000 + number * 5000;
        const uint64_t dice = random() % 8;
        const TierKey key = KeyOf(number);
        if (dice < 3) {
          if (!WriteBlock(tier(), number, bytes).ok()) wrong[t] = "a write failed";
        } else if (dice < 7) {
          const std::string outcome = OutcomeOf(tier(), number, bytes);
          if (outcome != "hit" && outcome != "absent") wrong[t] = outcome;
        } else if (!tier().Erase(std::span(&key, 1)).ok()) {
          wrong[t] = "an erase failed";
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ::testing::Each(""));
}

TEST_P(TierConformance, CountsWhatItDid) {
  ASSERT_EQ(WriteBlock(tier(), 1, 5000), absl::OkStatus());
  ASSERT_EQ(WriteBlock(tier(), 2, 7000), absl::OkStatus());
  EXPECT_FALSE(WriteOne(tier(), KeyOf(3), {}).ok());
  ASSERT_EQ(OutcomeOf(tier(), 1, 5000), "hit");
  ASSERT_EQ(OutcomeOf(tier(), 4, 5000), "absent");
  ASSERT_EQ(tier().Flush(), absl::OkStatus());
  const TierStats stats = tier().Stats();
  EXPECT_EQ(stats.writes, 2);
  EXPECT_EQ(stats.write_errors, 1);
  EXPECT_EQ(stats.written_bytes, 12'000);
  EXPECT_EQ(stats.reads_of(ReadOutcome::kHit), 1);
  EXPECT_EQ(stats.reads_of(ReadOutcome::kAbsent), 1);
  EXPECT_EQ(std::accumulate(stats.reads.begin(), stats.reads.end(), uint64_t{0}), 2);
  EXPECT_EQ(stats.read_bytes, 5000);
  EXPECT_GT(stats.write_ns, 0);
  EXPECT_GT(stats.read_ns, 0);
  if (stats.capacity_bytes) {
    EXPECT_EQ(*stats.capacity_bytes, kCapacity);
    EXPECT_GE(*stats.held_bytes, 12'000);
    EXPECT_LE(*stats.held_bytes, 12'000 + 2 * 3 * kPageBytes);
    EXPECT_EQ(*stats.blocks, 2);
  }
}

INSTANTIATE_TEST_SUITE_P(All, TierConformance, ::testing::ValuesIn(AllTiers()),
                         [](const auto& maker) { return maker.param.name; });

}  // namespace
}  // namespace kvasir::testing
