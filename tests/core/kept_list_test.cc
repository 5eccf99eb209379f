// KeptList against a plain vector of rows, with older versions of the list still alive.
#include "daemon/core/kept_list.h"

#include <deque>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "daemon/core/account.h"
#include "tests/core/fake_engine.h"

namespace kvasir::core {
namespace {

class KeptListTest : public ::testing::Test {
 protected:
  explicit KeptListTest(uint64_t limit_bytes = 8 * kMiB)
      : pool_(testing::MakeTestPool(16 * kMiB)),
        account_("kept", {0, limit_bytes, 1}, *pool_, nullptr),
        block_geometry_(shm::MakeGroupGeometry(std::vector<shm::LayerRowBytes>{{8, 8}}, 16)),
        small_geometry_(shm::MakeGroupGeometry(std::vector<shm::LayerRowBytes>{{8, 8}}, 2)),
        block_({block_geometry_.bytes, ExtentUse::kKept, 32 * kKiB, 64 * kKiB}, account_),
        small_({small_geometry_.bytes, ExtentUse::kKept, 32 * kKiB, 64 * kKiB}, account_) {}

  KeptGroupSizes Sizes() { return {&block_geometry_, &block_, &small_geometry_, &small_}; }

  std::vector<IncomingRow> Incoming(uint64_t first, uint64_t count) const {
    std::vector<IncomingRow> rows;
    for (uint64_t row = first; row < first + count; ++row) {
      rows.push_back({{row, row + 1, static_cast<TokenId>(row % 7)}, {}});
    }
    return rows;
  }

  static std::vector<uint64_t> RowsOf(const KeptList& list) {
    std::vector<uint64_t> rows;
    for (const KeptRun& run : list.runs()) {
      EXPECT_GT(run.rows, 0U);
      EXPECT_LE(run.first_slot + run.rows, run.group->slots.size());
      for (uint32_t s = run.first_slot; s < run.first_slot + run.rows; ++s) {
        const KeptSlot& slot = run.group->slots[s];
        EXPECT_EQ(slot.rotated_at, slot.row + 1);
        EXPECT_EQ(slot.token, slot.row % 7);
        rows.push_back(slot.row);
      }
    }
    EXPECT_EQ(rows.size(), list.rows());
    return rows;
  }

  static uint64_t SlotsOf(const KeptList& list) {
    std::set<const KeptGroup*> groups;
    uint64_t slots = 0;
    for (const KeptRun& run : list.runs()) {
      if (groups.insert(run.group.get()).second) slots += run.group->geometry().slots;
    }
    return slots;
  }

  std::unique_ptr<HostPool> pool_;
  Account account_;
  const shm::GroupGeometry block_geometry_, small_geometry_;
  GroupAllocator block_, small_;
};

TEST_F(KeptListTest, RandomEditsAgreeWithAVector) {
  std::mt19937_64 random(testing::TestSeed(5));
  std::deque<std::pair<KeptList, std::vector<uint64_t>>> versions(1);
  uint64_t next_row = 0;
  for (int step = 0; step < 3000; ++step) {
    const auto& [list, rows] = versions.back();
    std::vector<uint32_t> drop;
    std::vector<uint64_t> expected;
    const uint64_t drop_of_100 = random() % 4 == 0 ? random() % 100 : 0;
    for (uint32_t i = 0; i < rows.size(); ++i) {
      if (random() % 100 < drop_of_100) {
        drop.push_back(i);
      } else {
        expected.push_back(rows[i]);
      }
    }
    const uint64_t count = expected.size() > 600 ? 0 : random() % 40;
    std::vector<GroupFill> fills;
    const absl::StatusOr<KeptList> edited =
        list.Edit(drop, Incoming(next_row, count), Sizes(), &fills);
    ASSERT_TRUE(edited.ok()) << MessageOf(edited.status());
    for (uint64_t i = 0; i < count; ++i) expected.push_back(next_row++);
    ASSERT_EQ(RowsOf(*edited), expected) << "step " << step;
    for (const GroupFill& fill : fills) ASSERT_EQ(fill.sources.size(), fill.group->slots.size());
    // At least half of every group is used, but for the tail.
    ASSERT_LE(SlotsOf(*edited), 2 * expected.size() + 16) << "step " << step;
    versions.emplace_back(*edited, std::move(expected));
    if (versions.size() > 3) versions.pop_front();
    for (const auto& [old, old_rows] : versions) ASSERT_EQ(RowsOf(old), old_rows);
  }
  versions.clear();
  EXPECT_EQ(block_.held_bytes() + small_.held_bytes(), 0U);
}

TEST_F(KeptListTest, AppendingPacksWholeBlocks) {
  KeptList list;
  for (uint64_t row = 0; row < 400; ++row) {
    std::vector<GroupFill> fills;
    absl::StatusOr<KeptList> edited = list.Edit({}, Incoming(row, 1), Sizes(), &fills);
    ASSERT_TRUE(edited.ok());
    list = *std::move(edited);
    ASSERT_LE(SlotsOf(list), RoundUp(row + 1, 2));  // nothing but the last small group is not full
  }
}

TEST_F(KeptListTest, BadDropsAreRefused) {
  std::vector<GroupFill> fills;
  const absl::StatusOr<KeptList> list = KeptList().Edit({}, Incoming(0, 20), Sizes(), &fills);
  ASSERT_TRUE(list.ok());
  for (const std::vector<uint32_t>& drop :
       {std::vector<uint32_t>{20}, {3, 3}, {5, 4}, {19, 4000000000}}) {
    fills.clear();
    EXPECT_EQ(list->Edit(drop, {}, Sizes(), &fills).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

class TightKeptListTest : public KeptListTest {
 protected:
  TightKeptListTest() : KeptListTest(256 * kKiB) {}
};

TEST_F(TightKeptListTest, AFailedEditLeavesNothingBehind) {
  KeptList list;
  uint64_t rows = 0, failures = 0;
  while (failures < 20) {
    std::vector<GroupFill> fills;
    absl::StatusOr<KeptList> edited = list.Edit({}, Incoming(rows, 30), Sizes(), &fills);
    if (edited.ok()) {
      list = *std::move(edited);
      rows += 30;
      continue;
    }
    ++failures;
    EXPECT_EQ(edited.status().code(), absl::StatusCode::kResourceExhausted);
    fills.clear();
    EXPECT_EQ(RowsOf(list).size(), rows);
    std::set<const KeptGroup*> groups;
    uint64_t bytes = 0;
    for (const KeptRun& run : list.runs()) {
      if (groups.insert(run.group.get()).second) bytes += run.group->geometry().bytes;
    }
    EXPECT_EQ(block_.held_bytes() + small_.held_bytes(), bytes);
  }
  EXPECT_GT(rows, 0U);
}

}  // namespace
}  // namespace kvasir::core
