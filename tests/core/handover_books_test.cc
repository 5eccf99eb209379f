// What a handover job holds while it is out is in the books, whatever goes meanwhile.
#include <cstdint>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/core/prefix_fixture.h"

namespace kvasir::core::testing {
namespace {

using HandoverBooksTest = PrefixCoreTest;

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

}  // namespace
}  // namespace kvasir::core::testing
