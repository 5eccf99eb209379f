// What the programs of these tests do with llama.cpp: options as key=value, one context, its
// logits.
#ifndef KVASIR_TESTS_LLAMA_CPP_LLAMA_RUN_H_
#define KVASIR_TESTS_LLAMA_CPP_LLAMA_RUN_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <llama.h>

namespace kvasir::testing {

// model=PATH fa=on|off|auto kv=f16|f32|q8_0|q4_0 context=N batch=N layers=N rope=BASE threads=N
class LlamaRun {
 public:
  // `defaults` and what the command line says.
  LlamaRun(std::map<std::string, std::string> defaults, int argc, char** argv);
  ~LlamaRun();
  LlamaRun(const LlamaRun&) = delete;
  LlamaRun& operator=(const LlamaRun&) = delete;

  const std::string& Text(const std::string& key) const { return options_.at(key); }
  int32_t Number(const std::string& key) const { return std::stoi(options_.at(key)); }

  // Before Open(): what llama.cpp calls while it computes.
  void CallBack(ggml_backend_sched_eval_callback callback, void* user) {
    callback_ = callback;
    callback_user_ = user;
  }
  // False: llama.cpp has no model or no context.
  bool Open();
  llama_context* context() const { return context_; }
  int32_t vocabulary() const { return vocabulary_; }

  // The token at `position` of the prompt that all programs share.
  llama_token TokenAt(int64_t position) const;
  std::vector<llama_token> Prompt(int32_t count) const;

  // Computes the tokens [from, to) of `tokens` in batches, each at its index, and adds their
  // logits.
  bool Decode(const std::vector<llama_token>& tokens, int32_t from, int32_t to);
  // The likeliest token behind the last one.
  llama_token Likeliest() const;
  std::vector<float>& logits() { return logits_; }
  // Where logits=FILE asks for it.
  bool WriteLogits() const;

 private:
  std::map<std::string, std::string> options_;
  llama_model* model_ = nullptr;
  llama_context* context_ = nullptr;
  ggml_backend_sched_eval_callback callback_ = nullptr;
  void* callback_user_ = nullptr;
  int32_t vocabulary_ = 0;
  std::vector<float> logits_;
};

// A line, at once.
void Tell(const std::string& line);

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_LLAMA_CPP_LLAMA_RUN_H_
