// Unmodified llama.cpp as a program: it links nothing of ours, and gets the plug-in, if any, by
// GGML_BACKEND_PATH. Usage: llama_program key=value...
//   model=PATH fa=on|off|auto kv=f16|f32|q8_0 context=N prompt=N steps=N batch=N  the run
//   logits=FILE   every logit, the prompt's included
//   stay=1        says "ready" and waits to be killed instead of ending
// Says "done HASH" at the end. Exit status 3: no context, 4: decode failed.
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include <ggml-backend.h>
#include <llama.h>

namespace {

using Options = std::map<std::string, std::string>;

int64_t Number(const Options& options, const std::string& key) {
  return std::stoll(options.at(key));
}

ggml_type TypeOf(const std::string& name) {
  if (name == "f32") return GGML_TYPE_F32;
  return name == "q8_0" ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
}

llama_flash_attn_type FlashOf(const std::string& name) {
  if (name == "auto") return LLAMA_FLASH_ATTN_TYPE_AUTO;
  return name == "on" ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
}

// Adds the logits of `tokens`, which stand at `position`.
bool Decode(llama_context* context, const std::vector<llama_token>& tokens, int32_t position,
            int32_t vocabulary, std::vector<float>& logits) {
  llama_batch batch = llama_batch_init(static_cast<int32_t>(tokens.size()), 0, 1);
  batch.n_tokens = static_cast<int32_t>(tokens.size());
  for (int32_t i = 0; i < batch.n_tokens; ++i) {
    batch.token[i] = tokens[static_cast<size_t>(i)];
    batch.pos[i] = position + i;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = 0;
    batch.logits[i] = 1;
  }
  const bool decoded = llama_decode(context, batch) == 0;
  for (int32_t i = 0; decoded && i < batch.n_tokens; ++i) {
    const float* const row = llama_get_logits_ith(context, i);
    logits.insert(logits.end(), row, row + vocabulary);
  }
  llama_batch_free(batch);
  return decoded;
}

}  // namespace

int main(int argc, char** argv) {
  Options options = {{"fa", "on"},      {"kv", "f16"},   {"context", "512"},
                     {"prompt", "100"}, {"steps", "64"}, {"batch", "64"},
                     {"logits", ""},    {"stay", "0"},   {"layers", "-1"}};
  for (int i = 1; i < argc; ++i) {
    const std::string text = argv[i];
    const size_t equals = text.find('=');
    options[text.substr(0, equals)] = text.substr(equals + 1);
  }
  ggml_backend_load_all();
  llama_model_params model_params = llama_model_default_params();
  model_params.n_gpu_layers = static_cast<int32_t>(Number(options, "layers"));
  llama_model* const model = llama_model_load_from_file(options.at("model").c_str(), model_params);
  if (model == nullptr) return 2;
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(Number(options, "context"));
  params.n_batch = params.n_ubatch = static_cast<uint32_t>(Number(options, "batch"));
  params.n_seq_max = 1;
  params.n_threads = params.n_threads_batch = 1;
  params.flash_attn_type = FlashOf(options.at("fa"));
  params.type_k = params.type_v = TypeOf(options.at("kv"));
  llama_context* const context = llama_init_from_model(model, params);
  if (context == nullptr) {
    llama_model_free(model);
    return 3;
  }
  const int32_t vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
  std::vector<float> logits;
  int32_t position = 0;
  const auto run = [&](const std::vector<llama_token>& tokens) {
    const bool decoded = Decode(context, tokens, position, vocabulary, logits);
    position += static_cast<int32_t>(tokens.size());
    return decoded;
  };
  const int64_t prompt = Number(options, "prompt"), batch = Number(options, "batch");
  for (int64_t from = 0; from < prompt; from += batch) {
    std::vector<llama_token> tokens;
    for (int64_t i = from; i < std::min(prompt, from + batch); ++i) {
      tokens.push_back(static_cast<llama_token>((i * 7919 + i * i * 31 + 5) % vocabulary));
    }
    if (!run(tokens)) return 4;
  }
  if (options.at("stay") == "1") {
    std::puts("ready");
    std::fflush(stdout);
    ::pause();
  }
  for (int64_t step = 0; step < Number(options, "steps"); ++step) {
    const auto last = logits.end() - vocabulary;
    if (!run({static_cast<llama_token>(std::max_element(last, logits.end()) - last)})) return 4;
    // Whoever takes the memory away between two steps does it here.
    if (options.at("stay") == "step") {
      std::puts("step");
      std::fflush(stdout);
      ::usleep(20'000);
    }
  }
  if (!options.at("logits").empty()) {
    std::FILE* const file = std::fopen(options.at("logits").c_str(), "wb");
    if (file == nullptr) return 5;
    std::fwrite(logits.data(), sizeof(float), logits.size(), file);
    std::fclose(file);
  }
  llama_free(context);
  llama_model_free(model);
  std::puts("done");
  return 0;
}
