// LlamaGraph: the ggml graph of a batch of `rows` tokens, for one choice of results.
#ifndef KVASIR_ENGINE_LLAMA_GRAPH_H_
#define KVASIR_ENGINE_LLAMA_GRAPH_H_

#include <cstdint>
#include <memory>
#include <optional>

#include <absl/status/statusor.h>

#include "engine/attention_ops.h"
#include "engine/gguf_model.h"
#include "engine/llama_engine.h"

#include <ggml-cpp.h>

namespace kvasir::engine {

// What a graph computes; a step of another kind needs another graph.
struct GraphKind {
  uint32_t rows = 0;
  LogitsWanted wanted = LogitsWanted::kNone;
  bool mass = false;         // with operators that add attention mass
  bool retrieve = false;     // with operators that look far blocks up
  bool attend_last = false;  // the last layer's attention although nobody wants logits
  // Ends in this layer with its keys stored and the last row's query summed: no values of it, no
  // attention of it, nothing above. `wanted` is kNone then.
  std::optional<uint32_t> filter_layer = std::nullopt;

  bool operator==(const GraphKind&) const = default;
};

// Move-only. Reads model and operators at compute time; both must outlive it.
class LlamaGraph {
 public:
  // Builds the graph and plans its memory with `allocator` (which it then owns the plan of, until
  // the next Build() with the same one). Cost: under a millisecond for 30 layers. Errors:
  // kResourceExhausted without memory for the activations.
  static absl::StatusOr<LlamaGraph> Build(const GgufModel& model, AttentionOps& ops,
                                          const GraphKind& kind, ggml_gallocr* allocator);

  const GraphKind& kind() const { return kind_; }
  ggml_cgraph* graph() const { return graph_; }
  ggml_tensor* tokens() const { return tokens_; }  // input: int32 token ids
  // Logits, or the summed query of a filter layer; null with kNone otherwise.
  ggml_tensor* result() const { return result_; }

 private:
  // The last tensor of layers [0, end), each in full.
  ggml_tensor* AddLayers(const GgufModel& model, AttentionOps& ops, uint32_t end);
  // All layers and what is wanted of the last one.
  void AddModel(const GgufModel& model, AttentionOps& ops);
  // Layers up to the filter layer.
  void AddFilter(const GgufModel& model, AttentionOps& ops, uint32_t filter_layer);

  ggml_context_ptr context_;
  ggml_cgraph* graph_ = nullptr;
  ggml_tensor* tokens_ = nullptr;
  ggml_tensor* result_ = nullptr;
  GraphKind kind_;
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_LLAMA_GRAPH_H_
