// Refusals of retrieval, and its rules against slow models: the stream beside the authors' loop,
// the cache beside a map that follows the paper.
#include <algorithm>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "policies/retrieval/block_cache.h"
#include "policies/retrieval/infllm_index.h"
#include "policies/retrieval/infllm_stream.h"

namespace kvasir {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

template <typename T>
std::string ErrorOf(const absl::StatusOr<T>& result) {
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  return MessageOf(result.status());
}

std::string ErrorOf(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return MessageOf(status);
}

InfLlmConfig Small() {
  InfLlmConfig config;
  config.n_init = 3;
  config.n_local = 8;
  config.block_size = 4;
  config.exc_block_size = 5;
  config.topk = 2;
  config.max_cached_block = 3;
  config.repr_topk = 2;
  return config;
}

TEST(InfLlmConfig, DefaultsAreValidAndEachBoundIsNamed) {
  EXPECT_TRUE(CheckInfLlmConfig({}).ok());
  const auto error = [](void (*change)(InfLlmConfig&)) {
    InfLlmConfig config = Small();
    change(config);
    return ErrorOf(CheckInfLlmConfig(config));
  };
  using C = InfLlmConfig;
  EXPECT_THAT(error([](C& c) { c.n_init = (1U << 20U) + 1; }), HasSubstr("n_init=1048577 min=0"));
  EXPECT_THAT(error([](C& c) { c.n_local = 0; }), HasSubstr("n_local=0 min=1 max=16777216"));
  EXPECT_THAT(error([](C& c) { c.n_local = (1U << 24U) + 1; }), HasSubstr("n_local=16777217"));
  EXPECT_THAT(error([](C& c) { c.block_size = 0; }), HasSubstr("block_size=0 min=1 max=65536"));
  EXPECT_THAT(error([](C& c) { c.block_size = 65537; }), HasSubstr("block_size=65537"));
  EXPECT_THAT(error([](C& c) { c.max_cached_block = 0; }), HasSubstr("max_cached_block=0 min=1"));
  EXPECT_THAT(error([](C& c) { c.max_cached_block = 65537; }), HasSubstr("max=65536"));
  EXPECT_THAT(error([](C& c) { c.topk = 0; }), HasSubstr("topk=0 min=1 max=3"));
  EXPECT_THAT(error([](C& c) { c.topk = 4; }), HasSubstr("topk=4 min=1 max=3"));
  EXPECT_THAT(error([](C& c) { c.repr_topk = 0; }), HasSubstr("repr_topk=0 min=1 max=4"));
  EXPECT_THAT(error([](C& c) { c.repr_topk = 5; }), HasSubstr("repr_topk=5 min=1 max=4"));
  EXPECT_THAT(error([](C& c) { c.exc_block_size = 0; }), HasSubstr("exc_block_size=0 min=1"));
  EXPECT_THAT(error([](C& c) { c.exc_block_size = 9; }), HasSubstr("exc_block_size=9 min=1 max=8"));
  EXPECT_THAT(error([](C& c) { c.score_decay = -0.1; }), HasSubstr("score_decay=-0.1 min=0 max=1"));
  EXPECT_THAT(error([](C& c) { c.score_decay = 1.1; }), HasSubstr("score_decay=1.1"));
  EXPECT_THAT(error([](C& c) { c.score_decay = kNan; }), HasSubstr("score_decay=nan"));
}

TEST(InfLlmStream, RefusesABadConfigAndTooManyRows) {
  InfLlmConfig config = Small();
  constexpr uint64_t kMost = uint64_t{1} << 48U;
  EXPECT_THAT(ErrorOf(InfLlmStream::Create(config, kMost + 1)), HasSubstr("max=281474976710656"));
  InfLlmStream stream = InfLlmStream::Create(config, kMost - 1).value();
  EXPECT_THAT(ErrorOf(stream.Append(2)), HasSubstr("appended=2 max="));
  EXPECT_EQ(stream.rows(), kMost - 1);
  config.topk = 0;
  EXPECT_THAT(ErrorOf(InfLlmStream::Create(config)), HasSubstr("topk"));
}

// The loop of the authors' append(), with its state.
struct SlowStream {
  InfLlmConfig config;
  uint64_t rows = 0;
  uint64_t init = 0;
  uint64_t start = 0;  // of the remainder
  std::vector<RowRange> blocks = {};

