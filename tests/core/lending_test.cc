// Lending on its own: who may take what, who owes whom.
#include "daemon/core/lending.h"

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "tests/core/fake_engine.h"

namespace kvasir::core::testing {
namespace {

using std::chrono::milliseconds;

constexpr uint64_t kExtent = 32 * kKiB;
constexpr uint64_t kPool = 96 * kExtent;  // three extents of it are not lent

class LendingTest : public ::testing::Test {
 protected:
  // What it takes goes back before the account does.
  struct Owner final {
    Account account;
    std::vector<std::unique_ptr<Extent>> extents;
    Owner(const std::string& name, const Budget& budget, HostPool& pool, Lender& lender)
        : account(name, budget, pool, &lender) {}
    ~Owner() { GiveBack(extents.size()); }
    void GiveBack(size_t count) {
      for (; count > 0; --count) {
        account.ReturnExtent(std::move(extents.back()));
        extents.pop_back();
      }
      (void)account.Settle();
    }
  };

  Owner& Add(const std::string& name, const Budget& budget) {
    owners_.push_back(std::make_unique<Owner>(name, budget, *pool_, lending_));
    lending_.Add(owners_.back()->account);
    return *owners_.back();
  }
  absl::Status Take(Owner& owner) {
    absl::StatusOr<std::unique_ptr<Extent>> extent =
        owner.account.TakeExtent(kExtent, ExtentUse::kKept);
    if (extent.ok()) owner.extents.push_back(*std::move(extent));
    return extent.status();
  }
  // As many as it gets.
  uint64_t TakeAll(Owner& owner) {
    while (Take(owner).ok()) {
    }
    return owner.account.charged_bytes() / kExtent;
  }

