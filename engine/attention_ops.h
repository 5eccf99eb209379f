// The things that ggml cannot do for block tables: store K and V rows in their slots, attend, and
// say what policies ask of attention. All are custom operators of a ggml graph and read the plan of
// the step at compute time, so that a graph is built once and computed for many steps.
#ifndef KVASIR_ENGINE_ATTENTION_OPS_H_
#define KVASIR_ENGINE_ATTENTION_OPS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <absl/status/status.h>

#include "client/view.h"
#include "engine/attention_plan.h"
#include "engine/far_blocks.h"
#include "engine/key_rotation.h"
#include "engine/rope.h"
#include "kernels/attention.h"
#include "kernels/scores.h"

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

// Queries that share one pass over the rows in prefill: their rotated heads stay in the first
// cache.
inline constexpr uint32_t kTileQueries = 32;

// Outlives the graphs it adds to. Prepare() and graph computation must alternate on one thread;
// ggml's workers then share the work without a lock: each writes to its own workspace, and to mass
// and query rows that no other one writes to. With one thread all results repeat bit for bit.
class AttentionOps {
 public:
  AttentionOps(const AttentionGeometry& geometry, const Rope& rope, uint32_t threads);
  AttentionOps(const AttentionOps&) = delete;
  AttentionOps& operator=(const AttentionOps&) = delete;

  // Plans the step that the next graph computation serves. `far`: of the step's sequence, used by
  // that computation where layers have a far_position; may be null where none has. Errors:
  // kInternal, see AttentionPlan, and for query rows of another width than the model's;
  // kFailedPrecondition without `far` where it is needed.
  absl::Status Prepare(const StepView& step, FarBlocks* far);

  // Why a lookup of the last graph computation failed: its results are void then.
  const absl::Status& failure() const { return failure_; }

  // Of the step: whether a graph needs the operators of attention mass, or of retrieval, and
  // whether one needs the last layer's attention although nobody wants its logits.
  bool asks_mass() const { return plan_.asks_mass(); }
  bool asks_blocks() const { return plan_.any_far(); }
  bool asks_last_layer() const { return plan_.AsksOf(geometry_.layers - 1); }

  // Adds: rotate the keys of k [kv_heads * head_dim, rows] (unless the view has unrotated ones) and
  // write k and v to the step's slots. v may be null: values are not written.
  ggml_tensor* Store(ggml_context* ctx, uint32_t layer, ggml_tensor* k, ggml_tensor* v);

  // Adds: the lookup of far blocks by q [heads * head_dim, rows], for layers that have a
  // far_position; after `stored`. Returns q, for Attend().
  ggml_tensor* Retrieve(ggml_context* ctx, uint32_t layer, ggml_tensor* q, ggml_tensor* stored);

  // Adds: attention of q [heads * head_dim, rows], after `stored`, the result of Store(); query
  // rows where they are asked for; with `mass` the attention mass too, one more pass over the keys
  // of layers that ask. Returns [heads * head_dim, rows].
  ggml_tensor* Attend(ggml_context* ctx, uint32_t layer, ggml_tensor* q, ggml_tensor* stored,
                      bool mass);

  // Adds: q [heads * head_dim, 1], the query of the step's last row, rotated at that row and summed
  // over the query heads of each kv head; after `stored`. Returns [kv_heads * head_dim].
  ggml_tensor* SumQuery(ggml_context* ctx, uint32_t layer, ggml_tensor* q, ggml_tensor* stored);

 private:
  struct LayerContext {
    AttentionOps* ops = nullptr;
    uint32_t layer = 0;
  };
  struct RowSlice {
    const PlannedRun* planned = nullptr;
    SlotRange slots;
  };
  // Scratch of one thread; sized in Prepare(), because an operator must not fail.
  struct Workspace {
    std::vector<float> query;                  // rotated queries
    std::vector<float> row;                    // a key row, or a tile's results
    std::vector<uint32_t> first, last;         // visible slots of a tile's queries
    std::vector<RowSlice> slices;              // this thread's share of the rows
    std::vector<kernels::AttentionRun> runs;   // the same for the kernel
    std::vector<kernels::AttentionRun> coded;  // and those of them with coded values
    std::vector<kernels::RecordRun> records;   // this thread's share of the records
    std::vector<kernels::MassRun> mass_runs;
    std::vector<std::byte> keys;      // a tile of keys, rotated where it is read
    std::vector<float> key_scratch;   // of KeyRotation
    kernels::AttentionState state;    // of all heads of a row, or a tile of one kv head
    kernels::AttentionState softmax;  // max and sum of a finished tile
    std::vector<kernels::AttentionState> by_head;  // the same of one query head each
    std::vector<float> block_mass;                 // of the rows of a far block
  };