  void Append(uint64_t count) {
    rows += count;
    uint64_t remainder = rows - start;
    if (init < config.n_init && remainder > config.n_local) {
      const uint64_t taken = std::min(config.n_init - init, remainder - config.n_local);
      init += taken;
      start += taken;
      remainder -= taken;
    }
    while (remainder >= config.block_size + config.n_local) {
      blocks.push_back({start, start + config.block_size});
      start += config.block_size;
      remainder -= config.block_size;
    }
  }
};

TEST(InfLlmStream, FollowsTheAuthorsLoopInAnyPieces) {
  std::mt19937_64 random(4);
  const auto upto = [&](uint64_t most) { return random() % (most + 1); };
  for (int round = 0; round < 300; ++round) {
    InfLlmConfig config = Small();
    config.n_init = upto(9);
    config.n_local = 1 + upto(12);
    config.exc_block_size = 1;
    config.block_size = 2 + upto(6);
    SlowStream slow{config};
    InfLlmStream stream = InfLlmStream::Create(config).value();
    std::vector<RowRange> sealed;
    uint64_t init = 0;
    for (int step = 0; step < 40; ++step) {
      const uint64_t rows = upto(round % 2 == 0 ? 3 : 20);
      slow.Append(rows);
      // Half of the steps start from a snapshot.
      if (upto(1) == 0) stream = InfLlmStream::Create(config, stream.rows()).value();
      const InfLlmAppended appended = stream.Append(rows).value();
      EXPECT_EQ(appended.init.first, init);
      init = appended.init.last;
      sealed.insert(sealed.end(), appended.sealed.begin(), appended.sealed.end());
      ASSERT_EQ(stream.init_rows(), slow.init);
      ASSERT_EQ(init, slow.init);
      ASSERT_EQ(stream.remainder_first(), slow.start);
      ASSERT_EQ(sealed, slow.blocks);
      ASSERT_EQ(stream.blocks(), slow.blocks.size());
      for (uint64_t i = 0; i < stream.blocks(); ++i) ASSERT_EQ(stream.BlockRows(i), sealed[i]);
      if (slow.rows > 0) {
        const uint64_t last = slow.rows - 1;
        ASSERT_EQ(stream.LocalFirst(last), last < config.n_local ? 0 : last + 1 - config.n_local);
      }
    }
  }
}

struct Block {
  std::vector<float> keys = {1, 2, 3, 4, 5, 6, 7, 8};  // 4 rows, 2 kv heads, 1 dim
  std::vector<float> mass = {0, 1, 1, 0, 1, 1, 1, 1};  // 2 heads
  kernels::KeyShape shape{kernels::RowType::kF32, 2, 1};
  uint32_t heads = 2;
  uint32_t repr_topk = 2;

