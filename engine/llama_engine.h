// LlamaEngine: computes a batch of rows of one sequence on the CPU, with K and V in a store's
// blocks.
#ifndef KVASIR_ENGINE_LLAMA_ENGINE_H_
#define KVASIR_ENGINE_LLAMA_ENGINE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "client/view.h"
#include "engine/far_blocks.h"
#include "engine/gguf_model.h"
#include "engine/kv_store.h"
#include "kernels/attention.h"

namespace kvasir::engine {

struct EngineOptions {
  uint32_t threads = 1;  // 1 to 256
  kernels::RowType kv_type = kernels::RowType::kF16;
};

enum class LogitsWanted { kNone, kLast, kAll };

// Rows of a batch; more take more memory for activations, not more time a row.
inline constexpr uint32_t kBatchRowsMax = 2048;

// Geometry of `model`'s rows in element type `type`.
KvGeometry GeometryOf(const HyperParameters& parameters, kernels::RowType type,
                      uint32_t slots_per_block);

// Not thread-safe. Holds no state of a sequence: any number of stores may take turns.
class LlamaEngine {
 public:
  // `model` must outlive the engine.
  // Errors: kInvalidArgument for options out of bounds; kResourceExhausted without memory or
  // threads.
  static absl::StatusOr<std::unique_ptr<LlamaEngine>> Create(const GgufModel& model,
                                                             const EngineOptions& options);
  virtual ~LlamaEngine() = default;

  // Computes tokens.size() == step.count rows and writes their keys and values to the step's slots.
  // The result is valid until the next computation: `vocabulary` values for each row wanted, none
  // with kNone. Where the step's views ask for attention mass or query rows, those are written too.
  // `far`: of the step's sequence, called in the middle of every layer that has a far_position; may
  // be null where no layer has.
  // Errors: kInvalidArgument for a token id beyond the vocabulary or more than kBatchRowsMax rows;
  // kResourceExhausted without memory for the activations; kInternal for a bad view;
  // kFailedPrecondition without `far` where it is needed; those of FarBlocks::Retrieve(), after
  // which the rows must not be committed.
  virtual absl::StatusOr<std::span<const float>> Compute(std::span<const uint32_t> tokens,
                                                         const StepView& step, LogitsWanted wanted,
                                                         FarBlocks* far) = 0;
  absl::StatusOr<std::span<const float>> Compute(std::span<const uint32_t> tokens,
                                                 const StepView& step, LogitsWanted wanted) {
    return Compute(tokens, step, wanted, nullptr);
  }

  // Computes the rows only as far as a selection by the keys of `filter_layer` needs: all layers
  // below it, and in it the keys, which are written. Values of the filter layer and all rows of the
  // layers above it are not written. Returns the query of the last row in the filter layer, rotated
  // at that row and summed over the query heads of each kv head, [kv_heads][head_dim]; valid until
  // the next computation.
  // Errors: those of Compute(); kInvalidArgument for a layer that the model does not have.
  virtual absl::StatusOr<std::span<const float>> ComputeFilter(std::span<const uint32_t> tokens,
                                                               const StepView& step,
                                                               uint32_t filter_layer) = 0;

  virtual const GgufModel& model() const = 0;
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_LLAMA_ENGINE_H_