  std::unique_ptr<HostPool> pool_ = MakeTestPool(kPool);
  Instant now_ = Instant() + milliseconds(1);
  Lending lending_{*pool_, now_};
  std::vector<std::unique_ptr<Owner>> owners_;
};

TEST_F(LendingTest, OneTenantHasThePool) {
  Owner& only = Add("only", {0, kPool, 1});
  EXPECT_EQ(lending_.GuaranteedBytes(only.account), kPool);
  EXPECT_EQ(TakeAll(only), 96U);
  EXPECT_TRUE(lending_.Debts().empty());
}

TEST_F(LendingTest, IdleMemoryIsLentButForTheSpare) {
  Owner& owner = Add("owner", {kPool / 2, kPool, 1});
  Owner& borrower = Add("borrower", {0, kPool, 1});
  EXPECT_EQ(TakeAll(borrower), 93U);
  EXPECT_GE(93.0 / 96, 0.95);
  // An owner's first extents are there at once.
  EXPECT_TRUE(Take(owner).ok());
  EXPECT_TRUE(Take(owner).ok());
  EXPECT_TRUE(Take(owner).ok());
  const absl::Status fourth = Take(owner);
  EXPECT_EQ(fourth.code(), absl::StatusCode::kResourceExhausted) << fourth;
}

TEST_F(LendingTest, WhoIsAboveItsShareOwesTheOwner) {
  Owner& owner = Add("owner", {kPool / 2, kPool, 1});
  Owner& borrower = Add("borrower", {0, kPool, 1});
  int woken = 0;
  lending_.set_wake([&] { ++woken; });
  EXPECT_EQ(TakeAll(borrower), 93U);
  EXPECT_EQ(woken, 0) << "nobody owes the borrower anything";
  EXPECT_EQ(TakeAll(owner), 3U);
  EXPECT_GE(woken, 1);
  EXPECT_TRUE(lending_.IsOwed(owner.account));
  EXPECT_FALSE(lending_.IsOwed(borrower.account));
  const std::vector<Lending::Debt> debts = lending_.Debts();
  ASSERT_EQ(debts.size(), 1U);
  EXPECT_EQ(debts[0].account, &borrower.account);
  // Twice what is not lent, which it is likely to want, and that itself.
  EXPECT_EQ(debts[0].bytes, 9 * kExtent);
  // What comes back is not for the borrower, though it asks first.
  borrower.GiveBack(9);
  EXPECT_FALSE(Take(borrower).ok());
  for (int i = 0; i < 6; ++i) EXPECT_TRUE(Take(owner).ok());
  EXPECT_TRUE(lending_.Debts().empty());
}

TEST_F(LendingTest, InOverloadSharesFollowWeights) {
  std::vector<Owner*> all;
  for (const uint32_t weight : {1U, 2U, 4U}) {
    all.push_back(&Add("t" + std::to_string(weight), {0, kPool, weight}));
  }
  EXPECT_EQ(TakeAll(*all[0]), 93U);
  // All want more, all the time; what is owed is paid, an extent at a time.
  for (int step = 0; step < 500; ++step) {
    now_ += milliseconds(5);
    for (Owner* owner : all) (void)Take(*owner);
    for (const Lending::Debt& debt : lending_.Debts()) {
      for (Owner* owner : all) {
        if (&owner->account == debt.account) owner->GiveBack(1);
      }
    }
  }
  for (size_t i = 0; i < all.size(); ++i) {
    const double share = 96.0 * (1 << i) / 7;
    EXPECT_NEAR(static_cast<double>(all[i]->account.charged_bytes()) / kExtent, share, 1.01) << i;
  }
}

TEST_F(LendingTest, WhoMayNotBorrowHasItsOwnPartAlone) {
  Owner& root = Add("root", {0, kPool, 1});
  (void)Add("other", {0, kPool, 3});
  root.account.set_may_borrow(false);
  EXPECT_EQ(TakeAll(root), 24U);
  const absl::Status why = Take(root);
  EXPECT_EQ(why.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(MessageOf(why).find("may not borrow"), std::string::npos) << why;
  EXPECT_TRUE(lending_.Debts().empty());
}

TEST_F(LendingTest, AClaimIsForgottenWhenNobodyMakesItAgain) {
  Owner& owner = Add("owner", {kPool / 2, kPool, 1});
  Owner& borrower = Add("borrower", {0, kPool, 1});
  (void)TakeAll(borrower);
  (void)TakeAll(owner);
  EXPECT_TRUE(lending_.HasClaims());
  now_ += Lending::kClaimTime - milliseconds(1);
  EXPECT_EQ(lending_.Debts().size(), 1U);
  now_ += milliseconds(1);
  EXPECT_TRUE(lending_.Debts().empty());
  EXPECT_FALSE(lending_.HasClaims());
}

TEST_F(LendingTest, CallsDoNotWaitForEver) {
  Owner& owner = Add("owner", {kPool / 2, kPool, 1});
  Owner& borrower = Add("borrower", {0, kPool, 1});
  (void)TakeAll(borrower);
  (void)TakeAll(owner);
  for (Instant end = now_ + Lending::kWaitTime; now_ < end; now_ += milliseconds(50)) {
    ASSERT_TRUE(lending_.IsOwed(owner.account));
    ASSERT_FALSE(Take(owner).ok());
  }
  EXPECT_FALSE(lending_.IsOwed(owner.account));
  EXPECT_FALSE(lending_.Debts().empty()) << "it is owed all the same, who asks again gets it";
}

TEST_F(LendingTest, ABorrowerIsOwedItsFairPartOfWhatIsIdle) {
  (void)Add("idle", {0, kPool, 1});
  Owner& early = Add("early", {0, kPool, 1});
  Owner& late = Add("late", {0, kPool, 1});
  EXPECT_EQ(TakeAll(early), 93U);
  // Half of the pool, not a third: the idle one wants nothing.
  for (int step = 0; step < 200; ++step) {
    now_ += milliseconds(5);
    (void)Take(late);
    for (const Lending::Debt& debt : lending_.Debts()) {
      ASSERT_EQ(debt.account, &early.account);
      early.GiveBack(1);
    }
  }
  EXPECT_NEAR(static_cast<double>(late.account.charged_bytes()) / kExtent, 48, 2);
}

}  // namespace
}  // namespace kvasir::core::testing
