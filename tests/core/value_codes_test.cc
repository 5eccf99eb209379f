// Kept rows whose values are coded one by one: coded once, from the row as written, and moved as
// codes from then on, in each column by itself.
#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "daemon/core/account.h"
#include "daemon/core/copy_job.h"
#include "daemon/core/kept_list.h"
#include "kernels/encoding/row_code.h"
#include "kernels/row_convert.h"
#include "tests/core/fake_engine.h"

namespace kvasir::core {
namespace {

constexpr uint32_t kHeads = 3, kDims = 16, kSlots = 16;
constexpr kernels::RotatedRow kCode{.dims = kDims, .bits = 3};
constexpr uint32_t kRowBytes = kHeads * kDims * 2;
constexpr uint64_t kRows = 200;

shm::GroupGeometry CodedGeometry(uint32_t slots, uint32_t columns) {
  const auto v_bytes = static_cast<uint32_t>(kHeads * kernels::RotatedRowBytes(kCode));
  shm::GroupGeometry geometry = shm::MakeGroupGeometry(
      std::vector<shm::LayerRowBytes>{{kRowBytes, v_bytes}}, slots, {columns, 0});
  geometry.v_bits = kCode.bits;
  return geometry;
}

// With `columns` sets of rows: one for each head, or one for all.
class ValueCodesTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  ValueCodesTest()
      : pool_(testing::MakeTestPool(16 * kMiB)),
        account_("kept", {0, 8 * kMiB, 1}, *pool_, nullptr),
        recent_(
            shm::MakeGroupGeometry(std::vector<shm::LayerRowBytes>{{kRowBytes, kRowBytes}}, kRows)),
        block_geometry_(CodedGeometry(kSlots, GetParam())),
        small_geometry_(CodedGeometry(2, GetParam())),
        block_({block_geometry_.bytes, ExtentUse::kKept, 32 * kKiB, 64 * kKiB}, account_),
        small_({small_geometry_.bytes, ExtentUse::kKept, 32 * kKiB, 64 * kKiB}, account_),
        memory_(recent_.bytes) {
    std::mt19937 random(4);
    std::normal_distribution<float> normal;
    for (const uint64_t plane : {recent_.k_off[0], recent_.v_off[0]}) {
      for (uint64_t i = 0; i < kRows * kHeads * kDims; ++i) {
        kernels::StoreElement(kernels::RowType::kF16, memory_.data() + plane, i, normal(random));
      }
    }
    written_ = memory_;
    rope_.heads_keep_own = GetParam() > 1;
    rope_.layers = {{.type = kernels::RowType::kF16, .kv_heads = kHeads, .head_dim = kDims}};
  }

  std::vector<IncomingRow> Recent(uint64_t first, uint64_t count) const {
    std::vector<IncomingRow> rows;
    for (uint64_t row = first; row < first + count; ++row) {
      rows.push_back({{row, row, 0}, {memory_.data(), &recent_, static_cast<uint32_t>(row), 0}});
    }
    return rows;
  }

  // What a row was when it was written.
  const std::byte* Written(uint64_t plane, uint64_t row, uint32_t head) const {
    return written_.data() + plane + row * kRowBytes + size_t{head} * kDims * 2;
  }

  void ExpectRows(const KeptList& list) const {
    const uint64_t v_bytes = kernels::RotatedRowBytes(kCode);
    for (const KeptRun& run : list.runs()) {
      const shm::GroupGeometry& geometry = run.group->geometry();
      const std::byte* const base = run.group->group().data();
      for (uint32_t i = run.first_slot; i < run.first_slot + run.rows; ++i) {
        for (uint32_t head = 0; head < kHeads; ++head) {
          const uint64_t row = run.group->Slot(GetParam() > 1 ? head : 0, i).row;
          ASSERT_EQ(std::memcmp(base + geometry.k_off[0] + i * kRowBytes + head * kDims * 2,
                                Written(recent_.k_off[0], row, head), kDims * 2),
                    0)
              << "keys of row " << row;
          float values[kDims];
          std::byte code[64];
          for (uint32_t dim = 0; dim < kDims; ++dim) {
            values[dim] = kernels::LoadElement(kernels::RowType::kF16,
                                               Written(recent_.v_off[0], row, head), dim);
          }
          kernels::EncodeRotatedRow(kCode, values, code);
          ASSERT_EQ(std::memcmp(base + geometry.v_off[0] + i * kHeads * v_bytes + head * v_bytes,
                                code, v_bytes),
                    0)
              << "values of row " << row;
        }
      }
    }
  }

  std::unique_ptr<HostPool> pool_;
  Account account_;
  const shm::GroupGeometry recent_, block_geometry_, small_geometry_;
  GroupAllocator block_, small_;
  std::vector<std::byte> memory_, written_;
  LaneRope rope_;
};

TEST_P(ValueCodesTest, AreMadeOnceAndMovedFromThenOn) {
  std::mt19937_64 random(testing::TestSeed(3));
  const KeptGroupSizes sizes{&block_geometry_, &block_, &small_geometry_, &small_};
  KeptList list;
  uint64_t next = 0, moved = 0;
  while (next < kRows) {
    const uint64_t count = std::min<uint64_t>(kRows - next, random() % 20);
    const std::vector<IncomingRow> recent = Recent(next, count);
    const uint64_t entries = list.rows() + count;
    std::vector<KeepSet> keep(GetParam());
    for (KeepSet& set : keep) {
      set.resize(entries);
      std::iota(set.begin(), set.end(), 0U);
      std::shuffle(set.begin(), set.end(), random);
      set.resize(std::min<uint64_t>(entries, 40));
      std::sort(set.begin(), set.end());
      moved += static_cast<uint64_t>(std::count_if(
          set.begin(), set.end(), [&](uint32_t entry) { return entry < list.rows(); }));
    }
    std::vector<GroupFill> fills;
    const absl::StatusOr<KeptList> rebuilt = list.Rebuild(keep, recent, sizes, &fills);
    ASSERT_TRUE(rebuilt.ok()) << MessageOf(rebuilt.status());
    for (const GroupFill& fill : fills) FillGroup(fill, rope_);
    list = *rebuilt;
    fills.clear();
    ExpectRows(list);
    // What lies in recent is the engine's again.
    std::fill_n(memory_.begin() + static_cast<ptrdiff_t>(recent_.v_off[0] + next * kRowBytes),
                count * kRowBytes, std::byte{0x5A});
    next += count;
  }
  EXPECT_GT(moved, 500U);
  list = {};
  EXPECT_EQ(block_.held_bytes() + small_.held_bytes(), 0U);
}

INSTANTIATE_TEST_SUITE_P(Columns, ValueCodesTest, ::testing::Values(1U, kHeads));

}  // namespace
}  // namespace kvasir::core
