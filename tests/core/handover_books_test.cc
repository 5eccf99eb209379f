// What a handover job holds while it is out is in the books, whatever goes meanwhile; and what is
// taken over is of one tenant.
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "tests/core/prefix_fixture.h"

namespace kvasir::core::testing {
namespace {

class HandoverBooksTest : public PrefixCoreTest {
 protected:
  void Configure(CoreConfig& config) override {
    if (adopted_bytes_ == 0) return;
    config.tiers = {{"handover", false, 0}};
    config.tiers[0].adopted = true;
  }
  std::unique_ptr<HostPool> MakePool() override {
    HostPoolOptions options;
    options.pool_bytes = 16 * kMiB;
    options.lock = Demand::kOff;
    options.adopted_bytes = adopted_bytes_;
    options.first_id = adopted_bytes_ == 0 ? 1 : 1000;
    return *HostPool::Create(options, nullptr);
  }

  uint64_t adopted_bytes_ = 0;
};

TEST_F(HandoverBooksTest, APrefixThatIsGivenUpWhileItIsWrittenDownHasItsRecentBlocks) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectOwn(1, &model);
  Store(engine, model, "window:size=24", Tokens(80, 1));  // its last rows lie in recent blocks
  std::unique_ptr<HandoverJob> job = core_->TakeHandoverJob();
  ASSERT_NE(job, nullptr);
  ASSERT_EQ(job->kind, HandoverJob::Kind::kNote);
  ASSERT_EQ(*core_->DropPrefixes(""), 1U);
  ExpectConserved();
  job->status = Unavailable("nobody keeps an extent");
  core_->FinishHandoverJob(std::move(job));
  ExpectConserved();
  EXPECT_EQ(core_->TenantReports()[0].prefix_bytes, 0U);
}

// Two tenants that have gone on from a public one's prefix wrote the same groups down.
TEST_F(HandoverBooksTest, AGroupThatTwoTenantsNameIsTakenOverByOne) {
  uint32_t model = 0;
  FakeEngine& engine = ConnectOwn(3, &model);
  Store(engine, model, "full", Tokens(32, 1));
  std::unique_ptr<HandoverJob> job = core_->TakeHandoverJob();
  ASSERT_NE(job, nullptr);
  Adoption adoption;
  for (const uint32_t uid : {1U, 2U}) {
    Adoption::Prefix& one = adoption.prefixes.emplace_back();
    one.tenant = (*core_->TenantOf({uid}))->key;
    one.record = uid;
    one.prefix.facts = *job->snapshot;
    one.prefix.facts.table = {};  // of this process
    one.prefix.facts.next.reset();
    one.prefix.tokens = job->tokens;
    one.prefix.lanes.resize(1);
    for (const HandoverJob::Item& item : job->items) {
      Extent& extent = *item.at.group().extent;
      one.prefix.lanes[0].push_back({{},
                                     item.at.slots,
                                     item.at.rows,
                                     item.at.plane_bytes,
                                     extent.id(),
                                     extent.bytes(),
                                     item.at.group().offset});
      if (adoption.extents.contains(extent.id())) continue;
      adoption.extents[extent.id()] =
          *Extent::Adopt(*extent.Duplicate(), extent.bytes(), extent.id());
      adopted_bytes_ += extent.bytes();
    }
  }
  core_->FinishHandoverJob(std::move(job));
  core_.reset();
  engines_.clear();
  Start(6 * kMiB);
  const AdoptionCounts counts = core_->Adopt(std::move(adoption));
  EXPECT_EQ(counts.prefixes, 1U);
  EXPECT_EQ(counts.dropped, 1U);
  ExpectConserved();
  EXPECT_EQ(core_->TenantReports()[0].held_bytes, 0U);
  EXPECT_GT(core_->TenantReports()[1].held_bytes, 0U) << "the newer one's";
  adopted_bytes_ = 0;
  Start(6 * kMiB);  // the core before ends, tenant by tenant
}

}  // namespace
}  // namespace kvasir::core::testing
