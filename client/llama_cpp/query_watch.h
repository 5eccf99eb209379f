// QueryWatch: the last query of one layer, as llama.cpp computes it.
#ifndef KVASIR_CLIENT_LLAMA_CPP_QUERY_WATCH_H_
#define KVASIR_CLIENT_LLAMA_CPP_QUERY_WATCH_H_

#include <cstdint>
#include <string>
#include <vector>

struct ggml_tensor;

namespace kvasir::llama_cpp {

// A context's evaluation callback. Not thread-safe: a context computes in one thread at a time.
class QueryWatch {
 public:
  // Of `layer`; below 0: of none, and llama.cpp computes as without it. Forgets what it has heard.
  void Listen(int32_t layer);
  // ggml_backend_sched_eval_callback: true where the tensor is to be shown (`ask`), and to go on.
  bool Hear(ggml_tensor* tensor, bool ask);

  int32_t layer() const { return layer_; }
  // [query_head][dim] of the last token computed, rotated; empty: none was heard.
  const std::vector<float>& query() const { return query_; }

 private:
  int32_t layer_ = -1;
  std::string name_;  // of the tensors to hear
  std::vector<float> query_;
};

}  // namespace kvasir::llama_cpp

#endif  // KVASIR_CLIENT_LLAMA_CPP_QUERY_WATCH_H_
