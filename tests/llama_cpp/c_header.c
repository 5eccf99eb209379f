/* The header of embedders is C. */
#include "client/llama_cpp/kvasir_llama.h"

kvasir_code use_of_c(struct llama_context* context);

kvasir_code use_of_c(struct llama_context* context) {
  kvasir_llama_options options = {.struct_size = sizeof(options), .model_path = "model.gguf"};
  kvasir_llama* handle = NULL;
  kvasir_error error;
  const kvasir_code code = kvasir_llama_open(context, &options, &handle, &error);
  kvasir_llama_close(handle);
  return code;
}
