/*
 * What libggml-kvasir.so offers beside ggml's backend interface, by name through
 * ggml_backend_reg_get_proc_address() on the backend "KVASIR".
 */
#ifndef KVASIR_CLIENT_LLAMA_CPP_PLUGIN_HOOKS_H_
#define KVASIR_CLIENT_LLAMA_CPP_PLUGIN_HOOKS_H_

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_tensor;

/* Bytes [offset, offset + size) of `tensor` that a copy to or from `data` is asked for. */
typedef struct kvasir_transfer {
  const struct ggml_tensor* tensor;
  size_t offset;
  size_t size;
  const void* data;
} kvasir_transfer;

typedef void (*kvasir_transfer_sink)(void* user, const kvasir_transfer* transfer);

/*
 * From now on the calling thread's copies to and from tensors in the daemon's memory are told to
 * `sink` and not made; with a null sink they are made again. Other threads' are made as ever.
 */
#define KVASIR_CAPTURE_TRANSFERS "kvasir_capture_transfers_1"
typedef void (*kvasir_capture_transfers_fn)(kvasir_transfer_sink sink, void* user);

#ifdef __cplusplus
}
#endif

#endif /* KVASIR_CLIENT_LLAMA_CPP_PLUGIN_HOOKS_H_ */
