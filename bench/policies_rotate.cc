// Re-rotation of kept rows beside the plain gather of the same rows.
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bench/policy_cases.h"
#include "kernels/gather.h"

#include <fmt/format.h>
#include <hwy/targets.h>

namespace kvasir::bench {
namespace {

// Lets the kernels choose among `targets` alone while it lives.
class OnlyTarget {
 public:
  explicit OnlyTarget(int64_t target) { Set(target); }
  ~OnlyTarget() { Set(0); }
  OnlyTarget(const OnlyTarget&) = delete;
  OnlyTarget& operator=(const OnlyTarget&) = delete;

 private:
  static void Set(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

// Which rows are kept, and by how much they are turned.
enum class Pattern { kOneInTwo, kOneInFive, kSeparators, kRandomDeltas };

constexpr std::pair<Pattern, const char*> kPatterns[] = {
    {Pattern::kOneInTwo, ""},
    {Pattern::kOneInFive, "/one_in_5"},
    {Pattern::kSeparators, "/separators"},
    {Pattern::kRandomDeltas, "/random_deltas"},
};

struct RotateCase {
  int64_t target = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  kernels::RopePairing pairing = kernels::RopePairing::kHalfSplit;
  Pattern pattern = Pattern::kOneInTwo;
};

// A compaction turns the kept rows of a sequence to consecutive positions, from rows far behind
// them: the delta is the number of rows dropped before. Sequences of 32 Ki rows.
std::vector<int64_t> Deltas(const std::vector<size_t>& rows, Pattern pattern) {
  constexpr size_t kSequence = size_t{32} << 10U;
  std::mt19937 random(2);
  std::uniform_int_distribution<int64_t> any(-1000000, 1000000);
  std::vector<int64_t> deltas;
  size_t sequence = 0;
  int64_t kept = 0;
  for (const size_t row : rows) {
    if (row / kSequence != sequence) {
      sequence = row / kSequence;
      kept = 0;
    }
    const auto position = static_cast<int64_t>(row % kSequence);
    deltas.push_back(pattern == Pattern::kRandomDeltas ? any(random) : kept - position);
    ++kept;
  }
  return deltas;
}

void Rotate(benchmark::State& state, const std::string& name, const RotateCase& it) {
  const OnlyTarget only(it.target);
  kernels::RopeShape shape;
  shape.head_dim = shape.rotated_dims = it.head_dim;
  shape.kv_heads = it.kv_heads;
  shape.pairing = it.pairing;
  const size_t row_bytes = size_t{2} * it.kv_heads * it.head_dim;
  // Separators are one token in eight, as in English text.
  const bool separators = it.pattern == Pattern::kSeparators;
  const size_t every = it.pattern == Pattern::kOneInTwo ? 2 : separators ? 8 : 5;
  const Kept kept(row_bytes, every, separators ? Gaps::kSeparators : Gaps::kEven);
  const std::vector<int64_t> deltas = Deltas(kept.rows, it.pattern);
  Compare(
      state, name,
      {.unit = "GB/s",
       .amount = static_cast<double>(kept.bytes),
       .speed = true,
       .against = "gather of the same rows",
       .goal = it.pattern == Pattern::kRandomDeltas ? "" : "ratio >= 0.7"},
      [&] { kernels::GatherRotateRows(shape, kept.sources, deltas, kept.target.get()); },
      [&] { kernels::GatherRows(kept.sources, row_bytes, kept.target.get()); });
}

}  // namespace

void RegisterRotate() {
  using kernels::RopePairing;
  struct Shape {
    const char* name;
    uint32_t kv_heads, head_dim;
  };
  // Rows of 2 KiB of a large model, of 256 bytes of small ones: one head has its angles to itself.
  const Shape shapes[] = {{"2048", 8, 128}, {"256x2", 2, 64}, {"256x1", 1, 128}};
  const std::pair<int64_t, const char*> targets[] = {{HWY_AVX3, "avx512"}, {HWY_AVX2, "avx2"}};
  for (const Shape& shape : shapes) {
    for (const auto& [target, target_name] : targets) {
      if ((hwy::SupportedTargets() & target) == 0) {
        continue;
      }
      for (const auto pairing : {RopePairing::kHalfSplit, RopePairing::kInterleaved}) {
        for (const auto& [pattern, pattern_name] : kPatterns) {
          const RotateCase it = {target, shape.kv_heads, shape.head_dim, pairing, pattern};
          Register(fmt::format("rotate/{}/{}/{}{}", shape.name, target_name,
                               pairing == RopePairing::kHalfSplit ? "half_split" : "interleaved",
                               pattern_name),
                   21,
                   [it](benchmark::State& state, const std::string& as) { Rotate(state, as, it); });
        }
      }
    }
  }
}

}  // namespace kvasir::bench
