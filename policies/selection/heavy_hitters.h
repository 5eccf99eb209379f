// H2O's running score: the attention mass that an entry has collected over all steps.
//
// total = base * decay^tokens + mass, where base is the total at the last decision, `tokens` rows
// were appended since, and mass is what the queries of those rows gave. decay = 1 is the paper
// (arXiv 2306.14048), which favours old tokens; a smaller one forgets. Pure, thread-safe.
#ifndef KVASIR_POLICIES_SELECTION_HEAVY_HITTERS_H_
#define KVASIR_POLICIES_SELECTION_HEAVY_HITTERS_H_

#include <cstdint>
#include <span>

#include <absl/status/status.h>

namespace kvasir {

// kInvalidArgument unless 0 < decay <= 1.
absl::Status CheckDecay(double decay);

// Merges one column of entries (one kv head of one layer): the kept ones with a base score first,
// then the new ones, whose mass is all they have. base.size() <= mass.size() == total.size();
// `total` may be `mass` itself. Nothing is written on error.
// Errors: kInvalidArgument for wrong sizes, a bad decay, and a value that is not finite or a mass
// below 0. Cost: one pass.
absl::Status AddRunningScores(std::span<const float> base, double decay, uint64_t tokens,
                              std::span<const float> mass, std::span<float> total);

}  // namespace kvasir

#endif  // KVASIR_POLICIES_SELECTION_HEAVY_HITTERS_H_
