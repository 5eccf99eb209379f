// GgufModel: the weights and hyper-parameters of one Llama-architecture model.
//
// Weights are used in place from the mapping of the file, or expanded to F32 in private memory.
#ifndef KVASIR_ENGINE_GGUF_MODEL_H_
#define KVASIR_ENGINE_GGUF_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "engine/gguf_file.h"

#include <ggml-cpp.h>

namespace kvasir::engine {

// Read from the keys llama.*; every value is within the bounds that gguf_model.cc states.
struct HyperParameters {
  uint32_t layers = 0;
  uint32_t embedding = 0;
  uint32_t feed_forward = 0;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;      // divides heads
  uint32_t head_dim = 0;      // of queries, keys and values
  uint32_t rotated_dims = 0;  // even, <= head_dim; interleaved pairs
  uint32_t vocabulary = 0;
  uint32_t context = 0;  // rows it was trained on
  double rope_theta = 10000.0;
  double rope_scale = 1.0;  // positions are multiplied by it (linear scaling: 1 / factor)
  float norm_epsilon = 0.0F;
};

enum class WeightsMode { kAsStored, kF32 };

// Tensors of one layer; owned by the model.
struct LayerWeights {
  ggml_tensor* attn_norm = nullptr;
  ggml_tensor* attn_q = nullptr;
  ggml_tensor* attn_k = nullptr;
  ggml_tensor* attn_v = nullptr;
  ggml_tensor* attn_output = nullptr;
  ggml_tensor* ffn_norm = nullptr;
  ggml_tensor* ffn_gate = nullptr;
  ggml_tensor* ffn_up = nullptr;
  ggml_tensor* ffn_down = nullptr;
};

// Move-only; const after Load(), so any number of threads may compute with it.
class GgufModel {
 public:
  // Reads and checks `path`. Cost: the header; with kF32 also all weights (4 bytes each in memory).
  // Errors: those of GgufFile::Open(); kInvalidArgument for another architecture, a key out of
  // bounds, a tensor that is missing, misshaped, of an unusable type or unknown to this engine;
  // kResourceExhausted where F32 weights do not fit memory.
  static absl::StatusOr<GgufModel> Load(const std::string& path, WeightsMode mode);

  const HyperParameters& parameters() const { return parameters_; }
  const std::vector<LayerWeights>& layers() const { return layers_; }
  ggml_tensor* token_embedding() const { return token_embedding_; }
  ggml_tensor* output_norm() const { return output_norm_; }
  ggml_tensor* output() const { return output_; }  // the token embedding where weights are tied
  // One divisor for each rotated pair's frequency; empty where the model has none.
  const std::vector<float>& rope_factors() const { return rope_factors_; }

  const std::string& path() const { return path_; }
  // All bytes of the file, for a digest.
  const MappedRegion& file() const { return file_.mapping(); }

 private:
  struct Wanted;

  absl::Status ReadParameters();
  std::vector<Wanted> WantedTensors();
  absl::Status FindTensors(const std::vector<Wanted>& wanted) const;
  void BindInPlace(const std::vector<Wanted>& wanted);
  absl::Status BindExpanded(const std::vector<Wanted>& wanted);
  absl::Status BindTensors(WeightsMode mode);
  absl::Status ReadRopeFactors();

  std::string path_;
  GgufFile file_;
  HyperParameters parameters_;
  ggml_context_ptr expanded_;       // F32 copies of the tensors
  ggml_backend_buffer_ptr buffer_;  // over the mapping, or of the copies
  std::vector<LayerWeights> layers_;
  ggml_tensor* token_embedding_ = nullptr;
  ggml_tensor* output_norm_ = nullptr;
  ggml_tensor* output_ = nullptr;
  std::vector<float> rope_factors_;
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_GGUF_MODEL_H_
