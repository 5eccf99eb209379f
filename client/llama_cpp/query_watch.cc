#include "client/llama_cpp/query_watch.h"

#include <ggml-backend.h>
#include <ggml.h>

namespace kvasir::llama_cpp {

void QueryWatch::Listen(int32_t layer) {
  layer_ = layer;
  // llama.cpp's name of a query, before and after its rotation: the one that comes last is heard.
  name_ = layer < 0 ? "" : "Qcur-" + std::to_string(layer);
  query_.clear();
}

bool QueryWatch::Hear(ggml_tensor* tensor, bool ask) {
  if (layer_ < 0 || name_ != tensor->name) return !ask;
  if (ask) return true;
  // [dim][query_head][token], whatever the strides of the last two.
  const auto dim = static_cast<size_t>(tensor->ne[0]), heads = static_cast<size_t>(tensor->ne[1]);
  const auto tokens = static_cast<size_t>(tensor->ne[2]);
  // Before it is parted into heads it has two dimensions.
  if (tensor->type != GGML_TYPE_F32 || tensor->ne[3] != 1 || tokens == 0 ||
      tensor->nb[0] != sizeof(float)) {
    return true;
  }
  query_.resize(heads * dim);
  for (size_t head = 0; head < heads; ++head) {
    ggml_backend_tensor_get(tensor, query_.data() + head * dim,
                            (tokens - 1) * tensor->nb[2] + head * tensor->nb[1],
                            dim * sizeof(float));
  }
  return true;
}

}  // namespace kvasir::llama_cpp
