#include "allocator/tier/rendezvous_tier.h"

#include <memory>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "allocator/tier/host_tier.h"
#include "base/error.h"
#include "tests/tier/fake_tier.h"
#include "tests/tier/tier_blocks.h"

namespace kvasir::testing {
namespace {

std::unique_ptr<RendezvousTier> Over(const std::vector<std::string>& names,
                                     std::vector<FakeTier*>* fakes = nullptr) {
  std::vector<NamedTier> tiers;
  for (const std::string& name : names) {
    auto fake = std::make_unique<FakeTier>();
    if (fakes != nullptr) fakes->push_back(fake.get());
    tiers.push_back({name, std::move(fake)});
  }
  auto tier = RendezvousTier::Create(std::move(tiers));
  EXPECT_TRUE(tier.ok()) << tier.status();
  return *std::move(tier);
}

TEST(RendezvousTierTest, SharesAreAboutEqual) {
  const auto tier = Over({"a:1", "b:1", "c:1", "d:1"});
  std::vector<int> share(4);
  for (uint64_t number = 0; number < 40'000; ++number) ++share[tier->TierOf(KeyOf(number))];
  for (const int each : share) {
    EXPECT_GT(each, 9'600);
    EXPECT_LT(each, 10'400);
  }
}

TEST(RendezvousTierTest, TheOrderOfTheNamesDoesNotMatter) {
  const std::vector<std::string> names = {"a:1", "b:1", "c:1"};
  const std::vector<std::string> turned = {"c:1", "a:1", "b:1"};
  const auto one = Over(names), other = Over(turned);
  for (uint64_t number = 0; number < 1000; ++number) {
    EXPECT_EQ(names[one->TierOf(KeyOf(number))], turned[other->TierOf(KeyOf(number))]);
  }
}

TEST(RendezvousTierTest, ATierMoreTakesItsShareAndMovesNothingElse) {
  const auto three = Over({"a:1", "b:1", "c:1"}), four = Over({"a:1", "b:1", "c:1", "d:1"});
  int moved = 0;
  for (uint64_t number = 0; number < 10'000; ++number) {
    const size_t before = three->TierOf(KeyOf(number)), after = four->TierOf(KeyOf(number));
    if (before == after) continue;
    EXPECT_EQ(after, 3U);
    ++moved;
  }
  EXPECT_GT(moved, 2'200);
  EXPECT_LT(moved, 2'800);
}

TEST(RendezvousTierTest, ATierThatIsGoneCostsItsShareAlone) {
  std::vector<FakeTier*> fakes;
  const auto tier = Over({"a:1", "b:1", "c:1"}, &fakes);
  fakes[1]->outcome = ReadOutcome::kTimeout;
  fakes[1]->status = Unavailable("gone");
  std::set<size_t> met;
  for (uint64_t number = 0; number < 50; ++number) {
    const size_t home = tier->TierOf(KeyOf(number));
    met.insert(home);
    EXPECT_EQ(OutcomeOf(*tier, number, 10) == "timeout", home == 1) << number;
    EXPECT_EQ(WriteBlock(*tier, number, 10).ok(), home != 1) << number;
  }
  EXPECT_EQ(met.size(), 3U);
  EXPECT_TRUE(absl::IsUnavailable(tier->Flush()));
  EXPECT_EQ(fakes[2]->calls > 0, true);
}

TEST(RendezvousTierTest, RefusesNoTierAndOneNameTwice) {
  EXPECT_TRUE(absl::IsInvalidArgument(RendezvousTier::Create({}).status()));
  std::vector<NamedTier> twice;
  for (int i = 0; i < 2; ++i) twice.push_back({"a:1", std::make_unique<FakeTier>()});
  EXPECT_TRUE(absl::IsInvalidArgument(RendezvousTier::Create(std::move(twice)).status()));
}

}  // namespace
}  // namespace kvasir::testing
