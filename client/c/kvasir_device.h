/*
 * kvasir_device.h: devices of this process, for models whose rows lie in a device's memory
 * (kvasir_model_spec.pool). Completes kvasir.h, whose rules hold.
 *
 * The daemon owns a part of a GPU ([[gpu]] in its configuration). A program opens the same GPU,
 * hands it to kvasir_connect(), and registers a model with the name of that part: `k` and `v` of
 * the views are then addresses of the device, for kernels and copies of the program's own streams
 * (of CUDA: of the device's primary context, which is the one of the runtime API).
 * docs/engine_guide.md says what such sequences may ask for.
 *
 * Names of this header are exported under the version KVASIR_3; kvasir_abi() is then at least 3.
 */
#ifndef KVASIR_CLIENT_C_KVASIR_DEVICE_H_
#define KVASIR_CLIENT_C_KVASIR_DEVICE_H_

#include "kvasir.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Thread-safe, but for kvasir_close_device(). */
typedef struct kvasir_device kvasir_device;

/*
 * `name` says which:
 *   "cuda:0", "cuda:1", ...  in the order of CUDA, as this process sees it
 *   "GPU-8f3a..."            by its uuid, which says the same GPU in every process
 *   "host-POOL"              host memory that stands in for a device: the daemon's pool POOL with
 *                            device = "host". For tests, and machines without a GPU. Its addresses
 *                            cannot be followed by the processor, as those of a GPU.
 * KVASIR_INVALID_ARGUMENT: no such kind of name. KVASIR_UNIMPLEMENTED: this library is built
 * without CUDA, and says so. KVASIR_UNAVAILABLE: no driver, one that is too old, or no GPU.
 * KVASIR_NOT_FOUND names the uuids that are there, KVASIR_FAILED_PRECONDITION what the GPU lacks.
 * Cost, of CUDA: some 100 ms, and some hundred MiB of the GPU for its context.
 */
KVASIR_API kvasir_code kvasir_open_device(const char* name, kvasir_device** device,
                                          kvasir_error* error);
/* Sessions that it was handed to, and what they gave, keep what they need. NULL is allowed. */
KVASIR_API void kvasir_close_device(kvasir_device* device);

/* Live as long as the device. Of NULL: "", "" and 0. */
KVASIR_API const char* kvasir_device_uuid(const kvasir_device* device);
KVASIR_API const char* kvasir_device_name(const kvasir_device* device); /* for people */
KVASIR_API uint32_t kvasir_device_is_cuda(const kvasir_device* device);

/*
 * Copies `bytes` of a view's rows to or from memory of the processor, and returns when they are
 * there. For programs without streams of their own, and for tests: a copy by the processor, one by
 * the device, and a wait for it. Copies of one device take turns.
 * KVASIR_INVALID_ARGUMENT: not inside one extent of this device. KVASIR_FAILED_PRECONDITION: kept
 * rows are not written. KVASIR_UNAVAILABLE: the device is lost.
 * The rows have to be those of a view that is still valid, or held (kvasir_hold_memory()).
 */
KVASIR_API kvasir_code kvasir_read_device(kvasir_device* device, const void* from, void* to,
                                          size_t bytes, kvasir_error* error);
KVASIR_API kvasir_code kvasir_write_device(kvasir_device* device, const void* from, void* to,
                                           size_t bytes, kvasir_error* error);

/*
 * uuid of the device on which the rows of a model of this session lie; "": in host memory, or no
 * such model. Lives as long as the session. Of NULL: "".
 */
KVASIR_API const char* kvasir_model_device(kvasir_session* session, const kvasir_model* model);

#ifdef __cplusplus
}
#endif

#endif /* KVASIR_CLIENT_C_KVASIR_DEVICE_H_ */
