// The index against a map of the standard kind, over random inserts and erases.
#include "index/block_index.h"

#include <random>
#include <unordered_map>
#include <vector>

#include <gtest/gtest.h>

namespace kvasir {
namespace {

// Few low bits: long probes that wrap around are common.
ChainKey KeyOf(uint64_t i) { return {i % 7 + (i % 3) * 60, i * 0x9e3779b97f4a7c15}; }

TEST(BlockIndexTest, AgreesWithAMap) {
  BlockIndex index(300);
  std::unordered_map<uint64_t, BlockId> model;
  std::mt19937_64 random(5);
  for (int step = 0; step < 20000; ++step) {
    const uint64_t i = random() % 400;
    const auto known = model.find(i);
    ASSERT_EQ(index.Find(KeyOf(i)), known == model.end() ? kNoBlock : known->second);
    if (random() % 3 != 0) {
      const BlockId block = index.Insert(KeyOf(i), kNoBlock);
      if (known != model.end() || model.size() == 300) {
        ASSERT_EQ(block, kNoBlock);
      } else {
        ASSERT_NE(block, kNoBlock);
        ASSERT_EQ(index[block].key, KeyOf(i));
        ASSERT_EQ(index[block].resident, 0);
        index[block].refs = 9;  // must not be seen by who gets the handle next
        model[i] = block;
      }
    } else if (known != model.end()) {
      ASSERT_EQ(index[known->second].refs, 9);
      index.Erase(known->second);
      model.erase(known);
    }
    ASSERT_EQ(index.size(), model.size());
  }
  for (uint64_t i = 0; i < 400; ++i) {
    const auto known = model.find(i);
    ASSERT_EQ(index.Find(KeyOf(i)), known == model.end() ? kNoBlock : known->second);
  }
}

TEST(BlockIndexTest, ANewRecordIsEmpty) {
  BlockIndex index(10);
  const BlockId first = index.Insert({1, 1}, kNoBlock);
  index[first].kids = 3;
  index[first].resident = 1;
  index.Erase(first);
  const BlockId second = index.Insert({2, 2}, 7);
  EXPECT_EQ(second, first);
  EXPECT_EQ(index[second].kids, 0U);
  EXPECT_EQ(index[second].resident, 0);
  EXPECT_EQ(index[second].parent, 7U);
  EXPECT_EQ(index[second].tail, kNoHandle);
}

TEST(BlockIndexTest, LookupFindsTheLongestPrefix) {
  BlockIndex index(10);
  const std::vector<ChainKey> chain = {{1, 0}, {2, 0}, {3, 0}, {4, 0}};
  EXPECT_EQ(index.Lookup(chain), (PrefixMatch{0, 0}));
  for (size_t i = 0; i < 3; ++i) index.Insert(chain[i], kNoBlock);
  EXPECT_EQ(index.Lookup(chain), (PrefixMatch{3, 0}));
  index[index.Find(chain[0])].resident = 1;
  index[index.Find(chain[2])].resident = 1;  // behind a gap: not part of the prefix
  EXPECT_EQ(index.Lookup(chain), (PrefixMatch{3, 1}));
  index[index.Find(chain[1])].resident = 1;
  EXPECT_EQ(index.Lookup(chain), (PrefixMatch{3, 3}));
  EXPECT_EQ(index.Lookup({}), (PrefixMatch{0, 0}));
}

TEST(BlockIndexTest, BytesFollowTheBlocks) {
  BlockIndex index(1 << 20);
  for (uint64_t i = 0; i < 100000; ++i) index.Insert({i * 0x9e3779b97f4a7c15, i}, kNoBlock);
  EXPECT_LE(index.MetadataBytes(), 100000U * 64);
  EXPECT_GE(index.MetadataBytes(), 100000U * sizeof(BlockRecord));
}

}  // namespace
}  // namespace kvasir
