#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "kernels/gather.h"
#include "kernels/scores.h"
#include "policies/retrieval/block_cache.h"
#include "policies/retrieval/infllm_index.h"
#include "policies/retrieval/infllm_stream.h"
#include "policies/selection/start_recent_cache.h"
#include "tests/policies/golden_compare.h"
#include "tests/policies/select_golden.h"

namespace kvasir::testing {
namespace {

constexpr float kRotationTolerance = 2e-5F;  // absolute, as the vectors say

InfLlmConfig InfLlmConfigOf(const GoldenCase& test) {
  InfLlmConfig config;
  config.n_init = test.Number("n_init", 0, kMax);
  config.n_local = test.Number("n_local", 1, kMax);
  config.block_size = test.Number("block_size", 1, kMax);
  config.topk = static_cast<uint32_t>(test.Number("topk", 1, kMax));
  config.repr_topk = static_cast<uint32_t>(test.Number("repr_topk", 1, kMax));
  config.max_cached_block = static_cast<uint32_t>(test.Number("max_cached", 1, kMax));
  config.exc_block_size = test.Number("exc", 1, kMax);
  config.score_decay = test.Real("decay");
  config.reset_selected = test.Number("reset_selected", 0, 1) == 1;
  if (test.Text("touch") != "ascending_id") throw std::runtime_error("touch in another order");
  const std::string& strategy = test.Text("strategy");
  if (strategy != "lru" && strategy != "lru-s") throw std::runtime_error("strategy " + strategy);
  config.cache_strategy = strategy == "lru" ? CacheStrategy::kLru : CacheStrategy::kLruS;
  return config;
}

// Seals the blocks of the case; their representatives, [blocks][heads][dim].
std::vector<float> SealBlocks(const GoldenCase& test, const InfLlmConfig& config) {
  const std::vector<uint64_t> shape = test.Shape("block_k", 4);
  const uint64_t blocks = shape[0];
  const kernels::KeyShape keys{kernels::RowType::kF32, Small(shape[1]), Small(shape[3])};
  const uint32_t heads = static_cast<uint32_t>(test.Number("q_heads", 1, kMax));
  test.Number("kv_heads", keys.kv_heads, keys.kv_heads);
  const std::vector<float>& k =
      test.Floats("block_k", {blocks, keys.kv_heads, config.block_size, keys.dim});
  const auto& mass = test.Floats("block_mass", {blocks, heads, config.block_size});
  const auto& expect = test.Floats("expect_repr", {blocks, heads, keys.dim});
  const auto& starts = test.Integers("block_start", {blocks});
  // The stream that seals just these, one row at a time.
  InfLlmStream stream = Value(InfLlmStream::Create(config));
  std::vector<uint64_t> sealed;
  while (sealed.size() < blocks) {
    for (const RowRange& block : Value(stream.Append(1)).sealed) sealed.push_back(block.first);
  }
  Equal("block_start", sealed, starts);
  std::vector<float> reprs;
  const uint64_t block_mass = heads * config.block_size;
  const size_t row_size = size_t{keys.kv_heads} * keys.dim;
  for (uint64_t block = 0; block < blocks; ++block) {
    std::vector<float> rows(config.block_size * row_size);
    for (size_t i = 0; i < rows.size(); ++i) {
      const size_t row = i / row_size;
      const size_t head = i % row_size / keys.dim;
      rows[i] =
          k[((block * keys.kv_heads + head) * config.block_size + row) * keys.dim + i % keys.dim];
    }
    const kernels::KeyRun run{reinterpret_cast<const std::byte*>(rows.data()),
                              static_cast<uint32_t>(row_size * sizeof(float)),
                              Small(config.block_size)};
    const std::vector<float> repr = Value(BlockRepresentative(
        keys, heads, std::span(&run, 1), std::span(mass).subspan(block * block_mass, block_mass),
        config.repr_topk));
    reprs.insert(reprs.end(), repr.begin(), repr.end());
  }
  Near("repr", reprs, expect);
  return reprs;
}

// Follows the slots by what each step says, and compares them with what the cache says.
void FollowSlots(const BlockCacheStep& step, const BlockCache& cache,
                 std::vector<std::optional<uint32_t>>& slots) {
  for (const BlockSlot& it : step.evicts) {
    if (slots.at(it.slot) != it.block) throw std::runtime_error("evicts what is not there");
    slots[it.slot].reset();
  }
  for (const BlockSlot& it : step.loads) {
    if (slots.at(it.slot)) throw std::runtime_error("loads into a slot that is taken");
    slots[it.slot] = it.block;
  }
  if (slots != cache.Slots()) throw std::runtime_error("slots differ from the steps");
}

std::vector<uint32_t> BlocksOf(const std::vector<BlockSlot>& slots) {
  std::vector<uint32_t> blocks;
  for (const BlockSlot& it : slots) blocks.push_back(it.block);
  return blocks;
}

}  // namespace

void RunInfLlm(const GoldenCase& test) {
  const InfLlmConfig config = InfLlmConfigOf(test);
  BlockCache cache = Value(BlockCache::Create(config));
  const std::vector<float> reprs = SealBlocks(test, config);
  const std::vector<uint64_t> q_shape = test.Shape("step_q_mean", 3);
  const uint64_t steps = q_shape[0];
  const uint64_t width = q_shape[1] * q_shape[2];
  if (width == 0) throw std::runtime_error("step_q_mean is empty");
  const uint64_t topk = config.topk;
  const uint64_t most = config.max_cached_block;
  const auto& queries = test.Floats("step_q_mean", q_shape);
  const auto& blocks = test.Integers("step_nblocks", {steps});
  const auto& masses = test.Floats("step_mass", {steps, topk});
  const auto& select = test.Integers("expect_select", {steps, topk});
  const auto& load = test.Integers("expect_load", {steps, topk});
  const auto& evict = test.Integers("expect_evict", {steps, most});
  const auto& expect_cached = test.Integers("expect_cached", {steps, most});
  std::vector<std::optional<uint32_t>> slots(most);
  for (size_t step = 0; step < steps; ++step) {
    const auto known = static_cast<uint64_t>(blocks[step]);
    if (known > reprs.size() / width) throw std::runtime_error("step_nblocks exceeds the blocks");
    const auto chosen =
        Value(LookupBlocks(std::span(reprs).subspan(0, known * width),
                           std::span(queries).subspan(step * width, width), config.topk));
    const std::string at = fmt::format("step {} ", step);
    Equal(at + "select", chosen, Unpadded(select, step, topk));
    // Every step starts from what a snapshot holds.
    cache = Value(BlockCache::Create(config, BlockCacheState(cache.state())));
    const BlockCacheStep moved = Value(cache.Select(chosen));
    Equal(at + "load", BlocksOf(moved.loads), Unpadded(load, step, topk));
    Equal(at + "evict", BlocksOf(moved.evicts), Unpadded(evict, step, most));
    FollowSlots(moved, cache, slots);
    std::vector<uint32_t> cached;
    for (const auto& entry : cache.state().entries) cached.push_back(entry.at.block);
    std::sort(cached.begin(), cached.end());
    Equal(at + "cached", cached, Unpadded(expect_cached, step, most));
    Check(cache.Update(chosen, std::span(masses).subspan(step * topk, chosen.size())));
  }
}

void RunStreaming(const GoldenCase& test) {
  StartRecentCache cache(test.Number("start_size", 0, kMax), test.Number("recent_size", 0, kMax));
  const uint64_t count = test.Shape("ops", 2)[0];
  const auto& ops = test.Integers("ops", {count, 2});
  const auto& kept = test.Integers("expect_kept", test.Shape("expect_kept", 1));
  const auto& offsets = test.Integers("expect_offsets", {count + 1});
  for (size_t i = 0; i < count; ++i) {
    const int32_t rows = ops[2 * i + 1];
    if (rows < 0 || static_cast<uint32_t>(rows) > kMax) throw std::runtime_error("rows of an op");
    switch (ops[2 * i]) {
      case 0:
        cache.Append(static_cast<uint64_t>(rows));
        break;
      case 1:
        cache.Evict();
        break;
      case 2:
        cache.EvictForSpace(static_cast<uint64_t>(rows));
        break;
      default:
        throw std::runtime_error(fmt::format("unknown op {}", ops[2 * i]));
    }
    const auto first = static_cast<size_t>(offsets[i]);
    const auto last = static_cast<size_t>(offsets[i + 1]);
    if (first > last || last > kept.size()) throw std::runtime_error("expect_offsets");
    const std::vector<uint64_t> held = cache.Rows();
    Equal(fmt::format("op {}", i), held, std::span(kept).subspan(first, last - first));
    Equal(fmt::format("op {} size", i), std::vector<uint64_t>{cache.size()},
          std::vector<int32_t>{static_cast<int32_t>(held.size())});
  }
}

void RunRerotate(const GoldenCase& test) {
  const std::vector<uint64_t> dims = test.Shape("k_post", 3);
  kernels::RopeShape shape;
  shape.type = kernels::RowType::kF32;
  shape.head_dim = shape.rotated_dims = Small(dims[2]);
  shape.theta = test.Real("rope_base");
  const std::string& layout = test.Text("layout");
  if (layout != "half_split" && layout != "interleaved") throw std::runtime_error(layout);
  shape.pairing = layout == "half_split" ? kernels::RopePairing::kHalfSplit
                                         : kernels::RopePairing::kInterleaved;
  if (dims[2] == 0 || dims[2] % 2 != 0) throw std::runtime_error("dim is not even");
  const auto& keys = test.Floats("k_post", dims);
  const auto& expect = test.Floats("expect_k", dims);
  const auto& old_positions = test.Integers("old_pos", {dims[1]});
  const auto& new_positions = test.Integers("new_pos", {dims[1]});
  std::vector<const std::byte*> sources;
  std::vector<int64_t> deltas;
  for (size_t i = 0; i < dims[0] * dims[1]; ++i) {
    const size_t row = i % dims[1];
    sources.push_back(reinterpret_cast<const std::byte*>(keys.data() + i * dims[2]));
    deltas.push_back(int64_t{new_positions[row]} - old_positions[row]);
  }
  std::vector<float> turned(keys.size());
  const auto check = [&](const char* which) {
    for (size_t i = 0; i < expect.size(); ++i) {
      if (!(std::abs(turned[i] - expect[i]) <= kRotationTolerance)) {
        throw std::runtime_error(
            fmt::format("{} key[{}]: got {}, want {}", which, i, turned[i], expect[i]));
      }
    }
  };
  auto* out = reinterpret_cast<std::byte*>(turned.data());
  kernels::GatherRotateRows(shape, sources, deltas, out);
  check("vector");
  kernels::scalar::GatherRotateRows(shape, sources, deltas, out);
  check("scalar");
}

}  // namespace kvasir::testing