  absl::StatusOr<std::vector<float>> Representative() const {
    const kernels::KeyRun run{reinterpret_cast<const std::byte*>(keys.data()), 8, 4};
    return BlockRepresentative(shape, heads, std::span(&run, 1), mass, repr_topk);
  }
};

TEST(InfLlmIndex, RepresentativeIsTheMeanOfTheMostAttendedKeys) {
  Block block;
  EXPECT_THAT(block.Representative().value(), ElementsAre(4, 3));  // ties: the lower rows
  block.repr_topk = 4;
  EXPECT_THAT(block.Representative().value(), ElementsAre(4, 5));
}

TEST(InfLlmIndex, RefusesBlocksThatDoNotFit) {
  const auto error = [](void (*change)(Block&)) {
    Block block;
    change(block);
    return ErrorOf(block.Representative());
  };
  EXPECT_THAT(error([](Block& b) { b.repr_topk = 0; }), HasSubstr("repr_topk=0 min=1 max=4"));
  EXPECT_THAT(error([](Block& b) { b.repr_topk = 5; }), HasSubstr("repr_topk=5 min=1 max=4"));
  EXPECT_THAT(error([](Block& b) { b.heads = 3; }), HasSubstr("heads=3 kv_heads=2"));
  EXPECT_THAT(error([](Block& b) { b.heads = 0; }), HasSubstr("heads=0"));
  EXPECT_THAT(error([](Block& b) { b.mass.pop_back(); }), HasSubstr("mass=7 heads=2 rows=4"));
  EXPECT_THAT(error([](Block& b) { b.mass[3] = kNan; }), HasSubstr("mass is not finite: index=3"));
  EXPECT_THAT(error([](Block& b) { b.keys[2] = kInf; }), HasSubstr("representative"));
  EXPECT_THAT(error([](Block& b) { b.shape.dim = 0; }), HasSubstr("dim=0"));
}

TEST(InfLlmIndex, LookupTakesTheBestBlocksAscendingAndTheLowerOnATie) {
  const std::vector<float> reprs = {1, 0, 0, 2, 3, 0, 0, 2};
  const std::vector<float> query = {1, 1};
  EXPECT_THAT(LookupBlocks(reprs, query, 2).value(), ElementsAre(1, 2));
  EXPECT_THAT(LookupBlocks(reprs, query, 3).value(), ElementsAre(1, 2, 3));
  EXPECT_THAT(LookupBlocks(reprs, query, 9).value(), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(LookupBlocks(std::span<const float>(), query, 2).value(), IsEmpty());
}

TEST(InfLlmIndex, LookupRefusesWhatDoesNotFit) {
  std::vector<float> reprs = {1, 0, 0, 2, 3, 0};
  const std::vector<float> query = {1, 1};
  EXPECT_THAT(ErrorOf(LookupBlocks(reprs, {}, 1)), HasSubstr("width=0 min=1"));
  EXPECT_THAT(ErrorOf(LookupBlocks(reprs, query, 0)), HasSubstr("topk=0 min=1"));
  EXPECT_THAT(ErrorOf(LookupBlocks(std::span(reprs).first(5), query, 1)), HasSubstr("size=5"));
  reprs[1] = kNan;
  EXPECT_THAT(ErrorOf(LookupBlocks(reprs, query, 1)), HasSubstr("score of a block"));
}

std::vector<uint32_t> CachedBlocks(const BlockCache& cache) {
  std::vector<uint32_t> blocks;
  for (const auto& entry : cache.state().entries) blocks.push_back(entry.at.block);
  return blocks;
}

TEST(BlockCache, LoadsIntoTheLowestFreeSlotsAndKeepsBlocksInTheirs) {
  BlockCache cache = BlockCache::Create(Small()).value();
  EXPECT_THAT(cache.Select(std::vector<uint32_t>{4, 7})->loads,
              ElementsAre(BlockSlot{4, 0}, BlockSlot{7, 1}));
  EXPECT_THAT(cache.Select(std::vector<uint32_t>{7})->loads, IsEmpty());
  const BlockCacheStep step = cache.Select(std::vector<uint32_t>{1, 2}).value();
  EXPECT_THAT(step.evicts, ElementsAre(BlockSlot{4, 0}));  // 7 was used later
  EXPECT_THAT(step.loads, ElementsAre(BlockSlot{1, 0}, BlockSlot{2, 2}));
  EXPECT_EQ(cache.SlotOf(7), 1U);
  EXPECT_EQ(cache.SlotOf(4), std::nullopt);
  EXPECT_THAT(cache.Slots(), ElementsAre(1U, 7U, 2U));
}

TEST(BlockCache, HistoryCountsUnlessSelectedBlocksAreReset) {
  for (const bool reset : {false, true}) {
    InfLlmConfig config = Small();
    config.cache_strategy = CacheStrategy::kLruS;
    config.score_decay = 0.5;
    config.reset_selected = reset;
    BlockCache cache = BlockCache::Create(config).value();
    const std::vector<uint32_t> first = {1, 2};
    ASSERT_TRUE(cache.Select(first).ok());
    ASSERT_TRUE(cache.Update(first, std::vector<float>{8, 3}).ok());
    ASSERT_TRUE(cache.Select(std::vector<uint32_t>{1, 3}).ok());
    ASSERT_TRUE(cache.Update(std::vector<uint32_t>{1, 3}, std::vector<float>{1, 2}).ok());
    // 1: 8 / 2 + 1 with its history, 1 without; 2: 3 / 2; 3: 2.
    EXPECT_THAT(cache.Select(std::vector<uint32_t>{9})->evicts,
                ElementsAre(BlockSlot{reset ? 1U : 2U, reset ? 0U : 1U}));
  }
}

TEST(BlockCache, RefusesAndChangesNothing) {
  BlockCache cache = BlockCache::Create(Small()).value();
  ASSERT_TRUE(cache.Select(std::vector<uint32_t>{1, 5}).ok());
  const BlockCacheState before = cache.state();
  using Ids = std::vector<uint32_t>;
  using Mass = std::vector<float>;
  EXPECT_THAT(ErrorOf(cache.Select(Ids{1, 2, 3, 4})), HasSubstr("blocks=4 max_cached_block=3"));
  EXPECT_THAT(ErrorOf(cache.Select(Ids{2, 1})), HasSubstr("index=1 block=1 previous=2"));
  EXPECT_THAT(ErrorOf(cache.Select(Ids{2, 2})), HasSubstr("must ascend"));
  EXPECT_THAT(ErrorOf(cache.Update(Ids{1}, Mass{})), HasSubstr("blocks=1 masses=0"));
  EXPECT_THAT(ErrorOf(cache.Update(Ids{1, 1}, Mass{1, 1})), HasSubstr("must ascend"));
  EXPECT_THAT(ErrorOf(cache.Update(Ids{2}, Mass{1})), HasSubstr("not cached: block=2"));
  for (const float bad : {-1.0F, kNan, kInf}) {
    EXPECT_THAT(ErrorOf(cache.Update(Ids{5}, Mass{bad})), HasSubstr("block=5 mass="));
  }
  EXPECT_EQ(cache.state(), before);
}

TEST(BlockCache, RefusesASnapshotThatBreaksARule) {
  const auto error = [](std::vector<BlockCacheState::Entry> entries) {
    return ErrorOf(BlockCache::Create(Small(), {std::move(entries), 5}));
  };
  EXPECT_THAT(error({{{1, 0}, 1}, {{2, 1}, 1}, {{3, 2}, 1}, {{4, 0}, 1}}),
              HasSubstr("entries=4 max_cached_block=3"));
  EXPECT_THAT(error({{{1, 3}, 1}}), HasSubstr("slot=3 max=2"));
  EXPECT_THAT(error({{{1, 0}, -1}}), HasSubstr("score=-1"));
  EXPECT_THAT(error({{{1, 0}, kNan}}), HasSubstr("score=nan"));
  EXPECT_THAT(error({{{1, 0}, 6}}), HasSubstr("score=6 step=5"));
  EXPECT_THAT(error({{{1, 0}, 1}, {{1, 1}, 1}}), HasSubstr("block is cached twice"));
  EXPECT_THAT(error({{{1, 0}, 1}, {{2, 0}, 1}}), HasSubstr("slot is taken twice"));
  InfLlmConfig config = Small();
  config.max_cached_block = 1;
  EXPECT_THAT(ErrorOf(BlockCache::Create(config)), HasSubstr("topk=2 min=1 max=1"));
}

// lru-s of the paper beside a plain list: score, order of arrival, lowest first.
TEST(BlockCache, AgreesWithASlowModelOverRandomSteps) {
  std::mt19937_64 random(11);
  InfLlmConfig config = Small();
  config.max_cached_block = 6;
  config.cache_strategy = CacheStrategy::kLruS;
  BlockCache cache = BlockCache::Create(config).value();
  std::vector<std::pair<uint32_t, double>> slow;
  for (int step = 0; step < 500; ++step) {
    std::map<uint32_t, float> wanted;
    for (uint64_t i = random() % 5; i > 0; --i) {
      wanted[static_cast<uint32_t>(random() % 12)] = static_cast<float>(random() % 4);
    }
    std::vector<uint32_t> blocks;
    std::vector<float> mass;
    for (const auto& [block, drawn] : wanted) {
      blocks.push_back(block);
      mass.push_back(drawn);
    }
    const auto find = [&](uint32_t block) {
      return std::find_if(slow.begin(), slow.end(), [&](auto& it) { return it.first == block; });
    };
    const auto absent = [&](uint32_t block) { return find(block) == slow.end(); };
    const auto misses = std::count_if(blocks.begin(), blocks.end(), absent);
    std::vector<uint32_t> evicted;
    while (slow.size() + static_cast<size_t>(misses) > 6) {
      auto lowest = slow.end();
      for (auto it = slow.begin(); it != slow.end(); ++it) {
        if (wanted.count(it->first) != 0) continue;
        if (lowest == slow.end() || it->second < lowest->second) lowest = it;
      }
      evicted.push_back(lowest->first);
      slow.erase(lowest);
    }
    for (const uint32_t block : blocks) {
      if (absent(block)) slow.emplace_back(block, 0.0);
    }
    for (auto& [block, score] : slow) score *= config.score_decay;
    for (const auto& [block, drawn] : wanted) find(block)->second += drawn;

    const BlockCacheStep moved = cache.Select(blocks).value();
    ASSERT_TRUE(cache.Update(blocks, mass).ok());
    std::vector<uint32_t> got;
    for (const BlockSlot& it : moved.evicts) got.push_back(it.block);
    ASSERT_EQ(got, evicted) << "step " << step;
    std::vector<uint32_t> held;
    for (const auto& it : slow) held.push_back(it.first);
    ASSERT_EQ(CachedBlocks(cache), held) << "step " << step;
  }
}

}  // namespace
}  // namespace kvasir
