// KvasirKvStore: K and V rows in the shared memory of a kvasird, through libkvasir.
#ifndef KVASIR_ENGINE_KVASIR_KV_STORE_H_
#define KVASIR_ENGINE_KVASIR_KV_STORE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "client/session.h"
#include "engine/gguf_model.h"
#include "engine/kv_store.h"
#include "engine/tokenizer.h"
#include "kernels/attention.h"

namespace kvasir::engine {

struct KvasirStoreOptions {
  ConnectOptions connect;
  kernels::RowType kv_type = kernels::RowType::kF16;
  std::string retention;     // policy grammar; "": the tenant's default
  uint64_t prompt_rows = 0;  // rows of the prompt, for policies that tell it apart
  std::string snapshot;      // id of a saved sequence to go on from; "": none
  // A prompt: the store goes on from what is cached of it, all but its last token at most, and may
  // publish its rows. Empty: its rows are private.
  std::vector<uint32_t> shared_prompt;
  double prefill_rows_per_s = 0;  // that this process computes, by measurement; 0: unknown
  std::optional<PrefixQuality> least_quality;  // also from other forms of it that are so good
  std::string label;
  uint64_t max_rows = 0;          // the sequence never grows beyond; 0: no bound
  uint32_t slots_per_block = 0;   // 0: as the daemon likes
  bool send_texts = false;        // token texts, for kvasirctl inspect
  bool expanded_weights = false;  // computed with F32 weights: other rows, so another fingerprint
};

// The model spec of a GGUF model: layers, rope, digest of the file, and as separators every token
// whose whole text is one of the nine of the SepLLM paper (. , ? ! ; : space tab newline). Errors:
// those of DigestFile(). Cost: one pass over the file and one over the vocabulary.
absl::StatusOr<ModelSpec> ModelSpecOf(const GgufModel& model, const Tokenizer& tokenizer,
                                      const KvasirStoreOptions& options);

// Not thread-safe.
class KvasirKvStore final : public KvStore {
 public:
  // Connects, registers the model, opens a sequence. Errors: those of client/session.h.
  static absl::StatusOr<std::unique_ptr<KvasirKvStore>> Create(const GgufModel& model,
                                                               const Tokenizer& tokenizer,
                                                               const KvasirStoreOptions& options);

  std::string retention() const override { return sequence_.retention(); }
  uint64_t rows() const override { return sequence_.rows(); }
  absl::StatusOr<StepView> Begin(uint32_t want) override { return sequence_.Begin(want); }
  absl::Status Commit(std::span<const uint32_t> token_ids) override {
    return sequence_.Commit(token_ids);
  }
  std::optional<uint32_t> filter_layer() const override {
    return selected_ ? std::nullopt : sequence_.filter_layer();
  }
  absl::StatusOr<std::vector<uint32_t>> SelectRows(std::span<const float> query) override;
  bool retrieves() const override { return sequence_.retrieves(); }
  absl::StatusOr<std::span<const KeptRunView>> Retrieve(uint32_t layer,
                                                        std::span<const float> query,
                                                        std::span<const float> mass) override {
    return sequence_.Retrieve(layer, query, mass);
  }
  absl::Status Truncate(uint64_t row) override { return sequence_.Truncate(row); }
  absl::StatusOr<KvSnapshot> Save() override;
  absl::Status DropSnapshot(const std::string& id) override { return session_->DropSnapshot(id); }
  absl::Status PublishPrefix() override { return sequence_.PublishPrefix().status(); }
  absl::StatusOr<KvUsage> Usage() override;
  absl::Status Close() override { return sequence_.Close(); }

  const Sequence& sequence() const { return sequence_; }

 private:
  KvasirKvStore(std::unique_ptr<Session> session, Sequence sequence)
      : session_(std::move(session)), sequence_(std::move(sequence)) {}

  std::unique_ptr<Session> session_;
  Sequence sequence_;
  bool selected_ = false;
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_KVASIR_KV_STORE_H_
