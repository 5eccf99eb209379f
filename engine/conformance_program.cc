#include "engine/conformance_program.h"

#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "client/examples/conformance_engine.h"
#include "engine/private_kv_store.h"
#include "engine/tokenizer.h"

namespace kvasir::engine {
namespace {

constexpr uint32_t kPrivateSlots = 64;
constexpr uint64_t kPrivateRowsMax = 1 << 16;

class StoredRows final : public examples::PrivateRows {
 public:
  explicit StoredRows(std::unique_ptr<PrivateKvStore> store) : store_(std::move(store)) {}
  absl::StatusOr<StepView> Begin(uint32_t want) override { return store_->Begin(want); }
  absl::Status Commit(std::span<const uint32_t> ids) override { return store_->Commit(ids); }
  uint64_t rows() const override { return store_->rows(); }

 private:
  const std::unique_ptr<PrivateKvStore> store_;
};

class LlamaModel final : public examples::ConformanceModel {
 public:
  LlamaModel(const ProgramOptions& options, const GgufModel& model, ModelSpec spec,
             LlamaEngine& engine)
      : options_(options), model_(model), spec_(std::move(spec)), engine_(engine) {}

  std::string name() const override { return spec_.name; }
  absl::StatusOr<ModelSpec> Spec() override { return spec_; }
  std::vector<std::string> Offers() const override {
    std::vector<std::string> offers{"unrotated", "mass"};
    if (spec_.rope != RopeStyle::kNone) offers.emplace_back("in_cache");
    return offers;
  }
  absl::StatusOr<std::vector<float>> Compute(const StepView& step,
                                             std::span<const uint32_t> ids) override {
    KVASIR_ASSIGN_OR_RETURN(const std::span<const float> logits,
                            engine_.Compute(ids, step, LogitsWanted::kLast));
    return std::vector<float>(logits.begin(), logits.end());
  }
  absl::StatusOr<std::unique_ptr<examples::PrivateRows>> NewPrivateRows() override {
    KVASIR_ASSIGN_OR_RETURN(
        std::unique_ptr<PrivateKvStore> store,
        PrivateKvStore::Create(
            GeometryOf(model_.parameters(), options_.engine.kv_type, kPrivateSlots),
            kPrivateRowsMax));
    return std::make_unique<StoredRows>(std::move(store));
  }

 private:
  const ProgramOptions& options_;
  const GgufModel& model_;
  const ModelSpec spec_;
  LlamaEngine& engine_;
};

}  // namespace

absl::Status RunConformance(const ProgramOptions& options) {
  KVASIR_ASSIGN_OR_RETURN(const GgufModel model,
                          GgufModel::Load(options.model_path, options.weights));
  KVASIR_ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Load(options.model_path));
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<LlamaEngine> engine,
                          LlamaEngine::Create(model, options.engine));
  KVASIR_ASSIGN_OR_RETURN(ModelSpec spec, ModelSpecOf(model, tokenizer, options.store.kvasir));
  LlamaModel tested(options, model, std::move(spec), *engine);
  examples::ConformanceEngine lines(examples::OptionsOfEnvironment(), tested);
  lines.Serve(std::cin, std::cout);
  return absl::OkStatus();
}

}  // namespace kvasir::engine
