// What an InfLLM block is found by: representatives of sealed blocks, and their lookup.
//
// Keys are not rotated. Sums are in float. Pure, thread-safe.
#ifndef KVASIR_POLICIES_RETRIEVAL_INFLLM_INDEX_H_
#define KVASIR_POLICIES_RETRIEVAL_INFLLM_INDEX_H_

#include <cstdint>
#include <span>
#include <vector>

#include <absl/status/statusor.h>

#include "kernels/scores.h"

namespace kvasir {

// Representative of one block, [heads][dim]: for each query head, the mean of those `repr_topk`
// keys of its kv head that have the largest mass (the lower row on a tie). `runs`: the block's keys
// in order. `mass`: [heads][rows of the block], the local attention mass up to the sealing.
// Errors: kInvalidArgument for shapes that do not fit, repr_topk outside 1 to the block's rows, a
// mass or a key that is not finite. Cost: O(heads * (rows + repr_topk * dim)).
absl::StatusOr<std::vector<float>> BlockRepresentative(const kernels::KeyShape& shape,
                                                       uint32_t heads,
                                                       std::span<const kernels::KeyRun> runs,
                                                       std::span<const float> mass,
                                                       uint32_t repr_topk);

// Ascending numbers of the topk blocks whose representatives have the largest dot product with
// `query` (the lower number on a tie); all of them where there are no more than topk. `reprs`:
// [blocks][width], width = heads * dim; `query`: [width], the mean of the execution block's queries
// after the one rotation. Errors: kInvalidArgument for a query of width 0 or above 2^24, sizes that
// do not fit, topk 0, a query or a score that is not finite. Cost: one pass over the
// representatives.
absl::StatusOr<std::vector<uint32_t>> LookupBlocks(std::span<const float> reprs,
                                                   std::span<const float> query, uint32_t topk);
// The same where the representatives, in f32, lie in several runs.
absl::StatusOr<std::vector<uint32_t>> LookupBlocks(std::span<const kernels::KeyRun> reprs,
                                                   std::span<const float> query, uint32_t topk);

}  // namespace kvasir

#endif  // KVASIR_POLICIES_RETRIEVAL_INFLLM_INDEX_H_
