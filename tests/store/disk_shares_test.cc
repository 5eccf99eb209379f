// What tenants may have of a disk tier: as much as there is while nobody else wants it, then by
// reservation and weight.
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "tests/store/store_fixture.h"

namespace kvasir::core::testing {
namespace {

class DiskSharesTest : public StoreTest {
 protected:
  DiskSharesTest() {
    capacity_bytes_ = kCapacity;
    stored_bytes_ = kCapacity;
  }
  void Configure(CoreConfig& config) override {
    StoreTest::Configure(config);
    config.tiers[0].capacity_bytes = capacity_bytes_;
    config.tenants[0].disk_reserved_bytes = reserved_bytes_;
    config.tenants[1].weight = weight_;
  }
  // Publishes prompts of the tenant and writes them down, `count` of them.
  void Write(uint32_t uid, uint32_t first, uint32_t count) {
    uint32_t model = 0;
    FakeEngine& engine = ConnectToTiers(uid, &model);
    for (uint32_t i = 0; i < count; ++i) {
      Store(engine, model, "full", Tokens(160, first + i));
      Drain();
      ASSERT_FALSE(HasFatalFailure());
      ForgetMemory();
      ASSERT_LE(All(), kCapacity);
    }
  }
  uint64_t Has(size_t tenant) const { return Report(tenant).stored_bytes; }
  uint64_t All() const { return Has(0) + Has(1) + Has(2); }

  static constexpr uint64_t kCapacity = 1 * kMiB;
  uint64_t reserved_bytes_ = 0;
  uint32_t weight_ = 1;
};

TEST_F(DiskSharesTest, IdleSpaceIsAnybodysAndIsDividedWhenAllWantIt) {
  Restart(6 * kMiB);
  Write(1, 100, 40);
  EXPECT_GT(Has(0), kCapacity / 10 * 8) << "alone, it has all";
  const uint64_t alone = Has(0);
  Write(2, 200, 40);
  EXPECT_LT(Has(0), alone);
  const double share = static_cast<double>(Has(1)) / static_cast<double>(All());
  EXPECT_GT(share, 0.40);
  EXPECT_LT(share, 0.60);
}

TEST_F(DiskSharesTest, AWeightAndAReservationCount) {
  reserved_bytes_ = kCapacity / 2;
  weight_ = 3;
  Restart(6 * kMiB);
  Write(1, 100, 40);
  Write(2, 200, 40);
  Write(3, 300, 40);
  Write(1, 400, 40);
  // Half is the first one's; of the other half three fifths are the second one's.
  EXPECT_GE(Has(0), kCapacity / 2 - kCapacity / 8);
  EXPECT_GT(Has(1), Has(2));
}

TEST_F(DiskSharesTest, ALimitThatIsMadeSmallerEvicts) {
  Restart(6 * kMiB);
  Write(1, 100, 40);
  Budget budget = core_->TenantReports()[0].budget;
  budget.disk_bytes = kCapacity / 4;
  ASSERT_TRUE(core_->SetBudgets({{"a", budget}}).ok());
  EXPECT_LE(Has(0), kCapacity / 4);
  EXPECT_TRUE(core_->TakeTierHint());
  RunTiers();
  ExpectConserved();
  budget.disk_bytes = 4 * kCapacity;
  budget.disk_reserved_bytes = 2 * kCapacity;
  EXPECT_NE(MessageOf(core_->SetBudgets({{"a", budget}})).find("reserve more than there is"),
            std::string::npos);
  budget.disk_bytes = kCapacity;
  EXPECT_NE(MessageOf(core_->SetBudgets({{"a", budget}})).find("disk_reserved_bytes"),
            std::string::npos);
}

}  // namespace
}  // namespace kvasir::core::testing
