#include "client/llama_cpp/llama_cache.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "client/llama_cpp/daemon_model.h"
#include "client/llama_cpp/daemon_rows.h"
#include "client/llama_cpp/llama_state.h"

#include <ggml.h>
#include <llama.h>

namespace kvasir::llama_cpp {
namespace {

// Far from 0, where every rotation is the same.
constexpr int32_t kProbePosition = 4001;

bool DecodeOne(llama_context* context, int32_t sequence, llama_token token, int32_t position) {
  llama_batch batch = llama_batch_init(1, 0, 1);
  batch.n_tokens = 1;
  batch.token[0] = token;
  batch.pos[0] = position;
  batch.n_seq_id[0] = 1;
  batch.seq_id[0][0] = sequence;
  batch.logits[0] = 1;
  const bool decoded = llama_decode(context, batch) == 0;
  llama_batch_free(batch);
  return decoded;
}

std::string TextOf(const kvasir_bytes& bytes) {
  return bytes.size == 0 ? std::string()
                         : std::string(static_cast<const char*>(bytes.data), bytes.size);
}

}  // namespace

kvasir_code LlamaCache::Open(const kvasir_llama_options& options, kvasir_error* error) {
  DaemonPlace place = FindDaemon(options.control_socket, options.data_socket);
  place.deadline_ms = options.deadline_ms;
  kvasir_error why{};
  session_ = ConnectTo(place, &why);
  if (session_ == nullptr) return Fail(error, static_cast<kvasir_code>(why.code), why.text);
  std::string digest;
  const kvasir_code code = Probe(options.probe_sequence, &digest, error);
  if (code != KVASIR_OK) return code;
  salt_ = TextOf(options.salt);
  return Register(options, digest, error);
}

kvasir_code LlamaCache::Probe(int32_t sequence, std::string* digest, kvasir_error* error) {
  const llama_model* const model = llama_get_model(context_);
  const llama_vocab* const vocabulary = llama_model_get_vocab(model);
  llama_memory_t memory = llama_get_memory(context_);
  if (memory == nullptr || llama_memory_seq_pos_max(memory, sequence) != -1) {
    return Fail(error, KVASIR_FAILED_PRECONDITION,
                "the probe sequence is not empty: sequence=" + std::to_string(sequence));
  }
  const llama_token token = std::max(0, llama_vocab_bos(vocabulary));
  const int32_t position = std::min(kProbePosition, llama_model_n_ctx_train(model) - 1);
  if (!DecodeOne(context_, sequence, token, position)) {
    return Fail(error, KVASIR_FAILED_PRECONDITION, "the probe's token cannot be decoded");
  }
  capture_ = FindHook();
  std::optional<StateImage> image = GetState(context_, sequence, capture_);
  std::optional<StateLayout> layout = image ? ParseState(image->bytes()) : std::nullopt;
  if (!layout || layout->positions.size() != 1) {
    llama_memory_seq_rm(memory, sequence, -1, -1);
    return Fail(error, KVASIR_UNIMPLEMENTED,
                "the cache of this model is not one tensor of keys and one of values a layer");
  }
  uint64_t row_bytes = 0;
  for (const StateLayer& layer : layout->layers) row_bytes += layer.k_row_bytes + layer.v_row_bytes;
  if (image->captured_bytes() != row_bytes) {  // not all of it is the plug-in's
    capture_ = nullptr;
    image.emplace(*GetState(context_, sequence, nullptr));
  }
  layout_ = *std::move(layout);
  layout_text_ = layout_.Text();
  std::string all = layout_text_;
  for (const StateLayer& layer : layout_.layers) {
    std::string row(layer.k_row_bytes + layer.v_row_bytes, '\0');
    auto* const bytes = reinterpret_cast<std::byte*>(row.data());
    image->ReadRows(layout_, layer,
                    {bytes, bytes + layer.k_row_bytes, layer.k_row_bytes, layer.v_row_bytes, 1, 0});
    all += row;
  }
  *digest = ShortDigest(all);
  llama_memory_seq_rm(memory, sequence, -1, -1);
  return KVASIR_OK;
}

kvasir_code LlamaCache::Register(const kvasir_llama_options& options, const std::string& digest,
                                 kvasir_error* error) {
  const llama_model* const model = llama_get_model(context_);
  char name[128] = "llama.cpp";
  (void)llama_model_desc(model, name, sizeof(name));
  CacheIdentity identity;
  identity.name = name;
  identity.weights_digest = TextOf(options.weights_digest);
  if (identity.weights_digest.empty()) {
    const kvasir_code code = DigestOf(options.model_path, &identity.weights_digest, error);
    if (code != KVASIR_OK) return code;
  }
  identity.rows_digest = digest;
  identity.kv_heads = static_cast<uint32_t>(std::max(0, llama_model_n_head_kv(model)));
  identity.vocabulary_size =
      static_cast<uint32_t>(llama_vocab_n_tokens(llama_model_get_vocab(model)));
  identity.separators = {options.separators, options.separator_count};
  return RegisterCache(session_.get(), layout_, identity, &model_, error);
}

kvasir_code LlamaCache::Save(int32_t sequence, std::span<const uint32_t> tokens, size_t* rows,
                             kvasir_error* error) {
  const kvasir_prompt prompt = PromptOf(tokens, 0, salt_);
  OwnedSequence to;
  kvasir_code code = OpenCache(session_.get(), model_, "full", &prompt, &to, error);
  if (code != KVASIR_OK) return code;
  if (kvasir_rows(to.get()) < tokens.size()) {
    code = CopyToDaemon(sequence, tokens, to.get(), error);
    if (code == KVASIR_OK) code = kvasir_publish_prefix(to.get(), nullptr, nullptr, error);
  }
  if (code == KVASIR_OK) *rows = kvasir_rows(to.get());
  return code;
}

kvasir_code LlamaCache::Attach(int32_t sequence, std::span<const uint32_t> tokens, size_t* rows,
                               kvasir_error* error) {
  *rows = 0;
  if (tokens.size() < 2) return KVASIR_OK;
  const kvasir_prompt prompt = PromptOf(tokens, tokens.size() - 1, salt_);
  OwnedSequence from;
  const kvasir_code code = OpenCache(session_.get(), model_, "full", &prompt, &from, error);
  if (code != KVASIR_OK || kvasir_rows(from.get()) == 0) return code;
  compacted_.erase(sequence);
  return CopyFromDaemon(from.get(), sequence, rows, error);
}

kvasir_code LlamaCache::Compact(int32_t sequence, std::span<const uint32_t> tokens,
                                const std::string& retention, size_t* rows, kvasir_error* error) {
  *rows = 0;
  Compacted& state = compacted_[sequence];
  const bool goes_on = state.rows != nullptr && state.retention == retention &&
                       state.tokens.size() <= tokens.size() &&
                       std::equal(state.tokens.begin(), state.tokens.end(), tokens.begin());
  kvasir_code code = KVASIR_OK;
  if (!goes_on) {
    state = {nullptr, retention, {}};
    code = OpenCache(session_.get(), model_, retention.c_str(), nullptr, &state.rows, error);
  }
  if (code == KVASIR_OK) code = CopyToDaemon(sequence, tokens, state.rows.get(), error);
  if (code == KVASIR_OK) code = CopyFromDaemon(state.rows.get(), sequence, rows, error);
  if (code == KVASIR_OK) {
    state.tokens.assign(tokens.begin(), tokens.end());
  } else {
    compacted_.erase(sequence);
  }
  return code;
}

kvasir_code LlamaCache::Select(int32_t sequence, std::span<const uint32_t> tokens,
                               const std::string& retention, const QueryWatch& watch,
                               std::span<int32_t> positions, size_t* rows, kvasir_error* error) {
  OwnedSequence to;
  kvasir_code code = OpenCache(session_.get(), model_, retention.c_str(), nullptr, &to, error);
  if (code != KVASIR_OK) return code;
  const int64_t layer = kvasir_filter_layer(to.get());
  if (layer < 0) {
    return Fail(error, KVASIR_INVALID_ARGUMENT, "this retention selects nothing: " + retention);
  }
  std::vector<float> query;
  code = QueryOf(watch, layer, &query, error);
  if (code == KVASIR_OK) code = CopyToDaemon(sequence, tokens, to.get(), error);
  if (code != KVASIR_OK) return code;
  // Rows are below the tokens' number, which llama.cpp counts with a sign.
  return kvasir_select_rows(to.get(), query.data(), query.size(),
                            reinterpret_cast<uint32_t*>(positions.data()), positions.size(), rows,
                            error);
}

kvasir_code LlamaCache::QueryOf(const QueryWatch& watch, int64_t layer, std::vector<float>* query,
                                kvasir_error* error) const {
  if (watch.layer() != layer || watch.query().empty()) {
    return Fail(error, KVASIR_FAILED_PRECONDITION,
                "no query of this layer was heard: layer=" + std::to_string(layer) +
                    " listened_to=" + std::to_string(watch.layer()));
  }
  const StateLayer& keys = layout_.layers[static_cast<size_t>(layer)];
  const size_t element = ggml_type_size(static_cast<ggml_type>(keys.k_type));
  const bool plain =
      keys.k_type == GGML_TYPE_F16 || keys.k_type == GGML_TYPE_BF16 || keys.k_type == GGML_TYPE_F32;
  if (!plain || layout_.k_rotation != 0) {
    return Fail(error, KVASIR_UNIMPLEMENTED, "keys are not as queries are: " + layout_text_);
  }
  const auto kv_heads = static_cast<size_t>(llama_model_n_head_kv(llama_get_model(context_)));
  const auto heads = static_cast<size_t>(llama_model_n_head(llama_get_model(context_)));
  const size_t width = keys.k_row_bytes / element, dim = width / kv_heads;
  if (heads * dim != watch.query().size()) {
    return Fail(error, KVASIR_FAILED_PRECONDITION,
                "the query does not fit to the keys: query=" +
                    std::to_string(watch.query().size()) + " key=" + std::to_string(width));
  }
  query->assign(width, 0.0F);
  for (size_t i = 0; i < watch.query().size(); ++i) {
    const size_t kv_head = i / dim / (heads / kv_heads);
    (*query)[kv_head * dim + i % dim] += watch.query()[i];
  }
  return KVASIR_OK;
}

kvasir_code LlamaCache::CopyToDaemon(int32_t sequence, std::span<const uint32_t> tokens,
                                     kvasir_sequence* to, kvasir_error* error) {
  std::optional<StateImage> image = GetState(context_, sequence, capture_);
  const std::optional<StateLayout> layout = image ? ParseState(image->bytes()) : std::nullopt;
  if (!layout) {
    return Fail(error, KVASIR_FAILED_PRECONDITION,
                "the sequence has no rows: sequence=" + std::to_string(sequence));
  }
  return CopyRowsTo(to, tokens, *layout, *image, error);
}

kvasir_code LlamaCache::CopyFromDaemon(kvasir_sequence* from, int32_t sequence, size_t* rows,
                                       kvasir_error* error) {
  VisibleRows visible;
  const kvasir_code code = FindVisibleRows(from, &visible, error);
  if (code != KVASIR_OK) return code;
  const StateLayout layout = layout_.With(visible.positions);
  std::optional<StateImage> image = StateImage::Make(layout);
  if (!image) return Fail(error, KVASIR_RESOURCE_EXHAUSTED, "no address space for the state");
  if (capture_ == nullptr) WriteRows(visible, layout, *image);
  if (!SetState(context_, sequence, *image, capture_)) {
    return Fail(error, KVASIR_RESOURCE_EXHAUSTED,
                "llama.cpp does not take the rows, has it the cells? rows=" +
                    std::to_string(visible.positions.size()));
  }
  if (capture_ != nullptr) WriteRows(visible, layout, *image);
  *rows = visible.positions.size();
  return KVASIR_OK;
}

}  // namespace kvasir::llama_cpp
