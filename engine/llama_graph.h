// LlamaGraph: the ggml graph of a batch of `rows` tokens, for one choice of results.
#ifndef KVASIR_ENGINE_LLAMA_GRAPH_H_
#define KVASIR_ENGINE_LLAMA_GRAPH_H_

#include <cstdint>
#include <memory>

#include <absl/status/statusor.h>

#include "engine/attention_ops.h"
#include "engine/gguf_model.h"
#include "engine/llama_engine.h"

#include <ggml-cpp.h>

namespace kvasir::engine {

// Move-only. Reads model and operators at compute time; both must outlive it.
class LlamaGraph {
 public:
  // Builds the graph and plans its memory with `allocator` (which it then owns the plan of, until
  // the next Build() with the same one). Cost: under a millisecond for 30 layers. Errors:
  // kResourceExhausted without memory for the activations.
  static absl::StatusOr<LlamaGraph> Build(const GgufModel& model, AttentionOps& ops, uint32_t rows,
                                          LogitsWanted wanted, ggml_gallocr* allocator);

  uint32_t rows() const { return rows_; }
  LogitsWanted wanted() const { return wanted_; }
  ggml_cgraph* graph() const { return graph_; }
  ggml_tensor* tokens() const { return tokens_; }  // input: int32 token ids
  ggml_tensor* logits() const { return logits_; }  // null with kNone

 private:
  ggml_context_ptr context_;
  ggml_cgraph* graph_ = nullptr;
  ggml_tensor* tokens_ = nullptr;
  ggml_tensor* logits_ = nullptr;
  uint32_t rows_ = 0;
  LogitsWanted wanted_ = LogitsWanted::kNone;
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_LLAMA_GRAPH_H_
