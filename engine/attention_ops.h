// The two things that ggml cannot do for block tables: store K and V rows in their slots, and
// attend. Both are custom operators of a ggml graph and read the plan of the step at compute time,
// so that a graph is built once and computed for many steps.
#ifndef KVASIR_ENGINE_ATTENTION_OPS_H_
#define KVASIR_ENGINE_ATTENTION_OPS_H_

#include <cstdint>
#include <span>
#include <vector>

#include <absl/status/status.h>

#include "client/view.h"
#include "engine/attention_plan.h"
#include "engine/rope.h"
#include "kernels/attention.h"

#include <ggml.h>

namespace kvasir::engine {

// Shape of the attention of one layer.
struct AttentionGeometry {
  uint32_t layers = 0;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  kernels::RowType type = kernels::RowType::kF16;  // kF16 or kF32
};

// Outlives the graphs it adds to. Prepare() and graph computation must alternate on one thread;
// ggml's workers then share the work without a lock: each writes to its own workspace.
class AttentionOps {
 public:
  AttentionOps(const AttentionGeometry& geometry, const Rope& rope, uint32_t threads);
  AttentionOps(const AttentionOps&) = delete;
  AttentionOps& operator=(const AttentionOps&) = delete;

  // Plans the step that the next graph computation serves. Errors: kInternal, see AttentionPlan.
  absl::Status Prepare(const StepView& step);

  // Adds: rotate the keys of k [kv_heads * head_dim, rows] and write k and v to the step's slots.
  ggml_tensor* Store(ggml_context* ctx, uint32_t layer, ggml_tensor* k, ggml_tensor* v);

  // Adds: attention of q [heads * head_dim, rows], after `stored`, the result of Store().
  // Returns [heads * head_dim, rows].
  ggml_tensor* Attend(ggml_context* ctx, uint32_t layer, ggml_tensor* q, ggml_tensor* stored);

 private:
  struct LayerContext {
    AttentionOps* ops = nullptr;
    uint32_t layer = 0;
  };
  // Scratch of one thread; sized in Prepare(), because an operator must not fail.
  struct Workspace {
    std::vector<float> query;                 // rotated queries
    std::vector<float> row;                   // a key row, or a tile's results
    std::vector<uint32_t> first, last;        // visible slots of a tile's queries
    std::vector<kernels::AttentionRun> runs;  // this thread's share of the rows
    kernels::AttentionState state;            // of all heads of a row, or a tile of one kv head
  };

  static void StoreOp(ggml_tensor* out, int ith, int nth, void* context);
  static void AttendRowOp(ggml_tensor* out, int ith, int nth, void* context);
  static void MergeOp(ggml_tensor* out, int ith, int nth, void* context);
  static void AttendTilesOp(ggml_tensor* out, int ith, int nth, void* context);

  void StoreRow(const LayerPlan& layer, uint32_t t, const float* k, const float* v,
                Workspace& work) const;
  void AttendRow(const LayerPlan& layer, const float* q, uint64_t ith, uint64_t nth);
  void AttendTile(const LayerPlan& layer, const float* q, uint32_t kv_head, uint32_t begin,
                  uint32_t count, float* out, Workspace& work) const;
  void RotateQuery(uint32_t rotation, uint32_t t, std::span<const float> q, float* into) const;
  void ShareRows(const LayerPlan& layer, uint64_t ith, uint64_t nth, Workspace& work) const;

  const AttentionGeometry geometry_;
  const kernels::AttentionShape shape_;      // of one kv head
  const kernels::AttentionShape row_shape_;  // of all of them
  const uint32_t pairs_;
  const uint32_t head_bytes_;  // of one kv head in a row
  AttentionPlan plan_;
  std::vector<LayerContext> contexts_;
  std::vector<Workspace> workspaces_;
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_ATTENTION_OPS_H_
