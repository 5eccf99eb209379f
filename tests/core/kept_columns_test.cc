// KeptList::Rebuild against plain vectors, a column each, with older versions still alive.
#include <algorithm>
#include <deque>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "daemon/core/account.h"
#include "daemon/core/kept_list.h"
#include "tests/core/fake_engine.h"

namespace kvasir::core {
namespace {

constexpr uint32_t kColumns = 3;

class KeptColumnsTest : public ::testing::Test {
 protected:
  using Columns = std::vector<std::vector<uint64_t>>;  // rows of each column

  KeptColumnsTest()
      : pool_(testing::MakeTestPool(16 * kMiB)),
        account_("kept", {0, 8 * kMiB, 1}, *pool_, nullptr),
        block_geometry_(Geometry(16)),
        small_geometry_(Geometry(2)),
        block_({block_geometry_.bytes, ExtentUse::kKept, 32 * kKiB, 64 * kKiB}, account_),
        small_({small_geometry_.bytes, ExtentUse::kKept, 32 * kKiB, 64 * kKiB}, account_) {}

  static shm::GroupGeometry Geometry(uint32_t slots) {
    return shm::MakeGroupGeometry(std::vector<shm::LayerRowBytes>{{24, 24}}, slots, {kColumns, 0});
  }
  KeptGroupSizes Sizes() { return {&block_geometry_, &block_, &small_geometry_, &small_}; }

  static std::vector<IncomingRow> Recent(uint64_t first, uint64_t count) {
    std::vector<IncomingRow> rows;
    for (uint64_t row = first; row < first + count; ++row) {
      rows.push_back({{row, row, static_cast<TokenId>(row % 7)}, {}});
    }
    return rows;
  }

  static Columns RowsOf(const KeptList& list) {
    Columns columns(kColumns);
    for (const KeptRun& run : list.runs()) {
      EXPECT_LE(run.first_slot + run.rows, run.group->rows());
      for (uint32_t c = 0; c < kColumns; ++c) {
        for (uint32_t s = run.first_slot; s < run.first_slot + run.rows; ++s) {
          EXPECT_EQ(run.group->Slot(c, s).token, run.group->Slot(c, s).row % 7);
          columns[c].push_back(run.group->Slot(c, s).row);
        }
      }
    }
    EXPECT_EQ(columns[0].size(), list.rows());
    return columns;
  }

  std::unique_ptr<HostPool> pool_;
  Account account_;
  const shm::GroupGeometry block_geometry_, small_geometry_;
  GroupAllocator block_, small_;
};

// `size` of the `entries` entries, of which the first `stay` are always there.
KeepSet RandomSet(std::mt19937_64& random, uint64_t entries, uint64_t size, uint64_t stay) {
  KeepSet all(entries);
  std::iota(all.begin(), all.end(), 0U);
  std::shuffle(all.begin() + static_cast<ptrdiff_t>(stay), all.end(), random);
  all.resize(size);
  std::sort(all.begin(), all.end());
  return all;
}

TEST_F(KeptColumnsTest, RandomRebuildsAgreeWithVectors) {
  std::mt19937_64 random(testing::TestSeed(3));
  std::deque<std::pair<KeptList, Columns>> versions(1);
  versions.back().second.resize(kColumns);
  uint64_t next_row = 0, shared = 0;
  for (int step = 0; step < 1500; ++step) {
    const auto& [list, columns] = versions.back();
    const std::vector<IncomingRow> recent = Recent(next_row, random() % 40);
    next_row += recent.size();
    const uint64_t entries = list.rows() + recent.size();
    const uint64_t size = std::min<uint64_t>(entries, random() % 120);
    const uint64_t stay = random() % 2 == 0 ? std::min<uint64_t>(size, list.rows()) : 0;
    std::vector<KeepSet> keep;
    Columns expected(kColumns);
    for (uint32_t c = 0; c < kColumns; ++c) {
      keep.push_back(RandomSet(random, entries, size, stay));
      for (const uint32_t entry : keep.back()) {
        expected[c].push_back(entry < list.rows() ? columns[c][entry]
                                                  : recent[entry - list.rows()].slot.row);
      }
    }
    std::vector<GroupFill> fills;
    const absl::StatusOr<KeptList> rebuilt = list.Rebuild(keep, recent, Sizes(), &fills);
    ASSERT_TRUE(rebuilt.ok()) << MessageOf(rebuilt.status());
    ASSERT_EQ(RowsOf(*rebuilt), expected) << "step " << step;
    for (const GroupFill& fill : fills) ASSERT_EQ(fill.sources.size(), fill.group->slots.size());
    if (!rebuilt->runs().empty() && !list.runs().empty()) {
      shared += rebuilt->runs().front().group == list.runs().front().group ? 1 : 0;
    }
    versions.emplace_back(*rebuilt, std::move(expected));
    if (versions.size() > 3) versions.pop_front();
    for (const auto& [old, old_columns] : versions) ASSERT_EQ(RowsOf(old), old_columns);
  }
  EXPECT_GT(shared, 50U);  // groups that stay as they are are not copied
  versions.clear();
  EXPECT_EQ(block_.held_bytes() + small_.held_bytes(), 0U);
}

TEST_F(KeptColumnsTest, BadSetsAreRefused) {
  const std::vector<IncomingRow> recent = Recent(0, 20);
  const struct {
    std::vector<KeepSet> keep;
    const char* message;
  } cases[] = {
      {{{0, 1}, {0, 1}}, "columns=2 expected=3"},
      {{{0, 1}, {0, 1}, {0}}, "other sizes: column=2"},
      {{{0, 1}, {1, 0}, {0, 1}}, "not ascending: column=1"},
      {{{0, 1}, {0, 1}, {5, 5}}, "not ascending: column=2"},
      {{{0, 20}, {0, 1}, {0, 1}}, "out of range: column=0 entry=20 entries=20"},
  };
  for (const auto& test : cases) {
    std::vector<GroupFill> fills;
    const absl::Status status = KeptList().Rebuild(test.keep, recent, Sizes(), &fills).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(MessageOf(status), ::testing::HasSubstr(test.message));
    EXPECT_EQ(block_.held_bytes() + small_.held_bytes(), 0U);
  }
}

}  // namespace
}  // namespace kvasir::core
