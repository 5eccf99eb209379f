#include "engine/gguf_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "engine/vocabulary_check.h"

#include <fmt/format.h>
#include <ggml-cpu.h>

namespace kvasir::engine {
namespace {

constexpr uint64_t kLayersMax = 512;
constexpr uint64_t kWidthMax = 1 << 17;  // of embedding and feed-forward rows
constexpr uint64_t kHeadsMax = 1024;
constexpr uint64_t kHeadDimMax = 1024;
constexpr uint64_t kContextMax = uint64_t{1} << 30;

// Types whose rows ggml's CPU code can multiply and look up.
bool IsUsableMatrixType(ggml_type type) {
  switch (type) {
    case GGML_TYPE_F32:
    case GGML_TYPE_F16:
    case GGML_TYPE_BF16:
    case GGML_TYPE_Q4_0:
    case GGML_TYPE_Q4_1:
    case GGML_TYPE_Q5_0:
    case GGML_TYPE_Q5_1:
    case GGML_TYPE_Q8_0:
    case GGML_TYPE_Q2_K:
    case GGML_TYPE_Q3_K:
    case GGML_TYPE_Q4_K:
    case GGML_TYPE_Q5_K:
    case GGML_TYPE_Q6_K:
    case GGML_TYPE_IQ4_NL:
    case GGML_TYPE_IQ4_XS:
      return true;
    default:
      return false;
  }
}

// The value of an optional integer key, or `fallback`.
absl::StatusOr<uint64_t> IntegerOr(const GgufFile& file, const std::string& key, uint64_t min,
                                   uint64_t max, uint64_t fallback) {
  if (!file.Has(key)) return fallback;
  return file.Integer(key, min, max);
}

absl::StatusOr<uint32_t> Narrow(absl::StatusOr<uint64_t> value) {
  if (!value.ok()) return value.status();
  return static_cast<uint32_t>(*value);
}

// 1 / factor of linear scaling. Errors: kInvalidArgument for another kind of scaling.
absl::StatusOr<double> ReadRopeScale(const GgufFile& file) {
  std::string kind = "linear";
  if (file.Has("llama.rope.scaling.type")) {
    KVASIR_ASSIGN_OR_RETURN(kind, file.Text("llama.rope.scaling.type"));
  }
  if (kind == "none") return 1.0;
  if (kind != "linear") {
    return InvalidArgument(
        "rope scaling is not supported, want none or linear: key=llama.rope.scaling.type value={}",
        kind);
  }
  for (const char* key : {"llama.rope.scaling.factor", "llama.rope.scale_linear"}) {
    if (!file.Has(key)) continue;
    KVASIR_ASSIGN_OR_RETURN(const double factor, file.Real(key, 0.0, 1e6));
    return factor == 0.0 ? 1.0 : 1.0 / factor;
  }
  return 1.0;
}

std::string ShapeText(const ggml_tensor* tensor) {
  return fmt::format("{}x{}x{}x{}", tensor->ne[0], tensor->ne[1], tensor->ne[2], tensor->ne[3]);
}

void ExpandToF32(const ggml_tensor* from, const std::byte* data, float* into) {
  const int64_t count = ggml_nelements(from);
  if (from->type == GGML_TYPE_F32) {
    std::memcpy(into, data, static_cast<size_t>(count) * sizeof(float));
  } else {
    ggml_get_type_traits(from->type)->to_float(data, into, count);
  }
}

}  // namespace

// One tensor that the architecture has: where it goes and what it must look like.
struct GgufModel::Wanted {
  std::string name;
  ggml_tensor** into;
  int64_t columns;
  int64_t rows;  // 1: a vector, F32 always
};

absl::StatusOr<GgufModel> GgufModel::Load(const std::string& path, WeightsMode mode) {
  GgufModel model;
  model.path_ = path;
  KVASIR_ASSIGN_OR_RETURN(model.file_, GgufFile::Open(path));
  KVASIR_RETURN_IF_ERROR(model.ReadParameters());
  KVASIR_ASSIGN_OR_RETURN(model.parameters_.vocabulary, CheckVocabulary(model.file_));
  KVASIR_RETURN_IF_ERROR(model.BindTensors(mode));
  return model;
}

absl::Status GgufModel::ReadParameters() {
  KVASIR_ASSIGN_OR_RETURN(const std::string architecture, file_.Text("general.architecture"));
  if (architecture != "llama") {
    return InvalidArgument("model is not of Llama architecture: general.architecture={}",
                           architecture);
  }
  HyperParameters& p = parameters_;
  const auto read = [this](const char* key, uint64_t min, uint64_t max) {
    return Narrow(file_.Integer(key, min, max));
  };
  KVASIR_ASSIGN_OR_RETURN(p.layers, read("llama.block_count", 1, kLayersMax));
  KVASIR_ASSIGN_OR_RETURN(p.embedding, read("llama.embedding_length", 1, kWidthMax));
  KVASIR_ASSIGN_OR_RETURN(p.feed_forward, read("llama.feed_forward_length", 1, kWidthMax));
  KVASIR_ASSIGN_OR_RETURN(p.context, read("llama.context_length", 1, kContextMax));
  KVASIR_ASSIGN_OR_RETURN(p.heads, read("llama.attention.head_count", 1, kHeadsMax));
  KVASIR_ASSIGN_OR_RETURN(
      p.kv_heads, Narrow(IntegerOr(file_, "llama.attention.head_count_kv", 1, kHeadsMax, p.heads)));
  if (p.heads % p.kv_heads != 0) {
    return InvalidArgument(
        "llama.attention.head_count_kv must divide head_count: head_count={} head_count_kv={}",
        p.heads, p.kv_heads);
  }
  KVASIR_ASSIGN_OR_RETURN(p.head_dim, Narrow(IntegerOr(file_, "llama.attention.key_length", 2,
                                                       kHeadDimMax, p.embedding / p.heads)));
  KVASIR_ASSIGN_OR_RETURN(const uint64_t value_dim, IntegerOr(file_, "llama.attention.value_length",
                                                              2, kHeadDimMax, p.head_dim));
  if (value_dim != p.head_dim || p.head_dim < 2 || p.head_dim > kHeadDimMax) {
    return InvalidArgument("head dims must be equal and in bounds: key={} value={} min=2 max={}",
                           p.head_dim, value_dim, kHeadDimMax);
  }
  KVASIR_ASSIGN_OR_RETURN(p.rotated_dims, Narrow(IntegerOr(file_, "llama.rope.dimension_count", 2,
                                                           p.head_dim, p.head_dim)));
  if (p.rotated_dims % 2 != 0) {
    return InvalidArgument("llama.rope.dimension_count must be even: value={}", p.rotated_dims);
  }
  if (file_.Has("llama.rope.freq_base")) {
    KVASIR_ASSIGN_OR_RETURN(p.rope_theta, file_.Real("llama.rope.freq_base", 1.0, 1e12));
  }
  KVASIR_ASSIGN_OR_RETURN(p.rope_scale, ReadRopeScale(file_));
  KVASIR_ASSIGN_OR_RETURN(const double epsilon,
                          file_.Real("llama.attention.layer_norm_rms_epsilon", 0.0, 1.0));
  p.norm_epsilon = static_cast<float>(epsilon);
  for (const char* key : {"llama.expert_count", "llama.expert_used_count"}) {
    if (file_.Has(key)) KVASIR_RETURN_IF_ERROR(file_.Integer(key, 0, 0).status());
  }
  return absl::OkStatus();
}

std::vector<GgufModel::Wanted> GgufModel::WantedTensors() {
  const HyperParameters& p = parameters_;
  layers_.resize(p.layers);
  const int64_t width = p.embedding;
  const int64_t query_width = int64_t{p.heads} * p.head_dim;
  const int64_t kv_width = int64_t{p.kv_heads} * p.head_dim;
  const int64_t inner = p.feed_forward;
  std::vector<Wanted> wanted = {{"token_embd.weight", &token_embedding_, width, p.vocabulary},
                                {"output_norm.weight", &output_norm_, width, 1}};
  if (file_.Find("output.weight") != nullptr) {  // else tied
    wanted.push_back({"output.weight", &output_, width, p.vocabulary});
  }
  for (uint32_t i = 0; i < p.layers; ++i) {
    LayerWeights& layer = layers_[i];
    const auto want = [&](const char* name, ggml_tensor** into, int64_t columns, int64_t rows) {
      wanted.push_back({fmt::format("blk.{}.{}.weight", i, name), into, columns, rows});
    };
    want("attn_norm", &layer.attn_norm, width, 1);
    want("attn_q", &layer.attn_q, width, query_width);
    want("attn_k", &layer.attn_k, width, kv_width);
    want("attn_v", &layer.attn_v, width, kv_width);
    want("attn_output", &layer.attn_output, query_width, width);
    want("ffn_norm", &layer.ffn_norm, width, 1);
    want("ffn_gate", &layer.ffn_gate, width, inner);
    want("ffn_up", &layer.ffn_up, width, inner);
    want("ffn_down", &layer.ffn_down, inner, width);
  }
  return wanted;
}

absl::Status GgufModel::FindTensors(const std::vector<Wanted>& wanted) const {
  std::set<std::string> known = {"rope_freqs.weight"};
  for (const Wanted& w : wanted) {
    known.insert(w.name);
    const ggml_tensor* t = *w.into = file_.Find(w.name);
    if (t == nullptr) return InvalidArgument("model file lacks a tensor: tensor={}", w.name);
    if (t->ne[0] != w.columns || t->ne[1] != w.rows || t->ne[2] != 1 || t->ne[3] != 1) {
      return InvalidArgument("tensor has the wrong shape: tensor={} shape={} expected={}x{}",
                             w.name, ShapeText(t), w.columns, w.rows);
    }
    if (w.rows == 1 ? t->type != GGML_TYPE_F32 : !IsUsableMatrixType(t->type)) {
      return InvalidArgument("tensor has a type that this engine cannot use: tensor={} type={}",
                             w.name, ggml_type_name(t->type));
    }
  }
  // A tensor that would be left out (a bias, an expert) changes the results without a word.
  for (const std::string& name : file_.TensorNames()) {
    if (known.count(name) == 0) {
      return InvalidArgument("model has a tensor that this engine does not know: tensor={}", name);
    }
  }
  return absl::OkStatus();
}

void GgufModel::BindInPlace(const std::vector<Wanted>& wanted) {
  buffer_.reset(ggml_backend_cpu_buffer_from_ptr(file_.mapping().data(), file_.mapping().bytes()));
  for (const Wanted& w : wanted) {
    ggml_backend_tensor_alloc(buffer_.get(), *w.into, file_.DataOf(*w.into));
  }
}

absl::Status GgufModel::BindExpanded(const std::vector<Wanted>& wanted) {
  expanded_.reset(ggml_init({.mem_size = ggml_tensor_overhead() * (wanted.size() + 1),
                             .mem_buffer = nullptr,
                             .no_alloc = true}));
  std::vector<ggml_tensor*> stored;
  for (const Wanted& w : wanted) {
    stored.push_back(*w.into);
    *w.into = ggml_new_tensor_2d(expanded_.get(), GGML_TYPE_F32, w.columns, w.rows);
  }
  buffer_.reset(
      ggml_backend_alloc_ctx_tensors_from_buft(expanded_.get(), ggml_backend_cpu_buffer_type()));
  if (buffer_ == nullptr) return ResourceExhausted("no memory for the weights as F32");
  for (size_t i = 0; i < wanted.size(); ++i) {
    ExpandToF32(stored[i], file_.DataOf(stored[i]), ggml_get_data_f32(*wanted[i].into));
  }
  return absl::OkStatus();
}

absl::Status GgufModel::BindTensors(WeightsMode mode) {
  const std::vector<Wanted> wanted = WantedTensors();
  KVASIR_RETURN_IF_ERROR(FindTensors(wanted));
  KVASIR_RETURN_IF_ERROR(ReadRopeFactors());
  if (mode == WeightsMode::kAsStored) {
    BindInPlace(wanted);
  } else {
    KVASIR_RETURN_IF_ERROR(BindExpanded(wanted));
  }
  if (output_ == nullptr) output_ = token_embedding_;
  return absl::OkStatus();
}

absl::Status GgufModel::ReadRopeFactors() {
  const ggml_tensor* tensor = file_.Find("rope_freqs.weight");
  if (tensor == nullptr) return absl::OkStatus();
  if (tensor->type != GGML_TYPE_F32 || ggml_nelements(tensor) != parameters_.rotated_dims / 2) {
    return InvalidArgument("tensor has the wrong shape or type: tensor=rope_freqs.weight shape={}",
                           ShapeText(tensor));
  }
  rope_factors_.resize(parameters_.rotated_dims / 2);
  std::memcpy(rope_factors_.data(), file_.DataOf(tensor), rope_factors_.size() * sizeof(float));
  for (const float factor : rope_factors_) {
    if (!(factor >= 1e-3F && factor <= 1e6F)) {
      return InvalidArgument(
          "rope factor out of bounds: tensor=rope_freqs.weight value={} min=0.001 max=1000000",
          factor);
    }
  }
  return absl::OkStatus();
}

}  // namespace kvasir::engine
