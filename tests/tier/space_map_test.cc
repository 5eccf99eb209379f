#include "allocator/tier/space_map.h"

#include <numeric>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace kvasir {
namespace {

uint64_t UnitsIn(const UnitRuns& runs) {
  return std::accumulate(runs.begin(), runs.end(), uint64_t{0},
                         [](uint64_t sum, const UnitRun& run) { return sum + run.count; });
}

TEST(SpaceMapTest, GivesOneRunWhereThereIsOne) {
  SpaceMap map(200);
  EXPECT_EQ(map.Take(150), (UnitRuns{{0, 150}}));
  EXPECT_EQ(map.Take(50), (UnitRuns{{150, 50}}));
  EXPECT_EQ(map.free_units(), 0U);
  EXPECT_EQ(map.Take(1), std::nullopt);
}

TEST(SpaceMapTest, EveryFreeUnitCanBeTakenHoweverScattered) {
  SpaceMap map(1000);
  std::vector<UnitRun> odd;
  for (int i = 0; i < 1000; ++i) {
    const UnitRuns runs = *map.Take(1);
    if (runs[0].first % 2 == 1) odd.push_back(runs[0]);
  }
  map.Give(odd);
  const std::optional<UnitRuns> taken = map.Take(500);
  ASSERT_TRUE(taken.has_value());
  EXPECT_EQ(taken->size(), 500U);
  EXPECT_EQ(UnitsIn(*taken), 500U);
  EXPECT_EQ(map.free_units(), 0U);
}

TEST(SpaceMapTest, NoUnitIsGivenTwice) {
  constexpr uint64_t kUnits = 777;
  SpaceMap map(kUnits);
  std::vector<bool> taken(kUnits, false);
  std::vector<UnitRuns> held;
  std::mt19937 random(7);
  const auto mark = [&taken](const UnitRuns& runs, bool value) {
    for (const UnitRun& run : runs) {
      for (uint32_t i = run.first; i < run.first + run.count; ++i) {
        ASSERT_NE(taken.at(i), value);
        taken[i] = value;
      }
    }
  };
  for (int step = 0; step < 20'000; ++step) {
    if (random() % 2 == 0 || held.empty()) {
      const uint64_t wanted = 1 + random() % 40;
      const bool fits = wanted <= map.free_units();
      std::optional<UnitRuns> runs = map.Take(wanted);
      ASSERT_EQ(runs.has_value(), fits);
      if (!runs) continue;
      ASSERT_EQ(UnitsIn(*runs), wanted);
      mark(*runs, true);
      held.push_back(*std::move(runs));
    } else {
      const size_t i = random() % held.size();
      mark(held[i], false);
      map.Give(held[i]);
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(i));
    }
    ASSERT_EQ(map.free_units(),
              static_cast<uint64_t>(std::count(taken.begin(), taken.end(), false)));
  }
}

TEST(SpaceMapTest, TakesNamedRunsWholeOrNotAtAll) {
  SpaceMap map(100);
  EXPECT_TRUE(map.TakeThese(UnitRuns{{10, 10}, {64, 36}}));
  EXPECT_EQ(map.free_units(), 54U);
  EXPECT_FALSE(map.TakeThese(UnitRuns{{0, 5}, {19, 2}}));  // one unit is taken
  EXPECT_FALSE(map.TakeThese(UnitRuns{{0, 5}, {4, 2}}));   // one unit twice
  EXPECT_FALSE(map.TakeThese(UnitRuns{{0, 5}, {99, 2}}));  // behind the end
  EXPECT_FALSE(map.TakeThese(UnitRuns{{0, 5}, {5, 0}}));   // empty
  EXPECT_FALSE(map.TakeThese(UnitRuns{{0, 5}, {4'000'000'000U, 1'000'000'000U}}));
  EXPECT_EQ(map.free_units(), 54U);
}

TEST(SpaceMapTest, GrowsAndShrinks) {
  SpaceMap map(64);
  const UnitRuns held = *map.Take(10);
  map.Resize(200);
  EXPECT_EQ(map.free_units(), 190U);
  const UnitRuns gone = map.TakeFreeFrom(20);
  EXPECT_EQ(UnitsIn(gone), 180U);
  EXPECT_EQ(UnitsIn(*map.Take(10)), 10U);
  EXPECT_EQ(map.Take(1), std::nullopt);
  map.Give(gone);
  map.Resize(20);
  EXPECT_EQ(map.units(), 20U);
  EXPECT_EQ(map.free_units(), 0U);
}

TEST(SpaceMapTest, PiecesEndWhereAreasEnd) {
  const UnitRuns runs = {{14, 4}, {40, 1}};
  const std::vector<Piece> pieces = PiecesOf(runs, 10, 160, 45);
  ASSERT_EQ(pieces.size(), 3U);
  EXPECT_EQ(pieces[0].area, 0U);
  EXPECT_EQ(pieces[0].offset, 140U);
  EXPECT_EQ(pieces[0].bytes, 20U);
  EXPECT_EQ(pieces[1].area, 1U);
  EXPECT_EQ(pieces[1].offset, 0U);
  EXPECT_EQ(pieces[1].bytes, 20U);
  EXPECT_EQ(pieces[2].area, 2U);
  EXPECT_EQ(pieces[2].offset, 80U);
  EXPECT_EQ(pieces[2].bytes, 5U);
}

}  // namespace
}  // namespace kvasir
