// What sequences ask for is counted by tenant, whatever is cached, and sizes follow what a chunk
// takes.
#include "daemon/core/prefix_demand.h"

#include <cstdint>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/core/prefix_fixture.h"

namespace kvasir::core::testing {
namespace {

class PrefixDemandTest : public PrefixCoreTest {
 protected:
  PrefixDemandReport ReportOf(const std::string& tenant) const {
    for (const DemandReport& report : core_->DemandReports()) {
      if (report.tenant == tenant) return report.demand;
    }
    ADD_FAILURE() << "no report: " << tenant;
    return {};
  }
  static PrefixChain ChainOf(uint64_t rows, uint32_t seed) {
    absl::StatusOr<PrefixChain> chain = PrefixChain::Create({}, {}, {});
    EXPECT_TRUE(chain.ok());
    chain->Append(Tokens(rows, seed));
    return *std::move(chain);
  }
};

TEST_F(PrefixDemandTest, EveryChunkThatIsAskedForCountsStoredOrNot) {
  uint32_t model = 0, other_model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  ConnectOwn(2, &other_model);
  EXPECT_TRUE(ReportOf("a").points.empty());
  const std::vector<uint32_t> never_stored = Tokens(100, 1);
  EXPECT_EQ(RowsAttached(engine, model, "full", never_stored), 0U);
  PrefixDemandReport report = ReportOf("a");
  EXPECT_EQ(report.chunks_asked, 6U);
  ASSERT_EQ(report.points.size(), kDemandTimes.size());
  EXPECT_EQ(report.points.back().hit_ratio, 0);

  EXPECT_EQ(RowsAttached(engine, model, "full", never_stored), 0U);
  report = ReportOf("a");
  EXPECT_EQ(report.chunks_asked, 12U);
  EXPECT_DOUBLE_EQ(report.points.back().hit_ratio, 0.5);
  // In another form nothing of it is there.
  EXPECT_EQ(RowsAttached(engine, model, "window:size=24", never_stored), 0U);
  EXPECT_DOUBLE_EQ(ReportOf("a").points.back().hit_ratio, 6.0 / 18);
  EXPECT_TRUE(ReportOf("b").points.empty());
  EXPECT_EQ(ReportOf("b").chunks_asked, 0U);
}

TEST_F(PrefixDemandTest, AnswersThatArePublishedAreThereForTheNextTurn) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  const std::vector<uint32_t> conversation = Tokens(160, 3);
  const std::vector<uint32_t> prompt(conversation.begin(), conversation.begin() + 80);
  absl::StatusOr<FakeEngine::Stream> stream = Attach(engine, model, "full", prompt);
  ASSERT_TRUE(stream.ok());
  WriteTokens(engine, *stream, conversation);
  ASSERT_TRUE(Publish(engine, *stream).ok());
  Close(engine, *stream);
  EXPECT_EQ(ReportOf("a").chunks_asked, 5U);
  EXPECT_EQ(RowsAttached(engine, model, "full", conversation), 160U);
  EXPECT_EQ(ReportOf("a").chunks_asked, 15U);
  EXPECT_DOUBLE_EQ(ReportOf("a").points.back().hit_ratio, 10.0 / 15);
}

TEST_F(PrefixDemandTest, SizesAreMultiplesOfTheLimitInChunksAsPublished) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  const uint64_t limit = ReportOf("a").limit_bytes;
  EXPECT_EQ(limit, 6 * kMiB);
  RowsAttached(engine, model, "full", Tokens(100, 1));
  const uint64_t written = ReportOf("a").chunk_bytes;
  EXPECT_EQ(written % kChunkTokens, 0U);  // nothing but rows
  Store(engine, model, "full", Tokens(320, 2));
  if (HasFatalFailure()) return;
  const PrefixDemandReport report = ReportOf("a");
  EXPECT_GT(report.chunk_bytes, written);  // whole groups, with their trailers
  EXPECT_EQ(report.chunk_bytes, core_->PrefixReports().front().held_bytes / 20);
  for (size_t i = 0; i < report.points.size(); ++i) {
    const HitRatePoint& point = report.points[i];
    EXPECT_EQ(point.times, kDemandTimes[i]);
    EXPECT_EQ(point.bytes, static_cast<uint64_t>(point.times * static_cast<double>(limit)));
    EXPECT_EQ(point.chunks, point.bytes / report.chunk_bytes);
  }
}

TEST_F(PrefixDemandTest, RowsThatAreNotWantedAreNotAskedFor) {
  PrefixDemand demand(kMiB);
  demand.Asked(ChainOf(96, 1), {}, 95, 64);
  EXPECT_EQ(demand.Report().chunks_asked, 5U);
  demand.Asked(ChainOf(96, 1), {}, 1000, 64);
  EXPECT_EQ(demand.Report().chunks_asked, 11U);
  demand.Asked(ChainOf(15, 1), {}, 15, 64);  // less than a chunk
  EXPECT_EQ(demand.Report().chunks_asked, 11U);
}

TEST_F(PrefixDemandTest, SmallerChunksMakeItStartOverWithDeeperOnes) {
  PrefixDemand demand(kMiB);
  demand.Asked(ChainOf(96, 1), {}, 96, 4096);
  demand.Asked(ChainOf(96, 1), {}, 96, 4096);
  EXPECT_EQ(demand.Report().points.back().chunks, 128U);
  EXPECT_DOUBLE_EQ(demand.Report().points.back().hit_ratio, 0.5);
  // Up to twice as many were followed from the beginning.
  demand.Asked(ChainOf(96, 1), {}, 96, 2048);
  EXPECT_EQ(demand.Report().chunks_asked, 18U);
  EXPECT_EQ(demand.Report().points.back().chunks, 256U);
  demand.Asked(ChainOf(96, 1), {}, 96, 512);
  EXPECT_EQ(demand.Report().chunks_asked, 6U);
  EXPECT_EQ(demand.Report().points.back().hit_ratio, 0);
}

TEST_F(PrefixDemandTest, AModelWithoutBoundsIsBounded) {
  PrefixDemand demand(uint64_t{1} << 60);
  demand.Asked(ChainOf(96, 1), {}, 96, 1);
  EXPECT_EQ(demand.Report().chunks_asked, 6U);
  EXPECT_LT(demand.Report().metadata_bytes, 600U * 1024);
}

}  // namespace
}  // namespace kvasir::core::testing
