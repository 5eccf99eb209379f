// Gathering, scattering and moving of groups against plain copies.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "tests/kernels/cuda/machine.h"
#include "tests/kernels/cuda/random.h"

namespace kvasir::kernels::cuda {
namespace {

using machine::Array;
using machine::Execute;
using CopyRowsTest = machine::Test;
using MovePlanesTest = machine::Test;

constexpr std::byte kGuard{0xA5};

TEST_F(CopyRowsTest, GathersByIndexAnyRowSizeFromAndToAnyAddress) {
  std::mt19937 random(1);
  for (const size_t row_bytes : {1U, 3U, 15U, 16U, 17U, 100U, 256U, 384U, 2048U, 2049U}) {
    for (const size_t rows : {0U, 1U, 2U, 37U, 300U}) {
      for (const size_t offset : {0U, 1U, 16U}) {
        const size_t held = 50;
        const Array pool(RandomBytes(held * row_bytes, random), offset);
        const auto picked = RandomIndices(rows, held, random);
        const Array indices(picked);
        const Array got(std::vector<std::byte>(rows * row_bytes + 1, kGuard), offset);
        RowCopy copy = {.rows = rows, .row_bytes = row_bytes};
        copy.from = {.base = pool.bytes(), .stride = row_bytes, .indices = indices.data()};
        copy.to = {.base = got.bytes(), .stride = row_bytes};
        ASSERT_TRUE(Execute(copy).ok());
        const auto source = pool.Read();
        const auto result = got.Read();
        for (size_t row = 0; row < rows; ++row) {
          ASSERT_EQ(
              0, std::memcmp(&result[row * row_bytes], &source[picked[row] * row_bytes], row_bytes))
              << row_bytes << " bytes, row " << row << " of " << rows;
        }
        ASSERT_EQ(result.back(), kGuard);
      }
    }
  }
}

TEST_F(CopyRowsTest, GathersPiecesByAddressAtAStrideAndNothingBetween) {
  std::mt19937 random(2);
  for (const size_t piece : {1U, 100U, 128U, 256U}) {
    const size_t rows = 41, gap = 32, stride = piece + gap;
    const Array pool(RandomBytes(100 * stride, random));
    std::vector<const std::byte*> where;
    for (const uint32_t index : RandomIndices(rows, 99, random)) {
      where.push_back(pool.bytes() + index * stride);
    }
    const Array addresses(where);
    const Array got(std::vector<std::byte>(rows * stride, kGuard));
    RowCopy copy = {.rows = rows, .row_bytes = piece};
    copy.from = {.addresses = addresses.data(), .offset = 16};
    copy.to = {.base = got.bytes(), .stride = stride};
    ASSERT_TRUE(Execute(copy).ok());
    const auto source = pool.Read();
    const auto result = got.Read();
    for (size_t row = 0; row < rows; ++row) {
      const auto at = static_cast<size_t>(where[row] - pool.bytes()) + 16;
      ASSERT_EQ(0, std::memcmp(&result[row * stride], &source[at], piece));
      ASSERT_TRUE(std::all_of(&result[row * stride + piece], &result[row * stride] + stride,
                              [](std::byte byte) { return byte == kGuard; }));
    }
  }
}

TEST_F(CopyRowsTest, ScatteringIsTheWayBack) {
  std::mt19937 random(3);
  for (const size_t row_bytes : {384U, 2048U, 33U}) {
    const size_t rows = 77;
    std::vector<uint32_t> order(rows);
    std::iota(order.begin(), order.end(), 0U);
    std::shuffle(order.begin(), order.end(), random);
    const Array indices(order);
    const Array pool(RandomBytes(rows * row_bytes, random));
    const Array gathered(std::vector<std::byte>(rows * row_bytes));
    const Array back(std::vector<std::byte>(rows * row_bytes));
    RowCopy gather = {.rows = rows, .row_bytes = row_bytes};
    gather.from = {.base = pool.bytes(), .stride = row_bytes, .indices = indices.data()};
    gather.to = {.base = gathered.bytes(), .stride = row_bytes};
    RowCopy scatter = {.rows = rows, .row_bytes = row_bytes};
    scatter.from = {.base = gathered.bytes(), .stride = row_bytes};
    scatter.to = {.base = back.bytes(), .stride = row_bytes, .indices = indices.data()};
    ASSERT_TRUE(Execute(gather).ok());
    ASSERT_TRUE(Execute(scatter).ok());
    EXPECT_EQ(back.Read(), pool.Read());
  }
}

TEST_F(CopyRowsTest, ArgumentsOutOfBoundsAreNamed) {
  std::byte some{};
  RowCopy copy = {.rows = 1, .row_bytes = 0};
  EXPECT_EQ(CheckRowCopy(copy).message(),
            "row bytes out of bounds: row_bytes=0 min=1 max=1073741824");
  copy.row_bytes = 16;
  EXPECT_EQ(CheckRowCopy(copy).message(), "a pointer is null: from");
  copy.from.base = &some;
  EXPECT_EQ(CheckRowCopy(copy).message(), "a pointer is null: to");
  copy.to.base = &some;
  EXPECT_TRUE(CheckRowCopy(copy).ok());
  copy.rows = ~uint64_t{0} / 2;
  EXPECT_EQ(CheckRowCopy(copy).code(), absl::StatusCode::kInvalidArgument);
  copy.rows = uint64_t{1} << 30;
  copy.row_bytes = uint64_t{1} << 20;
  EXPECT_EQ(CheckRowCopy(copy).message(),
            "too much for one launch: units=70368744177664 max=2199023254528");
  copy.rows = (uint64_t{1} << 38) + 1;  // times as many units as the largest row has: wraps
  copy.row_bytes = uint64_t{1} << 30;
  EXPECT_EQ(CheckRowCopy(copy).message(),
            "too much for one launch: rows=274877906945 max=2147483647");
}

// Layers of different sizes, as hybrid models have them; K and V in pools of their own.
TEST_F(MovePlanesTest, GroupsGoToPoolsOfLayersAndBack) {
  std::mt19937 random(4);
  const std::vector<size_t> sizes = {24576, 24576, 1000, 48, 40000, 1};
  const size_t count = 7, blocks = 11;
  size_t group_bytes = 64;  // something before the first plane, and behind the last
  std::vector<size_t> offsets;
  for (const size_t size : sizes) {
    offsets.push_back(group_bytes);
    group_bytes += (size + 63) / 64 * 64;
  }
  std::vector<std::unique_ptr<Array<std::byte>>> pools, groups;
  std::vector<Plane> planes;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const size_t stride = (sizes[i] + 15) / 16 * 16 + 32;
    pools.push_back(std::make_unique<Array<std::byte>>(std::vector(blocks * stride, kGuard)));
    planes.push_back({pools[i]->bytes(), stride, offsets[i], sizes[i]});
  }
  std::vector<std::byte*> where;
  for (size_t group = 0; group < count; ++group) {
    groups.push_back(std::make_unique<Array<std::byte>>(RandomBytes(group_bytes, random)));
    where.push_back(groups[group]->bytes());
  }
  const std::vector<uint32_t> at = {3, 0, 10, 7, 1, 2, 9};
  const Array plane_list(planes);
  const Array group_list(where);
  const Array block_list(at);
  PlaneMove move = {.planes = plane_list.data(),
                    .groups = group_list.data(),
                    .blocks = block_list.data(),
                    .plane_count = static_cast<uint32_t>(planes.size()),
                    .group_count = static_cast<uint32_t>(count),
                    .plane_bytes = *std::max_element(sizes.begin(), sizes.end())};
  ASSERT_TRUE(Execute(move).ok());
  for (size_t i = 0; i < planes.size(); ++i) {
    std::vector<std::byte> expected(blocks * planes[i].stride, kGuard);
    for (size_t group = 0; group < count; ++group) {
      const auto bytes = groups[group]->Read();
      std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(offsets[i]), sizes[i],
                  expected.begin() + static_cast<ptrdiff_t>(at[group] * planes[i].stride));
    }
    EXPECT_EQ(pools[i]->Read(), expected) << "plane " << i;
  }
  std::vector<std::vector<std::byte>> before;
  for (const auto& group : groups) {
    before.push_back(group->Read());
    std::vector<std::byte> emptied = before.back();
    for (size_t i = 0; i < sizes.size(); ++i) {
      std::fill_n(emptied.begin() + static_cast<ptrdiff_t>(offsets[i]), sizes[i], std::byte{});
    }
    machine::Upload(group->bytes(), emptied.data(), emptied.size());
  }
  move.direction = Direction::kToGroups;
  ASSERT_TRUE(Execute(move).ok());
  for (size_t group = 0; group < count; ++group) {
    EXPECT_EQ(groups[group]->Read(), before[group]) << "group " << group;
  }
}

TEST_F(MovePlanesTest, ArgumentsOutOfBoundsAreNamed) {
  PlaneMove move = {.plane_count = 0, .group_count = 1, .plane_bytes = 16};
  EXPECT_EQ(CheckPlaneMove(move).message(), "there is no plane: plane_count=0 min=1");
  move.plane_count = 1;
  EXPECT_EQ(CheckPlaneMove(move).message(), "a pointer is null: planes");
  move.group_count = 0;
  EXPECT_TRUE(Execute(move).ok());
  move.plane_bytes = 0;
  EXPECT_EQ(CheckPlaneMove(move).message(),
            "plane bytes out of bounds: plane_bytes=0 min=1 max=1073741824");
}

}  // namespace
}  // namespace kvasir::kernels::cuda
