// Where rows lie in a group, for shapes that are easy to get wrong.
#include "proto/shm/group_geometry.h"

#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace kvasir::shm {
namespace {

// Planes follow each other, aligned, without overlap; the trailer comes last, on a page of its own.
void ExpectSound(const GroupGeometry& geometry, const std::vector<LayerRowBytes>& layers) {
  uint64_t end = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    EXPECT_EQ(geometry.k_off[i] % kPlaneAlignment, 0U);
    EXPECT_GE(geometry.k_off[i], end);
    end = geometry.k_off[i] + uint64_t{layers[i].k} * geometry.slots;
    EXPECT_EQ(geometry.v_off[i] % kPlaneAlignment, 0U);
    EXPECT_GE(geometry.v_off[i], end);
    end = geometry.v_off[i] + uint64_t{layers[i].v} * geometry.slots;
  }
  EXPECT_GE(geometry.pos_off, end);
  EXPECT_EQ(geometry.pos_off % kPageBytes, 0U);
  EXPECT_EQ(geometry.tok_off, geometry.pos_off + 4 * geometry.slots);
  EXPECT_GE(geometry.bytes, geometry.tok_off + 4 * geometry.slots);
  EXPECT_EQ(geometry.bytes % kPageBytes, 0U);
}

TEST(GroupGeometryTest, OneLayer) {
  const GroupGeometry geometry = MakeGroupGeometry(std::vector<LayerRowBytes>{{64, 32}}, 16);
  EXPECT_EQ(geometry.k_off, std::vector<uint64_t>{0});
  EXPECT_EQ(geometry.v_off, std::vector<uint64_t>{1024});
  EXPECT_EQ(geometry.pos_off, 4096U);
  EXPECT_EQ(geometry.tok_off, 4096U + 64);
  EXPECT_EQ(geometry.bytes, 8192U);
}

TEST(GroupGeometryTest, LayersWithoutValuesAndOddRows) {
  const std::vector<LayerRowBytes> layers = {{1152, 0}, {2, 6}, {62, 66}, {1, 0}, {130, 4}};
  for (const uint32_t slots : {2U, 4U, 16U, 32U, 64U, 128U}) {
    ExpectSound(MakeGroupGeometry(layers, slots), layers);
  }
  const GroupGeometry mla = MakeGroupGeometry(layers, 16);
  EXPECT_EQ(mla.v_off[0], mla.k_off[1]);  // an empty plane takes no room
}

TEST(GroupGeometryTest, TheLargestShapesDoNotOverflow) {
  const std::vector<LayerRowBytes> layers(32, LayerRowBytes{1 << 20, 1 << 20});
  const GroupGeometry geometry = MakeGroupGeometry(layers, 128);
  ExpectSound(geometry, layers);
  EXPECT_GT(geometry.bytes, uint64_t{8} << 30);
}

TEST(GroupGeometryTest, SlotsChosenForTheModel) {
  EXPECT_EQ(DefaultSlotsPerBlock(1), 128U);
  EXPECT_EQ(DefaultSlotsPerBlock(2 * kMiB / 128), 128U);
  EXPECT_EQ(DefaultSlotsPerBlock(2 * kMiB / 128 + 1), 64U);
  EXPECT_EQ(DefaultSlotsPerBlock(2 * kMiB / 32), 32U);
  EXPECT_EQ(DefaultSlotsPerBlock(2 * kMiB / 32 + 1), 16U);
  EXPECT_EQ(DefaultSlotsPerBlock(64 * kMiB), 16U);
  EXPECT_EQ(SmallGroupSlots(16), 2U);
  EXPECT_EQ(SmallGroupSlots(128), 16U);
}

}  // namespace
}  // namespace kvasir::shm
