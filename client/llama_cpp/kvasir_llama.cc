#include "client/llama_cpp/kvasir_llama.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "client/llama_cpp/daemon_model.h"
#include "client/llama_cpp/llama_cache.h"
#include "client/llama_cpp/query_watch.h"

using kvasir::llama_cpp::Fail;
using kvasir::llama_cpp::LlamaCache;

struct kvasir_llama {
  LlamaCache cache;
};
struct kvasir_llama_watch {
  kvasir::llama_cpp::QueryWatch queries;
};

namespace {

// A call of `method` with checked arguments, whose last ones before `error` are `more` and the rows
// that it answers with. llama.cpp's tokens are signed.
template <typename... More>
kvasir_code Call(kvasir_llama* handle, int32_t sequence, const int32_t* tokens, size_t count,
                 size_t* rows, kvasir_error* error, auto method, const More&... more) {
  if (rows != nullptr) *rows = 0;
  if (handle == nullptr || (tokens == nullptr && count > 0)) {
    return Fail(error, KVASIR_INVALID_ARGUMENT, "handle or tokens is null");
  }
  const bool negative =
      std::any_of(tokens, tokens + count, [](int32_t token) { return token < 0; });
  if (negative) return Fail(error, KVASIR_INVALID_ARGUMENT, "a token is below 0");
  (void)Fail(error, KVASIR_OK, "");
  size_t found = 0;
  const kvasir_code code = (handle->cache.*method)(
      sequence, {reinterpret_cast<const uint32_t*>(tokens), count}, more..., &found, error);
  if (rows != nullptr && code == KVASIR_OK) *rows = found;
  return code;
}

}  // namespace

extern "C" {

kvasir_code kvasir_llama_open(llama_context* context, const kvasir_llama_options* options,
                              kvasir_llama** handle, kvasir_error* error) {
  if (context == nullptr || options == nullptr || handle == nullptr) {
    return Fail(error, KVASIR_INVALID_ARGUMENT, "context, options or handle is null");
  }
  *handle = nullptr;
  if (options->struct_size <= sizeof(size_t)) {
    return Fail(error, KVASIR_INVALID_ARGUMENT, "options.struct_size is no size of this struct");
  }
  kvasir_llama_options known{};
  std::memcpy(&known, options, std::min(options->struct_size, sizeof(known)));
  if (known.model_path == nullptr && known.weights_digest.size == 0) {
    return Fail(error, KVASIR_INVALID_ARGUMENT, "neither model_path nor weights_digest is given");
  }
  (void)Fail(error, KVASIR_OK, "");
  std::unique_ptr<kvasir_llama> made(new kvasir_llama{LlamaCache(context)});
  const kvasir_code code = made->cache.Open(known, error);
  if (code == KVASIR_OK) *handle = made.release();
  return code;
}

void kvasir_llama_close(kvasir_llama* handle) { delete handle; }

const char* kvasir_llama_layout(const kvasir_llama* handle) {
  return handle == nullptr ? "" : handle->cache.layout_text().c_str();
}

uint32_t kvasir_llama_is_direct(const kvasir_llama* handle) {
  return handle != nullptr && handle->cache.is_direct() ? 1 : 0;
}

kvasir_code kvasir_llama_save(kvasir_llama* handle, int32_t sequence, const int32_t* tokens,
                              size_t count, size_t* rows, kvasir_error* error) {
  return Call(handle, sequence, tokens, count, rows, error, &LlamaCache::Save);
}

kvasir_code kvasir_llama_attach(kvasir_llama* handle, int32_t sequence, const int32_t* tokens,
                                size_t count, size_t* rows, kvasir_error* error) {
  return Call(handle, sequence, tokens, count, rows, error, &LlamaCache::Attach);
}

kvasir_code kvasir_llama_compact(kvasir_llama* handle, int32_t sequence, const int32_t* tokens,
                                 size_t count, const char* retention, size_t* rows,
                                 kvasir_error* error) {
  if (retention == nullptr) return Fail(error, KVASIR_INVALID_ARGUMENT, "retention is null");
  return Call(handle, sequence, tokens, count, rows, error, &LlamaCache::Compact,
              std::string(retention));
}

kvasir_llama_watch* kvasir_llama_watch_new(void) { return new kvasir_llama_watch; }

void kvasir_llama_watch_free(kvasir_llama_watch* watch) { delete watch; }

void kvasir_llama_listen(kvasir_llama_watch* watch, int32_t layer) {
  if (watch != nullptr) watch->queries.Listen(layer);
}

bool kvasir_llama_hear(ggml_tensor* tensor, bool ask, void* watch) {
  if (watch == nullptr) return !ask;
  return static_cast<kvasir_llama_watch*>(watch)->queries.Hear(tensor, ask);
}

kvasir_code kvasir_llama_select(kvasir_llama* handle, int32_t sequence, const int32_t* tokens,
                                size_t count, const char* retention, kvasir_llama_watch* watch,
                                int32_t* positions, size_t capacity, size_t* chosen,
                                kvasir_error* error) {
  if (retention == nullptr || watch == nullptr || (positions == nullptr && capacity > 0)) {
    return Fail(error, KVASIR_INVALID_ARGUMENT, "retention, watch or positions is null");
  }
  const kvasir_code code =
      Call(handle, sequence, tokens, count, chosen, error, &LlamaCache::Select,
           std::string(retention), watch->queries, std::span(positions, capacity));
  watch->queries.Listen(-1);
  return code;
}

}  // extern "C"