  static void RetrieveOp(ggml_tensor* out, int ith, int nth, void* context);
  static void StoreOp(ggml_tensor* out, int ith, int nth, void* context);
  static void AttendRowOp(ggml_tensor* out, int ith, int nth, void* context);
  static void MergeOp(ggml_tensor* out, int ith, int nth, void* context);
  static void AttendTilesOp(ggml_tensor* out, int ith, int nth, void* context);
  static void AddMassOp(ggml_tensor* out, int ith, int nth, void* context);
  static void SumQueryOp(ggml_tensor* out, int ith, int nth, void* context);

  absl::Status RetrieveBlocks(uint32_t layer, const float* q);

  kernels::RecordAttention RecordShapeOf(const LayerPlan& layer) const {
    return {layer.k_record, layer.v_record, shape_.heads, geometry_.kv_heads, shape_.scale};
  }
  size_t group_floats() const { return size_t{shape_.heads} * geometry_.head_dim; }
  size_t row_floats() const { return size_t{geometry_.heads} * geometry_.head_dim; }
  void RotateQuery(uint32_t rotation, uint32_t t, std::span<const float> q, float* into) const;
  // Slots of a run as a kernel run of kv heads [head, head + heads), keys rotated in work.keys.
  kernels::AttentionRun RotatedRun(const PlannedRun& planned, SlotRange slots, uint32_t head,
                                   uint32_t heads, Workspace& work) const;

  void StoreRow(const LayerPlan& layer, uint32_t t, const float* k, const float* v,
                Workspace& work) const;

  // One query, whose rows are shared among threads (attention_row.cc).
  void AttendRow(const LayerPlan& layer, const float* q, uint64_t ith, uint64_t nth);
  void AttendRowRecords(const LayerPlan& layer, uint64_t ith, uint64_t nth, Workspace& work) const;
  void AddRowMass(const LayerPlan& layer, const float* q, uint64_t ith, uint64_t nth);
  void AddFarRowMass(const LayerPlan& layer, uint64_t ith, uint64_t nth);
  void RotateRow(const LayerPlan& layer, const float* q, Workspace& work) const;
  void ShareRows(const LayerPlan& layer, uint64_t ith, uint64_t nth, Workspace& work) const;
  template <typename Use>
  void ForSlices(Workspace& work, const Use& use) const;

  // Many queries in tiles of one kv head, which are shared among threads (attention_tiles.cc).
  void AttendTile(const LayerPlan& layer, const float* q, uint32_t kv_head, uint32_t begin,
                  uint32_t count, float* out, Workspace& work);
  void AddTilesMass(const LayerPlan& layer, const float* q, uint64_t ith, uint64_t nth);
  void AttendTileRecords(const LayerPlan& layer, uint32_t kv_head, uint32_t begin, uint32_t count,
                         Workspace& work) const;
  void SplitHeads(uint32_t count, Workspace& work) const;
  void AddRunMass(const LayerPlan& layer, const PlannedRun& planned, uint32_t kv_head,
                  uint32_t begin, uint32_t count, Workspace& work) const;
  void RotateTile(const LayerPlan& layer, const float* q, uint32_t kv_head, uint32_t begin,
                  uint32_t count, Workspace& work) const;
  void StoreQueries(const LayerPlan& layer, uint32_t kv_head, uint32_t begin, uint32_t count,
                    const Workspace& work) const;
  template <typename Use>
  void ForTile(const LayerPlan& layer, const PlannedRun& planned, uint32_t kv_head, uint32_t begin,
               uint32_t count, Workspace& work, const Use& use) const;

  const AttentionGeometry geometry_;
  const kernels::AttentionShape shape_;       // of one kv head
  const kernels::AttentionShape row_shape_;   // of all of them
  const kernels::AttentionShape head_shape_;  // of one query head
  const uint32_t pairs_;
  const uint32_t head_bytes_;  // of one kv head in a row
  AttentionPlan plan_;
  FarBlocks* far_ = nullptr;  // of the prepared step
  absl::Status failure_;
  KeyRotation keys_;
  std::vector<LayerContext> contexts_;
  std::vector<Workspace> workspaces_;
  // Softmax maximum and sum of each query of a batch, [kv_head][t][head]; kept for the mass.
  std::vector<float> softmax_max_, softmax_sum_;
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_ATTENTION_OPS_H_
