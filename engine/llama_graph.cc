#include "engine/llama_graph.h"

#include "base/error.h"

namespace kvasir::engine {
namespace {

constexpr size_t kNodesPerLayer = 32;  // upper bound; 24 are used
constexpr size_t kNodesOutside = 32;

ggml_tensor* Norm(ggml_context* ctx, ggml_tensor* x, ggml_tensor* weight, float epsilon) {
  return ggml_mul(ctx, ggml_rms_norm(ctx, x, epsilon), weight);
}

ggml_tensor* LastRow(ggml_context* ctx, ggml_tensor* x) {
  return ggml_view_2d(ctx, x, x->ne[0], 1, x->nb[1], static_cast<size_t>(x->ne[1] - 1) * x->nb[1]);
}

ggml_tensor* FeedForward(ggml_context* ctx, const LayerWeights& layer, ggml_tensor* x,
                         float epsilon) {
  ggml_tensor* normed = Norm(ctx, x, layer.ffn_norm, epsilon);
  ggml_tensor* gate = ggml_mul_mat(ctx, layer.ffn_gate, normed);
  ggml_tensor* up = ggml_mul_mat(ctx, layer.ffn_up, normed);
  return ggml_add(ctx, ggml_mul_mat(ctx, layer.ffn_down, ggml_swiglu_split(ctx, gate, up)), x);
}

}  // namespace

ggml_tensor* LlamaGraph::AddLayers(const GgufModel& model, AttentionOps& ops, uint32_t end) {
  const HyperParameters& p = model.parameters();
  ggml_context* ctx = context_.get();
  ggml_tensor* x = ggml_get_rows(ctx, model.token_embedding(), tokens_);
  for (uint32_t i = 0; i < end; ++i) {
    const LayerWeights& layer = model.layers()[i];
    const bool last = i + 1 == p.layers;
    ggml_tensor* normed = Norm(ctx, x, layer.attn_norm, p.norm_epsilon);
    ggml_tensor* k = ggml_mul_mat(ctx, layer.attn_k, normed);
    ggml_tensor* v = ggml_mul_mat(ctx, layer.attn_v, normed);
    ggml_tensor* stored = ops.Store(ctx, i, k, v);
    const bool unread = last && kind_.wanted == LogitsWanted::kNone;  // nobody reads what follows
    if (unread && !kind_.attend_last) return stored;
    ggml_tensor* q = ggml_mul_mat(ctx, layer.attn_q, normed);
    if (kind_.retrieve) q = ops.Retrieve(ctx, i, q, stored);
    ggml_tensor* attended = ops.Attend(ctx, i, q, stored, kind_.mass);
    if (unread) return attended;
    if (last && kind_.wanted == LogitsWanted::kLast && kind_.rows > 1) {
      attended = LastRow(ctx, attended);
      x = LastRow(ctx, x);
    }
    x = ggml_add(ctx, ggml_mul_mat(ctx, layer.attn_output, attended), x);
    x = FeedForward(ctx, layer, x, p.norm_epsilon);
  }
  return x;
}

void LlamaGraph::AddModel(const GgufModel& model, AttentionOps& ops) {
  ggml_context* ctx = context_.get();
  ggml_tensor* x = AddLayers(model, ops, model.parameters().layers);
  if (kind_.wanted != LogitsWanted::kNone) {
    x = Norm(ctx, x, model.output_norm(), model.parameters().norm_epsilon);
    result_ = x = ggml_mul_mat(ctx, model.output(), x);
    ggml_set_output(result_);
  }
  ggml_build_forward_expand(graph_, x);
}

void LlamaGraph::AddFilter(const GgufModel& model, AttentionOps& ops, uint32_t filter_layer) {
  ggml_context* ctx = context_.get();
  const LayerWeights& layer = model.layers()[filter_layer];
  ggml_tensor* x = AddLayers(model, ops, filter_layer);
  ggml_tensor* normed = Norm(ctx, x, layer.attn_norm, model.parameters().norm_epsilon);
  ggml_tensor* stored =
      ops.Store(ctx, filter_layer, ggml_mul_mat(ctx, layer.attn_k, normed), nullptr);
  ggml_tensor* last = kind_.rows > 1 ? LastRow(ctx, normed) : normed;
  result_ = ops.SumQuery(ctx, filter_layer, ggml_mul_mat(ctx, layer.attn_q, last), stored);
  ggml_set_output(result_);
  ggml_build_forward_expand(graph_, result_);
}

absl::StatusOr<LlamaGraph> LlamaGraph::Build(const GgufModel& model, AttentionOps& ops,
                                             const GraphKind& kind, ggml_gallocr* allocator) {
  const size_t nodes = kNodesPerLayer * model.parameters().layers + kNodesOutside;
  LlamaGraph made;
  made.kind_ = kind;
  made.context_.reset(ggml_init(
      {.mem_size = ggml_tensor_overhead() * nodes + ggml_graph_overhead_custom(nodes, false),
       .mem_buffer = nullptr,
       .no_alloc = true}));
  ggml_context* ctx = made.context_.get();
  if (ctx == nullptr) return ResourceExhausted("no memory for a graph: nodes={}", nodes);
  made.graph_ = ggml_new_graph_custom(ctx, nodes, false);
  made.tokens_ = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, kind.rows);
  ggml_set_input(made.tokens_);
  if (kind.filter_layer) {
    made.AddFilter(model, ops, *kind.filter_layer);
  } else {
    made.AddModel(model, ops);
  }
  if (!ggml_gallocr_alloc_graph(allocator, made.graph_)) {
    return ResourceExhausted("no memory for the activations: rows={}", kind.rows);
  }
  return made;
}

}  // namespace kvasir::engine
