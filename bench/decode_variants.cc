#include "bench/decode_variants.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <span>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "engine/ggml_log.h"

#include <ggml.h>
#include <llama.h>

namespace kvasir::bench {
namespace {

constexpr uint64_t kFillRows = 512;
constexpr uint32_t kOrdinaryFirst = 100, kOrdinaryLast = 600;  // token ids

struct LlamaContextDeleter {
  void operator()(llama_context* context) const { llama_free(context); }
};

class LlamaVariant final : public DecodeVariant {
 public:
  explicit LlamaVariant(llama_context* context) : context_(context) {}

  absl::Status FillTo(uint64_t rows) override {
    if (rows_ > rows) {
      llama_memory_seq_rm(llama_get_memory(context_.get()), 0, static_cast<llama_pos>(rows), -1);
      rows_ = rows;
    }
    while (rows_ < rows) {
      std::vector<llama_token> tokens;
      for (uint64_t i = 0; i < std::min(kFillRows, rows - rows_); ++i) {
        tokens.push_back(static_cast<llama_token>(ordinary_(random_)));
      }
      KVASIR_RETURN_IF_ERROR(Decode(tokens));
    }
    return absl::OkStatus();
  }

  absl::Status Step() override {
    std::array<llama_token, 1> token = {static_cast<llama_token>(kOrdinaryFirst)};
    KVASIR_RETURN_IF_ERROR(Decode(token));
    return llama_get_logits_ith(context_.get(), -1) != nullptr ? absl::OkStatus()
                                                               : Internal("libllama has no logits");
  }

  absl::StatusOr<double> KeptShare() override { return 1.0; }

 private:
  absl::Status Decode(std::span<llama_token> tokens) {
    const auto count = static_cast<int32_t>(tokens.size());
    if (const int rc = llama_decode(context_.get(), llama_batch_get_one(tokens.data(), count));
        rc != 0) {
      return Internal("libllama cannot compute: rc={} rows={} reason={}", rc, rows_,
                      engine::TakeLibraryErrors());
    }
    rows_ += tokens.size();
    return absl::OkStatus();
  }

  std::unique_ptr<llama_context, LlamaContextDeleter> context_;
  std::uniform_int_distribution<uint32_t> ordinary_{kOrdinaryFirst, kOrdinaryLast};
  std::mt19937 random_{1};
  uint64_t rows_ = 0;
};

class StoreVariant final : public DecodeVariant {
 public:
  StoreVariant(engine::LlamaEngine& engine, std::unique_ptr<engine::KvStore> store,
               double separator_share)
      : engine_(engine), store_(std::move(store)), separator_share_(separator_share) {}

  absl::Status FillTo(uint64_t rows) override {
    if (store_->rows() > rows) KVASIR_RETURN_IF_ERROR(store_->Truncate(rows));
    while (store_->rows() < rows) {
      const uint64_t want = std::min(kFillRows, rows - store_->rows());
      KVASIR_ASSIGN_OR_RETURN(const StepView step, store_->Begin(static_cast<uint32_t>(want)));
      for (const LayerView& layer : step.layers) WriteRows(step, layer);
      std::vector<uint32_t> ids(step.count);
      for (uint32_t t = 0; t < step.count; ++t) {
        ids[t] = IsSeparator(step.row + t) ? kSeparator : ordinary_(random_);
      }
      KVASIR_RETURN_IF_ERROR(store_->Commit(ids));
    }
    return absl::OkStatus();
  }

  absl::Status Step() override {
    const std::array<uint32_t, 1> token = {kOrdinaryFirst};
    KVASIR_ASSIGN_OR_RETURN(const StepView step, store_->Begin(1));
    KVASIR_RETURN_IF_ERROR(engine_.Compute(token, step, engine::LogitsWanted::kLast).status());
    return store_->Commit(token);
  }

  absl::StatusOr<double> KeptShare() override {
    KVASIR_ASSIGN_OR_RETURN(const engine::KvUsage usage, store_->Usage());
    return static_cast<double>(usage.tokens_kept) / static_cast<double>(usage.tokens_seen);
  }

 private:
  bool IsSeparator(uint64_t row) const {
    return std::floor(static_cast<double>(row + 1) * separator_share_) >
           std::floor(static_cast<double>(row) * separator_share_);
  }

  void WriteRows(const StepView& step, const LayerView& layer) {
    constexpr size_t kKinds = 61;  // different rows
    const size_t bytes = std::max(layer.k_stride, layer.v_stride);
    if (made_up_.size() != kKinds * bytes / sizeof(ggml_fp16_t)) {
      std::normal_distribution<float> normal;
      made_up_.resize(kKinds * bytes / sizeof(ggml_fp16_t));
      for (ggml_fp16_t& value : made_up_) value = ggml_fp32_to_fp16(normal(random_));
    }
    const auto* rows = reinterpret_cast<const std::byte*>(made_up_.data());
    for (uint64_t p = step.row; p < step.row + step.count; ++p) {
      std::memcpy(layer.KeyOf(p), rows + p % kKinds * bytes, layer.k_stride);
      std::memcpy(layer.ValueOf(p), rows + (p + 7) % kKinds * bytes, layer.v_stride);
    }
  }

  engine::LlamaEngine& engine_;
  std::unique_ptr<engine::KvStore> store_;
  const double separator_share_;
  std::uniform_int_distribution<uint32_t> ordinary_{kOrdinaryFirst, kOrdinaryLast};
  std::mt19937 random_{2};
  std::vector<ggml_fp16_t> made_up_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DecodeVariant>> MakeLlamaVariant(llama_model* model,
                                                                uint64_t rows_max, uint32_t threads,
                                                                bool flash_attention) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(rows_max);
  params.n_batch = params.n_ubatch = kFillRows;
  params.n_seq_max = 1;
  params.n_threads = static_cast<int32_t>(threads);
  params.n_threads_batch = static_cast<int32_t>(std::max(1U, std::thread::hardware_concurrency()));
  params.flash_attn_type =
      flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  params.no_perf = true;
  llama_context* context = llama_init_from_model(model, params);
  if (context == nullptr) {
    return Internal("libllama cannot make a context: rows={} reason={}", rows_max,
                    engine::TakeLibraryErrors());
  }
  return std::unique_ptr<DecodeVariant>(new LlamaVariant(context));
}

std::unique_ptr<DecodeVariant> MakeStoreVariant(engine::LlamaEngine& engine,
                                                std::unique_ptr<engine::KvStore> store,
                                                double separator_share) {
  return std::make_unique<StoreVariant>(engine, std::move(store), separator_share);
}

}  // namespace kvasir::bench
