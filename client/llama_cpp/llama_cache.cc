#include "client/llama_cpp/llama_cache.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "client/llama_cpp/daemon_rows.h"

#include <ggml-backend.h>
#include <llama.h>
#include <xxhash.h>

namespace kvasir::llama_cpp {
namespace {

// Far from 0, where every rotation is the same.
constexpr int32_t kProbePosition = 4001;

// The plug-in's hook; null: it is not loaded, or another version.
kvasir_capture_transfers_fn FindHook() {
  ggml_backend_reg_t plugin = ggml_backend_reg_by_name("KVASIR");
  if (plugin == nullptr) return nullptr;
  void* const hook = ggml_backend_reg_get_proc_address(plugin, KVASIR_CAPTURE_TRANSFERS);
  return reinterpret_cast<kvasir_capture_transfers_fn>(hook);
}

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

// How the daemon sees the layers. Where a row is not of a type that it knows, as where it is
// quantised, it is so many bytes to it.
struct DaemonLayers {
  kvasir_type type = KVASIR_F16;
  std::vector<kvasir_layer> layers;
};

std::optional<kvasir_type> DaemonType(int32_t type) {
  switch (type) {
    case GGML_TYPE_F16:
      return KVASIR_F16;
    case GGML_TYPE_BF16:
      return KVASIR_BF16;
    case GGML_TYPE_F32:
      return KVASIR_F32;
    default:
      return std::nullopt;
  }
}

std::optional<DaemonLayers> LayersOf(const StateLayout& layout, uint32_t kv_heads) {
  DaemonLayers all;
  std::optional<kvasir_type> type = DaemonType(layout.layers.front().k_type);
  for (const StateLayer& layer : layout.layers) {
    if (layer.k_type != layout.layers.front().k_type ||
        (layer.v_row_bytes != 0 && layer.v_type != layer.k_type)) {
      type.reset();
    }
  }
  all.type = type.value_or(KVASIR_F16);
  const uint64_t element = type == KVASIR_F32 ? 4 : 2;
  for (const StateLayer& layer : layout.layers) {
    if (layer.k_row_bytes % element != 0 || layer.v_row_bytes % element != 0) return std::nullopt;
    const uint64_t k = layer.k_row_bytes / element, v = layer.v_row_bytes / element;
    const bool by_head = type && kv_heads > 0 && k % kv_heads == 0 && v % kv_heads == 0;
    const uint32_t heads = by_head ? kv_heads : 1;
    kvasir_layer made{};
    made.kv_heads = heads;
    made.k_head_dim = static_cast<uint32_t>(k / heads);
    made.v_head_dim = static_cast<uint32_t>(v / heads);
    all.layers.push_back(made);
  }
  return all;
}

kvasir_prompt PromptOf(std::span<const uint32_t> tokens, uint64_t rows_max,
                       const std::string& salt) {
  kvasir_prompt prompt{};
  prompt.struct_size = sizeof(prompt);
  prompt.tokens = tokens.data();
  prompt.token_count = tokens.size();
  prompt.rows_max = rows_max;
  prompt.salt = {salt.data(), salt.size()};
  return prompt;
}

}  // namespace

kvasir_code Fail(kvasir_error* error, kvasir_code code, const std::string& text) {
  if (error != nullptr) {
    error->code = code;
    const size_t bytes = std::min(text.size(), sizeof(error->text) - 1);
    std::memcpy(error->text, text.data(), bytes);
    error->text[bytes] = '\0';
  }
  return code;
}

kvasir_code LlamaCache::Open(const kvasir_llama_options& options, kvasir_error* error) {
  DaemonPlace place = PlaceFromEnvironment();
  if (options.control_socket != nullptr) place.control_socket = options.control_socket;
  if (options.data_socket != nullptr) place.data_socket = options.data_socket;
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
  std::optional<StateImage> image = StateImage::Get(context_, sequence, capture_);
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
    image.emplace(*StateImage::Get(context_, sequence, nullptr));
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
  const XXH128_hash_t hash = XXH3_128bits(all.data(), all.size());
  digest->assign(reinterpret_cast<const char*>(&hash), sizeof(hash));
  llama_memory_seq_rm(memory, sequence, -1, -1);
  return KVASIR_OK;
}

kvasir_code LlamaCache::Register(const kvasir_llama_options& options, const std::string& digest,
                                 kvasir_error* error) {
  const llama_model* const model = llama_get_model(context_);
  const std::optional<DaemonLayers> layers =
      LayersOf(layout_, static_cast<uint32_t>(std::max(0, llama_model_n_head_kv(model))));
  if (!layers) {
    return Fail(error, KVASIR_UNIMPLEMENTED, "rows have an odd number of bytes: " + layout_text_);
  }
  std::string weights = TextOf(options.weights_digest);
  if (weights.empty()) {
    weights.resize(32);
    const kvasir_code code =
        kvasir_digest_file(options.model_path, reinterpret_cast<uint8_t*>(weights.data()), error);
    if (code != KVASIR_OK) return code;
  }
  char name[128] = "llama.cpp";
  (void)llama_model_desc(model, name, sizeof(name));
  // Part of the key as an adapter is: what the same weights are turned into rows by.
  const kvasir_bytes behaviour = {digest.data(), digest.size()};
  kvasir_model_spec spec{};
  spec.struct_size = sizeof(spec);
  spec.name = name;
  spec.kv_type = layers->type;
  spec.layers = layers->layers.data();
  spec.layer_count = layers->layers.size();
  spec.separators = options.separators;
  spec.separator_count = options.separator_count;
  spec.vocabulary_size = static_cast<uint32_t>(llama_vocab_n_tokens(llama_model_get_vocab(model)));
  spec.weights_digest = {weights.data(), weights.size()};
  spec.adapter_digests = &behaviour;
  spec.adapter_count = 1;
  return kvasir_register_model(session_.get(), &spec, &model_, error);
}

kvasir_code LlamaCache::OpenSequence(const char* retention, const kvasir_prompt* prompt,
                                     OwnedSequence* sequence, kvasir_error* error) {
  kvasir_open_options open{};
  open.struct_size = sizeof(open);
  open.model = &model_;
  open.retention = retention;
  open.label = "llama.cpp";
  open.prefix = prompt;
  kvasir_sequence* opened = nullptr;
  const kvasir_code code = kvasir_open(session_.get(), &open, &opened, error);
  sequence->reset(opened);
  return code;
}

kvasir_code LlamaCache::Save(int32_t sequence, std::span<const uint32_t> tokens, size_t* rows,
                             kvasir_error* error) {
  const kvasir_prompt prompt = PromptOf(tokens, 0, salt_);
  OwnedSequence to;
  kvasir_code code = OpenSequence("full", &prompt, &to, error);
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
  const kvasir_code code = OpenSequence("full", &prompt, &from, error);
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
    code = OpenSequence(retention.c_str(), nullptr, &state.rows, error);
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

kvasir_code LlamaCache::CopyToDaemon(int32_t sequence, std::span<const uint32_t> tokens,
                                     kvasir_sequence* to, kvasir_error* error) {
  std::optional<StateImage> image = StateImage::Get(context_, sequence, capture_);
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
  const auto write = [&] {
    for (size_t i = 0; i < layout.layers.size(); ++i) {
      for (const RowRun& run : visible.runs[i]) image->WriteRows(layout, layout.layers[i], run);
    }
  };
  if (capture_ == nullptr) write();
  if (!image->Set(context_, sequence, capture_)) {
    return Fail(error, KVASIR_RESOURCE_EXHAUSTED,
                "llama.cpp does not take the rows, has it the cells? rows=" +
                    std::to_string(visible.positions.size()));
  }
  if (capture_ != nullptr) write();
  *rows = visible.positions.size();
  return KVASIR_OK;
}

}  // namespace kvasir::llama_cpp
