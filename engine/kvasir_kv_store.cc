#include "engine/kvasir_kv_store.h"

#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir::engine {
namespace {

constexpr std::array<std::string_view, 9> kSeparators{".", ",", "?",  "!", ";",
                                                      ":", " ", "\t", "\n"};
// Stands beside the file's digest where rows are computed with expanded weights.
constexpr char kExpandedWeights[] = "weights expanded to f32";

absl::StatusOr<std::vector<std::string>> TokenTexts(const Tokenizer& tokenizer) {
  std::vector<std::string> texts;
  for (uint32_t id = 0; id < tokenizer.vocabulary(); ++id) {
    KVASIR_ASSIGN_OR_RETURN(std::string text, tokenizer.Piece(id));
    texts.push_back(std::move(text));
  }
  return texts;
}

KvType KvTypeOf(kernels::RowType type) {
  switch (type) {
    case kernels::RowType::kF16:
      return KvType::kF16;
    case kernels::RowType::kBF16:
      return KvType::kBF16;
    case kernels::RowType::kF32:
      return KvType::kF32;
    case kernels::RowType::kE4M3:
      break;
  }
  return KvType::kF8E4M3;
}

}  // namespace

absl::StatusOr<ModelSpec> ModelSpecOf(const GgufModel& model, const Tokenizer& tokenizer,
                                      const KvasirStoreOptions& options) {
  const HyperParameters& parameters = model.parameters();
  ModelSpec spec;
  const std::string& path = model.path();
  spec.name = path.substr(path.rfind('/') + 1).substr(0, 256);
  spec.kv_type = KvTypeOf(options.kv_type);
  spec.layers.assign(parameters.layers, LayerSpec{.kv_heads = parameters.kv_heads,
                                                  .k_head_dim = parameters.head_dim,
                                                  .v_head_dim = parameters.head_dim,
                                                  .query_heads = parameters.heads});
  // Scaled or per-pair frequencies are the engine's own: the daemon is not asked to turn such keys.
  if (parameters.rope_scale == 1.0 && model.rope_factors().empty()) {
    spec.rope = RopeStyle::kInterleaved;
    spec.rope_theta = parameters.rope_theta;
    spec.rope_dims = parameters.rotated_dims;
  }
  spec.slots_per_block = options.slots_per_block;
  spec.vocabulary_size = parameters.vocabulary;
  spec.prefill_rows_per_s = options.prefill_rows_per_s;
  KVASIR_ASSIGN_OR_RETURN(const std::vector<std::string> texts, TokenTexts(tokenizer));
  for (uint32_t id = 0; id < texts.size(); ++id) {
    for (const std::string_view separator : kSeparators) {
      if (texts[id] == separator) spec.separator_token_ids.push_back(id);
    }
  }
  KVASIR_ASSIGN_OR_RETURN(spec.weights_digest, DigestFile(path));
  if (options.expanded_weights) spec.adapter_digests.push_back(kExpandedWeights);
  return spec;
}

absl::StatusOr<std::unique_ptr<KvasirKvStore>> KvasirKvStore::Create(
    const GgufModel& model, const Tokenizer& tokenizer, const KvasirStoreOptions& options) {
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, Session::Connect(options.connect));
  KVASIR_ASSIGN_OR_RETURN(const ModelSpec spec, ModelSpecOf(model, tokenizer, options));
  KVASIR_ASSIGN_OR_RETURN(const ModelHandle handle, session->RegisterModel(spec));
  if (options.send_texts) {
    KVASIR_ASSIGN_OR_RETURN(const std::vector<std::string> texts, TokenTexts(tokenizer));
    KVASIR_RETURN_IF_ERROR(session->PutTokenTexts(handle, 0, texts));
  }
  OpenOptions open;
  open.model = handle;
  open.retention = options.retention;
  open.prompt_rows = options.prompt_rows;
  open.label = options.label;
  open.max_rows = options.max_rows;
  open.reads_records = true;
  open.snapshot = options.snapshot;
  if (options.shared_prompt.size() > 1) {
    open.prefix = PrefixOptions{};
    open.prefix->tokens = options.shared_prompt;
    open.prefix->rows_max = options.shared_prompt.size() - 1;  // the last one gives the logits
    open.prefix->least_quality = options.least_quality;
  }
  KVASIR_ASSIGN_OR_RETURN(Sequence sequence, session->OpenSequence(open));
  return std::unique_ptr<KvasirKvStore>(new KvasirKvStore(std::move(session), std::move(sequence)));
}

absl::StatusOr<std::vector<uint32_t>> KvasirKvStore::SelectRows(std::span<const float> query) {
  KVASIR_ASSIGN_OR_RETURN(std::vector<uint32_t> rows, sequence_.SelectRows(query));
  selected_ = true;
  return rows;
}

absl::StatusOr<KvSnapshot> KvasirKvStore::Save() {
  KVASIR_ASSIGN_OR_RETURN(Snapshot snapshot, sequence_.Save());
  return KvSnapshot{std::move(snapshot.id), snapshot.rows, sequence_.retention()};
}

absl::StatusOr<KvUsage> KvasirKvStore::Usage() {
  KVASIR_ASSIGN_OR_RETURN(const Sequence::Footprint footprint, sequence_.MeasureFootprint());
  return KvUsage{sequence_.rows(), footprint.kept_rows, footprint.held_bytes};
}

}  // namespace kvasir::engine
