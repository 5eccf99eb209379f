/*
 * kvasir_llama.h: prefixes of llama.cpp's sequences in the daemon, for programs that embed
 * llama.cpp. libkvasir-llama.so; docs/llama_cpp.md has the order of calls.
 *
 * Works with and without libggml-kvasir.so. With it rows go from memory to memory; without, through
 * a copy of llama.cpp's state, wherever its cache lies.
 *
 * What one process saves another attaches where all of it is the same: the tokens, the weights, the
 * layout of the cache (types, flash attention, rotations) and what the model makes of a token: a
 * scratch token is decoded and its rows are part of the key, so that an adapter, RoPE settings of
 * the context or another CPU keep caches apart. Caches that are apart are a miss and never an
 * error.
 *
 * Errors, strings and structs: as in client/c/kvasir.h. A handle and its context belong to one
 * thread at a time.
 */
#ifndef KVASIR_CLIENT_LLAMA_CPP_KVASIR_LLAMA_H_
#define KVASIR_CLIENT_LLAMA_CPP_KVASIR_LLAMA_H_

#if __has_include("client/c/kvasir.h")
#include "client/c/kvasir.h"
#else /* installed */
#include <kvasir.h>
#endif

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_tensor;
struct llama_context;

typedef struct kvasir_llama kvasir_llama;

typedef struct kvasir_llama_options {
  size_t struct_size;
  const char* control_socket;  /* NULL: KVASIR_CONTROL_SOCKET, else /run/kvasir/control.sock */
  const char* data_socket;     /* NULL: KVASIR_DATA_SOCKET, else data.sock beside it */
  uint64_t deadline_ms;        /* of every call; 0: 10 s */
  const char* model_path;      /* its digest is taken, about 1 s a GiB; or: */
  kvasir_bytes weights_digest; /* 16 to 64 bytes, as of kvasir_digest_file() */
  kvasir_bytes salt;           /* prefixes of other salts are never found */
  const uint32_t* separators;  /* token ids, for SepLLM */
  size_t separator_count;
  int32_t probe_sequence; /* a sequence of the context that is empty */
} kvasir_llama_options;

/*
 * Before anything is decoded in `context`, which must outlive the handle: decodes one token in the
 * probe sequence and removes it again.
 * Errors: those of kvasir_connect(); KVASIR_FAILED_PRECONDITION (the probe sequence is not empty,
 * or the token cannot be decoded); KVASIR_UNIMPLEMENTED (a cache that is not one tensor of keys and
 * one of values a layer: sliding windows, recurrent layers, positions in two dimensions).
 */
KVASIR_API kvasir_code kvasir_llama_open(struct llama_context* context,
                                         const kvasir_llama_options* options, kvasir_llama** handle,
                                         kvasir_error* error);
/* NULL is allowed. What was saved stays. */
KVASIR_API void kvasir_llama_close(kvasir_llama* handle);
/* How the cache is laid out, for people. Lives as long as the handle. */
KVASIR_API const char* kvasir_llama_layout(const kvasir_llama* handle);
/* 1: libggml-kvasir.so holds the cache, and rows are copied once. */
KVASIR_API uint32_t kvasir_llama_is_direct(const kvasir_llama* handle);

/*
 * Publishes the first `count` rows of `sequence`, which are those of `tokens`; at least 16. Rows
 * that are in the daemon already are not copied again. `rows`, which may be NULL: how many are
 * there now. Errors: KVASIR_FAILED_PRECONDITION (the sequence does not have each of these positions
 * once), KVASIR_RESOURCE_EXHAUSTED.
 */
KVASIR_API kvasir_code kvasir_llama_save(kvasir_llama* handle, int32_t sequence,
                                         const int32_t* tokens, size_t count, size_t* rows,
                                         kvasir_error* error);
/*
 * Makes `sequence` begin with the longest saved prefix of `tokens` but the last, which is left to
 * be decoded, for its logits; what the sequence held goes. `rows`: how many are there; 0 where
 * nothing was found, and then the sequence is as it was. Errors: KVASIR_RESOURCE_EXHAUSTED
 * (llama.cpp has not so many free cells: the sequence is empty; or the daemon has no room).
 */
KVASIR_API kvasir_code kvasir_llama_attach(kvasir_llama* handle, int32_t sequence,
                                           const int32_t* tokens, size_t count, size_t* rows,
                                           kvasir_error* error);

/*
 * Leaves in `sequence`, which has decoded `tokens`, what the next token sees under `retention`, a
 * policy that keeps the same tokens in all layers, at their original positions: such as
 * "sepllm:init_cache_size=4,local_size=256" or
 * "streamingllm:start_size=4,recent_size=508,positions=original". Its cells are one behind the
 * other afterwards. Called again with more tokens it goes on; with another retention, or tokens
 * that do not go on, it begins anew. `rows`: what is left. Errors: KVASIR_INVALID_ARGUMENT
 * (retention), KVASIR_UNIMPLEMENTED (one that keeps other tokens in each layer or moves positions),
 * KVASIR_FAILED_PRECONDITION (the sequence lacks a row that was not seen before).
 */
KVASIR_API kvasir_code kvasir_llama_compact(kvasir_llama* handle, int32_t sequence,
                                            const int32_t* tokens, size_t count,
                                            const char* retention, size_t* rows,
                                            kvasir_error* error);

/*
 * Hears the queries of a layer while llama.cpp computes, for kvasir_llama_select(). The context is
 * made with cb_eval = kvasir_llama_hear and cb_eval_user_data = the watch, which outlives it.
 */
typedef struct kvasir_llama_watch kvasir_llama_watch;

/* Never NULL; hears nothing yet. */
KVASIR_API kvasir_llama_watch* kvasir_llama_watch_new(void);
KVASIR_API void kvasir_llama_watch_free(kvasir_llama_watch* watch);
/*
 * From the next llama_decode() on; below 0: nothing. While it listens, llama.cpp computes up to the
 * layer and then the rest.
 */
KVASIR_API void kvasir_llama_listen(kvasir_llama_watch* watch, int32_t layer);
KVASIR_API bool kvasir_llama_hear(struct ggml_tensor* tensor, bool ask, void* watch);

/*
 * Which of the rows of `tokens`, all of which `sequence` has, a selection policy keeps, such as
 * "gemfilter:filter_layer=13,topk=1024": by the query of the last one, which was decoded last and
 * while `watch` listened to the policy's layer. `positions`: ascending, at most `capacity` of them;
 * `chosen`: how many there are. The sequence stays as it is: the caller removes it and decodes the
 * chosen tokens as a prompt of their own, from position 0. The watch listens no longer. The daemon
 * holds all rows while the call runs. Errors: KVASIR_INVALID_ARGUMENT (retention, or one that
 * selects nothing); KVASIR_FAILED_PRECONDITION (no query of that layer was heard, or it does not
 * fit to the keys; the sequence lacks a row); KVASIR_UNIMPLEMENTED (keys that are quantised or
 * rotated otherwise); KVASIR_RESOURCE_EXHAUSTED.
 */
KVASIR_API kvasir_code kvasir_llama_select(kvasir_llama* handle, int32_t sequence,
                                           const int32_t* tokens, size_t count,
                                           const char* retention, kvasir_llama_watch* watch,
                                           int32_t* positions, size_t capacity, size_t* chosen,
                                           kvasir_error* error);

#ifdef __cplusplus
}
#endif

#endif /* KVASIR_CLIENT_LLAMA_CPP_KVASIR_LLAMA_H_ */
