// ToyTransformer: a transformer small enough to read, whose keys and values lie in a step's views.
//
// Weights are random numbers of a fixed seed: it says nothing sensible, but its logits depend on
// every row that attention looks at. Rows are f32. Thread-safe after construction.
#ifndef KVASIR_CLIENT_EXAMPLES_TOY_TRANSFORMER_H_
#define KVASIR_CLIENT_EXAMPLES_TOY_TRANSFORMER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "client/examples/attention_loop.h"
#include "client/examples/conformance_engine.h"
#include "client/model_spec.h"
#include "client/view.h"

namespace kvasir::examples {

// Attention of one head of the query of `row`.
using Attention =
    std::function<void(const StepView& step, uint32_t layer, uint64_t row, const HeadShape& shape,
                       std::span<const float> q, std::span<float> out)>;

// AttendHead(), or where the view asks for more AttendAsked().
void AttendAs(const LayerView& view, const StepView& step, uint64_t row, const HeadShape& shape,
              std::span<const float> q, std::span<float> out);
// AttendAs() of the layer's own view.
void AttendLayer(const StepView& step, uint32_t layer, uint64_t row, const HeadShape& shape,
                 std::span<const float> q, std::span<float> out);

class ToyTransformer {
 public:
  static constexpr uint32_t kLayers = 3, kKvHeads = 2, kQueryHeads = 4, kHeadDim = 16;
  static constexpr uint32_t kWidth = 48, kVocabulary = 96, kSlotsPerBlock = 16;

  ToyTransformer();

  static ModelSpec Spec();

  // Computes the rows of the step, one an id: writes their keys and values, and returns the logits
  // of the last one. REQUIRES: ids.size() == step.count, each id below kVocabulary.
  std::vector<float> Compute(const StepView& step, std::span<const uint32_t> ids,
                             const Attention& attend) const;

 private:
  // [rows][columns]
  struct Matrix {
    uint32_t rows = 0, columns = 0;
    std::vector<float> values;
  };
  struct Layer {
    Matrix q, k, v, out, mix;
  };
  static std::vector<float> Times(const Matrix& matrix, std::span<const float> x);

  Matrix embedding_;  // also what makes logits
  std::vector<Layer> layers_;
};

// Rows of one text in this process's own memory. Not thread-safe.
class ToyRows final : public PrivateRows {
 public:
  absl::StatusOr<StepView> Begin(uint32_t want) override;
  absl::Status Commit(std::span<const uint32_t> ids) override;
  uint64_t rows() const override { return rows_; }

 private:
  uint64_t rows_ = 0;
  std::vector<std::vector<std::vector<float>>> blocks_;  // [layer][block][plane, slot, element]
  std::vector<std::vector<RecentBlockView>> recent_;
  std::vector<LayerView> views_;
};

// The toy as kvasir-conformance meets it. `attend`: AttendLayer(), but for tests.
class ToyModel final : public ConformanceModel {
 public:
  explicit ToyModel(Attention attend) : attend_(std::move(attend)) {}

  std::string name() const override { return "toy transformer"; }
  absl::StatusOr<ModelSpec> Spec() override { return ToyTransformer::Spec(); }
  std::vector<std::string> Offers() const override { return {"in_cache", "unrotated", "mass"}; }
  absl::StatusOr<std::vector<float>> Compute(const StepView& step,
                                             std::span<const uint32_t> ids) override {
    return transformer_.Compute(step, ids, attend_);
  }
  absl::StatusOr<std::unique_ptr<PrivateRows>> NewPrivateRows() override {
    return std::make_unique<ToyRows>();
  }

 private:
  const ToyTransformer transformer_;
  const Attention attend_;
};

}  // namespace kvasir::examples

#endif  // KVASIR_CLIENT_EXAMPLES_TOY_TRANSFORMER_H_
