#include "engine/llama_engine.h"

#include <optional>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "engine/attention_ops.h"
#include "engine/ggml_log.h"
#include "engine/llama_graph.h"
#include "engine/rope.h"
#include "kernels/row_convert.h"

#include <ggml-cpu.h>

namespace kvasir::engine {
namespace {

constexpr uint32_t kThreadsMax = 256;

struct ThreadPoolDeleter {
  void operator()(ggml_threadpool* pool) const { ggml_threadpool_free(pool); }
};

class CpuEngine final : public LlamaEngine {
 public:
  CpuEngine(const GgufModel& model, const EngineOptions& options)
      : model_(model), rope_(model), ops_(AttentionOf(model, options), rope_, options.threads) {}

  absl::Status SetUp(uint32_t threads) {
    backend_.reset(ggml_backend_cpu_init());
    allocator_.reset(ggml_gallocr_new(ggml_backend_cpu_buffer_type()));
    if (backend_ == nullptr || allocator_ == nullptr) {
      return ResourceExhausted("ggml's CPU backend could not be made");
    }
    ggml_backend_cpu_set_n_threads(backend_.get(), static_cast<int>(threads));
    if (threads > 1) {  // without a pool of ours, ggml makes and ends its threads for every token
      ggml_threadpool_params params = ggml_threadpool_params_default(static_cast<int>(threads));
      pool_.reset(ggml_threadpool_new(&params));
      if (pool_ == nullptr) return ResourceExhausted("no threads: threads={}", threads);
      ggml_backend_cpu_set_threadpool(backend_.get(), pool_.get());
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::span<const float>> Compute(std::span<const uint32_t> tokens,
                                                 const StepView& step, LogitsWanted wanted,
                                                 FarBlocks* far) override {
    return Run(tokens, step, {.rows = step.count, .wanted = wanted}, far);
  }

  absl::StatusOr<std::span<const float>> ComputeFilter(std::span<const uint32_t> tokens,
                                                       const StepView& step,
                                                       uint32_t filter_layer) override {
    if (filter_layer >= model_.parameters().layers) {
      return InvalidArgument("filter layer out of bounds: filter_layer={} min=0 max={}",
                             filter_layer, model_.parameters().layers - 1);
    }
    return Run(tokens, step, {.rows = step.count, .filter_layer = filter_layer}, nullptr);
  }

  const GgufModel& model() const override { return model_; }

 private:
  static AttentionGeometry AttentionOf(const GgufModel& model, const EngineOptions& options) {
    const HyperParameters& p = model.parameters();
    return {.layers = p.layers,
            .heads = p.heads,
            .kv_heads = p.kv_heads,
            .head_dim = p.head_dim,
            .type = options.kv_type};
  }

  absl::StatusOr<std::span<const float>> Run(std::span<const uint32_t> tokens, const StepView& step,
                                             GraphKind kind, FarBlocks* far) {
    KVASIR_RETURN_IF_ERROR(CheckTokens(tokens, step));
    KVASIR_RETURN_IF_ERROR(ops_.Prepare(step, far));
    kind.mass = ops_.asks_mass();
    kind.retrieve = ops_.asks_blocks();
    kind.attend_last = kind.wanted == LogitsWanted::kNone && ops_.asks_last_layer();
    if (!graph_ || graph_->kind() != kind) {
      graph_.reset();
      KVASIR_ASSIGN_OR_RETURN(graph_, LlamaGraph::Build(model_, ops_, kind, allocator_.get()));
    }
    ggml_backend_tensor_set(graph_->tokens(), tokens.data(), 0, tokens.size_bytes());
    const ggml_status status = ggml_backend_graph_compute(backend_.get(), graph_->graph());
    if (status != GGML_STATUS_SUCCESS) {
      return Internal("ggml could not compute the graph: status={}", ggml_status_to_string(status));
    }
    KVASIR_RETURN_IF_ERROR(ops_.failure());
    if (graph_->result() == nullptr) return std::span<const float>();
    return std::span<const float>(ggml_get_data_f32(graph_->result()),
                                  static_cast<size_t>(ggml_nelements(graph_->result())));
  }

  absl::Status CheckTokens(std::span<const uint32_t> tokens, const StepView& step) const {
    if (tokens.size() != step.count || tokens.empty() || tokens.size() > kBatchRowsMax) {
      return InvalidArgument("batch has the wrong size: tokens={} rows={} min=1 max={}",
                             tokens.size(), step.count, kBatchRowsMax);
    }
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] >= model_.parameters().vocabulary) {
        return InvalidArgument("token id beyond the vocabulary: row={} token_id={} vocabulary={}",
                               step.row + i, tokens[i], model_.parameters().vocabulary);
      }
    }
    return absl::OkStatus();
  }

  const GgufModel& model_;
  const Rope rope_;
  AttentionOps ops_;
  std::unique_ptr<ggml_threadpool, ThreadPoolDeleter> pool_;
  ggml_backend_ptr backend_;
  ggml_gallocr_ptr allocator_;
  std::optional<LlamaGraph> graph_;  // of the last step; a decode step has the same one every time
};

}  // namespace

KvGeometry GeometryOf(const HyperParameters& parameters, kernels::RowType type,
                      uint32_t slots_per_block) {
  const auto element_bytes = static_cast<uint32_t>(kernels::ElementBytes(type));
  const uint32_t row_bytes = parameters.kv_heads * parameters.head_dim * element_bytes;
  return {.layers = parameters.layers,
          .slots_per_block = slots_per_block,
          .k_row_bytes = row_bytes,
          .v_row_bytes = row_bytes};
}

absl::StatusOr<std::unique_ptr<LlamaEngine>> LlamaEngine::Create(const GgufModel& model,
                                                                 const EngineOptions& options) {
  QuietLibraries();
  if (options.threads == 0 || options.threads > kThreadsMax) {
    return InvalidArgument("threads out of bounds: threads={} min=1 max={}", options.threads,
                           kThreadsMax);
  }
  if (options.kv_type != kernels::RowType::kF16 && options.kv_type != kernels::RowType::kF32) {
    return InvalidArgument("KV rows must be f16 or f32: kv_type={}",
                           options.kv_type == kernels::RowType::kBF16 ? "bf16" : "e4m3");
  }
  auto engine = std::make_unique<CpuEngine>(model, options);
  KVASIR_RETURN_IF_ERROR(engine->SetUp(options.threads));
  return std::unique_ptr<LlamaEngine>(std::move(engine));
}

}  // namespace kvasir::engine
