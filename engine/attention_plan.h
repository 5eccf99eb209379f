// AttentionPlan: what the attention of one step reads, as kernel runs; made once a step, read by
// all threads.
#ifndef KVASIR_ENGINE_ATTENTION_PLAN_H_
#define KVASIR_ENGINE_ATTENTION_PLAN_H_

#include <cstdint>
#include <span>
#include <vector>

#include <absl/status/status.h>

#include "client/view.h"
#include "engine/rope.h"
#include "kernels/attention.h"
#include "kernels/encoding/record_attention.h"
#include "kernels/encoding/row_code.h"

namespace kvasir::engine {

// Rows that lie one after the other in memory. run.query_set indexes LayerPlan::rotations.
struct PlannedRun {
  enum class Kind {
    kKept,    // every query sees all rows
    kRecent,  // slot s holds row first_row + s; seen inside the window up to the query's own row
    kSticky,  // slot s holds row rows[s]; seen where it is below the window
    kFar,     // slot s holds row first_row + s; seen below the window, keys as they lie
  };
  kernels::AttentionRun run;  // of kv head 0
  Kind kind = Kind::kKept;
  uint64_t first_row = 0;
  std::span<const uint64_t> rows;
  const uint32_t* positions = nullptr;  // of kept rows, kv head 0 first; other kinds: null
  uint32_t head_stride = 0;             // between the positions of neighbouring kv heads
  float* mass = nullptr;                // of slot 0 and kv head 0; null: not asked
  uint64_t mass_stride = 0;             // between neighbouring kv heads
  uint64_t share = 0;      // runs that may name the same row have the same: one thread adds to them
  bool coded = false;      // values are in the layer's code
  bool turned = false;     // keys are turned to their positions where they are read
  float* total = nullptr;  // mass of all its rows and heads; null: not asked

  // Where the key in slot `slot` of `kv_head` stands, by its row.
  uint64_t PositionOf(uint32_t slot, uint32_t kv_head) const {
    if (kind != Kind::kKept) return first_row + slot;
    return positions[slot + uint64_t{kv_head} * head_stride];
  }
};

// One record, or the part of it that is not dropped. run.query_set as in PlannedRun; run.first and
// run.last: the slots that are there at all.
struct PlannedRecord {
  kernels::RecordRun run;  // of kv head 0
  bool windowed = false;
  uint64_t first_row = 0;  // windowed: of slot 0
};

struct SlotRange {
  uint32_t first = 0;
  uint32_t last = 0;  // one past
};

// Whether attention must add mass of anything of the layer.
bool AsksMass(const LayerView& view);

struct LayerPlan {
  const LayerView* view = nullptr;
  std::vector<PlannedRun> runs;
  std::vector<PlannedRecord> records;
  kernels::RecordShape k_record, v_record;
  kernels::RotatedRow value_code;   // of coded runs
  std::vector<uint32_t> rotations;  // the distinct query rotations of this layer
  uint32_t far_set = 0;             // of the rotations, the one at far_position

  // Which slots of `planned` the query of `row` sees.
  SlotRange Visible(const PlannedRun& planned, uint64_t row) const;
  SlotRange Visible(const PlannedRecord& planned, uint64_t row) const;
};

// Prepare() by one thread; the rest is const and thread-safe until the next Prepare().
class AttentionPlan {
 public:
  // `rows`: the type of K and V elements, `head_dim` of them in each of the kv heads.
  AttentionPlan(const Rope& rope, kernels::RowType rows, uint32_t head_dim, uint32_t kv_heads)
      : rope_(rope), type_(rows), head_dim_(head_dim), kv_heads_(kv_heads) {}

  // Plans `step`, whose spans must outlive the plan. Cost: O(blocks) a layer, and one table of
  // angles for each distinct query position. Errors: kInternal for views that do not cover the
  // step's rows, with records or codes of another format than this build reads, with mass arrays
  // that are too short, unrotated keys without positions, or far rows beside sticky ones or rotated
  // keys.
  absl::Status Prepare(const StepView& step, uint32_t layers);

  // Adds blocks that every query of a layer with a far_position sees; totals[i] is where the mass
  // of blocks[i] is added. Between Prepare() and the layer's attention, by one thread.
  // REQUIRES: blocks.size() == totals.size().
  void AddBlocks(uint32_t layer, std::span<const KeptRunView> blocks, std::span<float> totals);

  uint64_t row() const { return row_; }
  uint32_t count() const { return count_; }
  const LayerPlan& layer(uint32_t index) const { return layers_[index]; }
  // Index into `rotations` of the rows' own positions.
  static constexpr uint32_t kOwnPosition = 0;

  // Cosines and sines, rope.pairs() of each, of rotation `index` for the query of row row() + t.
  const float* Cosine(uint32_t index, uint32_t t) const { return AnglesOf(index, t); }
  const float* Sine(uint32_t index, uint32_t t) const { return AnglesOf(index, t) + rope_.pairs(); }

  // Whether any layer asks for attention mass.
  bool asks_mass() const { return asks_mass_; }
  // Whether a layer asks for anything that attention makes beside its result.
  bool AsksOf(uint32_t layer) const;
  // Whether any layer has far rows.
  bool any_far() const { return any_far_; }
  // Whether any layer's keys are unrotated.
  bool any_unrotated() const { return any_unrotated_; }
  // Weight of each query in the attention mass, ascending; set where mass is asked.
  std::span<const float> mass_weights() const { return mass_weights_; }

  size_t most_runs() const { return most_runs_; }
  size_t most_records() const { return most_records_; }
  size_t most_rotations() const { return most_rotations_; }

 private:
  struct Rotation {
    int64_t offset = 0;
    uint64_t max = 0;
    std::vector<float> angles;  // [t][cosine | sine][pair]
  };

  const float* AnglesOf(uint32_t index, uint32_t t) const {
    return rotations_[index].angles.data() + size_t{t} * 2 * rope_.pairs();
  }
  uint32_t FindRotation(int64_t offset, uint64_t max);
  // Index among the layer's rotations of one of all the plan's; adds it where it is new.
  static uint32_t FindSet(LayerPlan& plan, uint32_t rotation);
  absl::Status PlanLayer(const LayerView& view, LayerPlan& plan);
  absl::Status CheckLayer(const LayerView& view) const;
  absl::Status PlanKept(const LayerView& view, LayerPlan& plan);
  void PlanRecent(const LayerView& view, LayerPlan& plan) const;
  void PlanSticky(const LayerView& view, LayerPlan& plan) const;
  absl::Status PlanRecords(const LayerView& view, LayerPlan& plan);
  void PlanFar(const LayerView& view, LayerPlan& plan) const;

  const Rope& rope_;
  const kernels::RowType type_;
  const uint32_t head_dim_;
  const uint32_t kv_heads_;
  uint64_t row_ = 0;
  uint32_t count_ = 0;
  std::vector<LayerPlan> layers_;
  std::vector<Rotation> rotations_;
  std::vector<float> mass_weights_;  // [t]
  bool asks_mass_ = false;
  bool any_unrotated_ = false;
  bool any_far_ = false;
  size_t most_runs_ = 0;
  size_t most_records_ = 0;
  size_t most_rotations_ = 0;
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_ATTENTION_PLAN_H_
