#include "tests/llama_cpp/llama_run.h"

#include <algorithm>
#include <cstdio>

#include <ggml-backend.h>

namespace kvasir::testing {
namespace {

ggml_type TypeOf(const std::string& name) {
  if (name == "f32") return GGML_TYPE_F32;
  if (name == "q4_0") return GGML_TYPE_Q4_0;
  return name == "q8_0" ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
}

llama_flash_attn_type FlashOf(const std::string& name) {
  if (name == "auto") return LLAMA_FLASH_ATTN_TYPE_AUTO;
  return name == "on" ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
}

// Debug lines would fill the pipe of a test that waits for something else.
void Log(ggml_log_level level, const char* text, void*) {
  static bool debug = false;  // of the line that a continuation belongs to
  if (level != GGML_LOG_LEVEL_CONT) debug = level == GGML_LOG_LEVEL_DEBUG;
  if (!debug) std::fputs(text, stderr);
}

}  // namespace

LlamaRun::LlamaRun(std::map<std::string, std::string> defaults, int argc, char** argv)
    : options_({{"fa", "on"},
                {"kv", "f16"},
                {"context", "512"},
                {"batch", "64"},
                {"layers", "-1"},
                {"rope", "0"},
                {"threads", "1"},
                {"logits", ""}}) {
  for (auto& [key, value] : defaults) options_[key] = value;
  for (int i = 1; i < argc; ++i) {
    const std::string text = argv[i];
    const size_t equals = text.find('=');
    options_[text.substr(0, equals)] = text.substr(equals + 1);
  }
}

LlamaRun::~LlamaRun() {
  if (context_ != nullptr) llama_free(context_);
  if (model_ != nullptr) llama_model_free(model_);
}

bool LlamaRun::Open() {
  llama_log_set(Log, nullptr);
  ggml_backend_load_all();
  llama_model_params model_params = llama_model_default_params();
  model_params.n_gpu_layers = Number("layers");
  model_ = llama_model_load_from_file(Text("model").c_str(), model_params);
  if (model_ == nullptr) return false;
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(Number("context"));
  params.n_batch = params.n_ubatch = static_cast<uint32_t>(Number("batch"));
  params.n_seq_max = 1;
  params.n_threads = params.n_threads_batch = Number("threads");
  params.flash_attn_type = FlashOf(Text("fa"));
  params.type_k = params.type_v = TypeOf(Text("kv"));
  params.rope_freq_base = static_cast<float>(Number("rope"));
  params.cb_eval = callback_;
  params.cb_eval_user_data = callback_user_;
  context_ = llama_init_from_model(model_, params);
  vocabulary_ = llama_vocab_n_tokens(llama_model_get_vocab(model_));
  return context_ != nullptr;
}

llama_token LlamaRun::TokenAt(int64_t position) const {
  return static_cast<llama_token>((position * 7919 + position * position * 31 + 5) % vocabulary_);
}

std::vector<llama_token> LlamaRun::Prompt(int32_t count) const {
  std::vector<llama_token> tokens;
  for (int32_t i = 0; i < count; ++i) tokens.push_back(TokenAt(i));
  return tokens;
}

bool LlamaRun::Decode(const std::vector<llama_token>& tokens, int32_t from, int32_t to) {
  const int32_t batch_rows = Number("batch");
  for (int32_t at = from; at < to; at += batch_rows) {
    llama_batch batch = llama_batch_init(batch_rows, 0, 1);
    batch.n_tokens = std::min(batch_rows, to - at);
    for (int32_t i = 0; i < batch.n_tokens; ++i) {
      batch.token[i] = tokens[static_cast<size_t>(at + i)];
      batch.pos[i] = at + i;
      batch.n_seq_id[i] = 1;
      batch.seq_id[i][0] = 0;
      batch.logits[i] = 1;
    }
    const bool decoded = llama_decode(context_, batch) == 0;
    for (int32_t i = 0; decoded && i < batch.n_tokens; ++i) {
      const float* const row = llama_get_logits_ith(context_, i);
      logits_.insert(logits_.end(), row, row + vocabulary_);
    }
    llama_batch_free(batch);
    if (!decoded) return false;
  }
  return true;
}

llama_token LlamaRun::Likeliest() const {
  const auto last = logits_.end() - vocabulary_;
  return static_cast<llama_token>(std::max_element(last, logits_.end()) - last);
}

bool LlamaRun::WriteLogits() const {
  const std::string& path = Text("logits");
  if (path.empty()) return true;
  std::FILE* const file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) return false;
  const bool written =
      std::fwrite(logits_.data(), sizeof(float), logits_.size(), file) == logits_.size();
  return std::fclose(file) == 0 && written;
}

void Tell(const std::string& line) {
  std::puts(line.c_str());
  std::fflush(stdout);
}

}  // namespace kvasir::testing
