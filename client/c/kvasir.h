/*
 * kvasir.h: the client library for programs that are not C++, libkvasir.so.
 *
 * The same verbs as client/session.h and client/sequence.h, one to one; docs/engine_guide.md has
 * the attention loop, and client/view.h says what each field of a view means.
 *
 * Errors: functions return a kvasir_code; with `error`, which may be NULL, comes a text that names
 * the field and its bound. Nothing throws and nothing aborts for a wrong value. Every call ends at
 * the session's deadline.
 * Strings and arrays that are passed in are copied; what is returned lives as long as the header
 * says. Structs that are passed in begin with their size: what a newer header has added is its
 * default to an older program. Structs of the views are read in place, without a copy.
 * Threads: a session may be used by many threads, a sequence by one at a time.
 * Out of memory, in this process, is KVASIR_RESOURCE_EXHAUSTED like any shortage.
 * Names beginning with kvasir_ are all that the library exports: those of this header under the
 * version KVASIR_1, of kvasir_tenant.h under KVASIR_2, of kvasir_device.h under KVASIR_3, of
 * kvasir_async.h under KVASIR_4.
 */
#ifndef KVASIR_CLIENT_C_KVASIR_H_
#define KVASIR_CLIENT_C_KVASIR_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KVASIR_ABI 4
#define KVASIR_API __attribute__((visibility("default")))

/* As gRPC's. */
typedef enum kvasir_code {
  KVASIR_OK = 0,
  KVASIR_CANCELLED = 1,
  KVASIR_UNKNOWN = 2,
  KVASIR_INVALID_ARGUMENT = 3,
  KVASIR_DEADLINE_EXCEEDED = 4,
  KVASIR_NOT_FOUND = 5,
  KVASIR_ALREADY_EXISTS = 6,
  KVASIR_PERMISSION_DENIED = 7,
  KVASIR_RESOURCE_EXHAUSTED = 8,
  KVASIR_FAILED_PRECONDITION = 9,
  KVASIR_ABORTED = 10,
  KVASIR_OUT_OF_RANGE = 11,
  KVASIR_UNIMPLEMENTED = 12,
  KVASIR_INTERNAL = 13,
  KVASIR_UNAVAILABLE = 14,
  KVASIR_DATA_LOSS = 15,
  KVASIR_UNAUTHENTICATED = 16
} kvasir_code;

typedef struct kvasir_error {
  int32_t code;
  char text[1020]; /* ends in a NUL; "" on success */
} kvasir_error;

typedef struct kvasir_session kvasir_session;
typedef struct kvasir_sequence kvasir_sequence;
typedef struct kvasir_prefix_forms kvasir_prefix_forms;

/* "1.2.3", for people. */
KVASIR_API const char* kvasir_version(void);
/* KVASIR_ABI of the library, which may be newer than the program's. */
KVASIR_API uint32_t kvasir_abi(void);

/* ---- session ----------------------------------------------------------------------------------
 */

struct kvasir_device; /* kvasir_device.h */

typedef struct kvasir_connect_options {
  size_t struct_size;
  const char* control_socket; /* NULL: /run/kvasir/control.sock */
  const char* data_socket;    /* NULL: /run/kvasir/data.sock */
  uint64_t deadline_ms;       /* of every call; 0: 10 s */
  uint32_t without_ring;      /* 1: every call by gRPC */
  /* Since KVASIR_ABI 3: */
  struct kvasir_device* const* devices; /* of this process, for models with a pool; each once */
  size_t device_count;
} kvasir_connect_options;

/* `options` may be NULL. */
KVASIR_API kvasir_code kvasir_connect(const kvasir_connect_options* options,
                                      kvasir_session** session, kvasir_error* error);
/* Sequences that are open keep what they need. NULL is allowed. */
KVASIR_API void kvasir_disconnect(kvasir_session* session);

typedef enum kvasir_type {
  KVASIR_F16 = 0,
  KVASIR_BF16 = 1,
  KVASIR_F32 = 2,
  KVASIR_F8_E4M3 = 3 /* since KVASIR_ABI 4: OCP's fp8, up to 448, no infinity */
} kvasir_type;
typedef enum kvasir_rope {
  KVASIR_ROPE_NONE = 0,
  KVASIR_ROPE_INTERLEAVED = 1,
  KVASIR_ROPE_HALF_SPLIT = 2
} kvasir_rope;

typedef struct kvasir_layer {
  uint32_t kv_heads;
  uint32_t k_head_dim;     /* elements */
  uint32_t v_head_dim;     /* elements; 0: no V rows */
  uint32_t sliding_window; /* rows; 0: full attention */
  uint32_t query_heads;    /* a multiple of kv_heads; 0: unknown */
} kvasir_layer;

typedef struct kvasir_bytes {
  const void* data;
  size_t size;
} kvasir_bytes;

typedef struct kvasir_model_spec {
  size_t struct_size;
  const char* name; /* for people */
  int32_t kv_type;  /* kvasir_type */
  const kvasir_layer* layers;
  size_t layer_count;
  int32_t rope;      /* kvasir_rope */
  double rope_theta; /* 0: 10000 */
  uint32_t rope_dims;
  const uint32_t* separators;
  size_t separator_count;
  uint32_t vocabulary_size;
  uint32_t slots_per_block;    /* 0: the daemon chooses */
  kvasir_bytes weights_digest; /* 16 to 64 bytes, see kvasir_digest_file() */
  const kvasir_bytes* adapter_digests;
  size_t adapter_count;
  double prefill_rows_per_s; /* 0: unknown */
  /* Since KVASIR_ABI 3: */
  const char* pool; /* a [[gpu]] of the daemon's, in whose memory the rows lie; NULL: the host's */
} kvasir_model_spec;

typedef struct kvasir_model {
  uint32_t id;
  uint32_t slots_per_block;
  uint8_t fingerprint[16];
} kvasir_model;

KVASIR_API kvasir_code kvasir_register_model(kvasir_session* session, const kvasir_model_spec* spec,
                                             kvasir_model* model, kvasir_error* error);
/* BLAKE2b-256 of a file's bytes. */
KVASIR_API kvasir_code kvasir_digest_file(const char* path, uint8_t digest[32],
                                          kvasir_error* error);

/* ---- prefixes ---------------------------------------------------------------------------------
 */

typedef enum kvasir_quality {
  KVASIR_ANY_QUALITY = 0,
  KVASIR_COMPACTED = 1,
  KVASIR_QUANTISED = 2,
  KVASIR_FULL = 3
} kvasir_quality;

typedef struct kvasir_token_digest {
  uint64_t row;
  kvasir_bytes digest; /* 1 to 128 bytes */
} kvasir_token_digest;

typedef struct kvasir_prompt {
  size_t struct_size;
  const uint32_t* tokens; /* from row 0 */
  size_t token_count;
  const kvasir_token_digest* digests; /* ascending by row */
  size_t digest_count;
  kvasir_bytes salt;
  uint64_t rows_max;     /* no more are wanted; 0: as many as there are tokens */
  int32_t least_quality; /* kvasir_quality; KVASIR_ANY_QUALITY: only what the retention makes */
} kvasir_prompt;

typedef struct kvasir_prefix_form {
  const char* retention;
  int32_t quality; /* kvasir_quality */
  uint32_t is_public;
  uint64_t rows;
  const char* place;
  const char* condensed_from; /* "": by no daemon */
} kvasir_prefix_form;

/* The longest first. `forms` is the caller's, until kvasir_prefix_forms_free(). */
KVASIR_API kvasir_code kvasir_match_prefix(kvasir_session* session, const kvasir_model* model,
                                           const kvasir_prompt* prompt, uint32_t prefetch,
                                           kvasir_prefix_forms** forms, kvasir_error* error);
KVASIR_API size_t kvasir_prefix_forms_count(const kvasir_prefix_forms* forms);
/* NULL beyond the count; lives as long as `forms`. */
KVASIR_API const kvasir_prefix_form* kvasir_prefix_forms_at(const kvasir_prefix_forms* forms,
                                                            size_t index);
KVASIR_API void kvasir_prefix_forms_free(kvasir_prefix_forms* forms);

/* ---- sequences --------------------------------------------------------------------------------
 */

typedef struct kvasir_snapshot {
  uint8_t id[16];
  uint64_t rows;
  uint64_t held_bytes;
} kvasir_snapshot;

struct kvasir_hints; /* kvasir_tenant.h */

typedef struct kvasir_open_options {
  size_t struct_size;
  const kvasir_model* model;
  const char* retention; /* NULL: the tenant's default */
  uint64_t prompt_rows;
  const char* label;
  uint64_t max_rows;
  uint32_t reads_records;
  const kvasir_snapshot* snapshot; /* NULL: begin at row 0 */
  uint64_t snapshot_rows;
  const kvasir_prompt* prefix; /* NULL: the rows are private */
  /* Since KVASIR_ABI 2: */
  const uint8_t* lease;             /* kvasir_lease_id(), with `prefix`; NULL: none */
  const struct kvasir_hints* hints; /* kvasir_tenant.h; NULL: none */
} kvasir_open_options;

KVASIR_API kvasir_code kvasir_open(kvasir_session* session, const kvasir_open_options* options,
                                   kvasir_sequence** sequence, kvasir_error* error);
/* Gives everything back, whatever is returned. NULL is allowed. */
KVASIR_API kvasir_code kvasir_close(kvasir_sequence* sequence, kvasir_error* error);

/*
 * Of a model with a pool `k` and `v` of the views below are addresses of its device: the processor
 * that follows one ends the process. All else lies in this process's memory. Rows are written
 * before kvasir_commit(): whose stream writes them waits for it first, or has kvasir_async.h.
 */
typedef struct kvasir_kept_run {
  const void* k;
  const void* v;
  uint32_t rows;
  uint32_t k_stride;
  uint32_t v_stride;
  int64_t query_offset;
  uint64_t query_max;
  const uint32_t* positions;
  const uint32_t* tokens;
  uint32_t v_bits;
  uint32_t head_stride;
} kvasir_kept_run;

typedef struct kvasir_record_format {
  uint32_t rows;
  uint8_t k_codec; /* 0 as written, 1 int8, 2 int4, 3 token-mixed */
  uint8_t v_codec;
  uint32_t k_planes;
  uint32_t v_planes;
  uint64_t k_bytes;
  uint64_t v_bytes;
} kvasir_record_format;

typedef struct kvasir_record {
  const void* k;
  const void* v;
  uint32_t first_slot;
  uint32_t rows;
  uint8_t windowed;
  uint64_t first_row;
  int64_t query_offset;
  uint64_t query_max;
  const uint32_t* positions;
  const uint32_t* tokens;
} kvasir_record;

typedef struct kvasir_recent_block {
  void* k;
  void* v;
} kvasir_recent_block;

typedef struct kvasir_mass {
  uint8_t by_query_head;
  float* kept;
  float* recent;
  uint64_t kept_rows;
  uint64_t recent_rows;
} kvasir_mass;

typedef struct kvasir_query_rows {
  float* data;
  uint64_t first_row;
  uint32_t count;
  uint32_t row_floats;
} kvasir_query_rows;

typedef struct kvasir_layer_view {
  const kvasir_kept_run* kept;
  size_t kept_count;
  const kvasir_record* records;
  size_t record_count;
  const kvasir_record_format* record_format; /* NULL: there are no records */
  uint64_t records_from;
  const kvasir_recent_block* recent;
  size_t recent_count;
  uint64_t recent_base;
  uint64_t recent_first;
  uint64_t window;
  const uint64_t* sticky;
  size_t sticky_count;
  uint32_t slots_per_block;
  uint32_t k_stride;
  uint32_t v_stride;
  uint8_t unrotated;
  uint64_t far_position;
  kvasir_mass mass;
  kvasir_query_rows queries;
} kvasir_layer_view;

typedef struct kvasir_step {
  uint64_t row;
  uint32_t count;
  const kvasir_layer_view* layers; /* until the sequence's next begin or commit */
  size_t layer_count;
  double mass_decay;
} kvasir_step;

KVASIR_API kvasir_code kvasir_begin(kvasir_sequence* sequence, uint32_t want_rows,
                                    kvasir_step* step, kvasir_error* error);
KVASIR_API kvasir_code kvasir_commit(kvasir_sequence* sequence, const uint32_t* ids, size_t count,
                                     kvasir_error* error);
/*
 * kvasir_begin() of all sequences of a batch, each of `want_rows` rows. Those that fail say so in
 * codes[i], which may be NULL, and steps[i] is all zero; the first of them is what is returned.
 */
KVASIR_API kvasir_code kvasir_begin_many(kvasir_sequence* const* sequences, size_t count,
                                         uint32_t want_rows, kvasir_step* steps, int32_t* codes,
                                         kvasir_error* error);
/* kvasir_commit() of one row of each: ids[i] is the token of sequences[i]. As kvasir_begin_many().
 */
KVASIR_API kvasir_code kvasir_commit_many(kvasir_sequence* const* sequences, size_t count,
                                          const uint32_t* ids, int32_t* codes, kvasir_error* error);

KVASIR_API kvasir_code kvasir_truncate(kvasir_sequence* sequence, uint64_t rows,
                                       kvasir_error* error);
KVASIR_API kvasir_code kvasir_save(kvasir_sequence* sequence, kvasir_snapshot* snapshot,
                                   kvasir_error* error);
KVASIR_API kvasir_code kvasir_drop_snapshot(kvasir_session* session, const uint8_t id[16],
                                            kvasir_error* error);
/* `rows` and `held_bytes` may be NULL. */
KVASIR_API kvasir_code kvasir_publish_prefix(kvasir_sequence* sequence, uint64_t* rows,
                                             uint64_t* held_bytes, kvasir_error* error);
/*
 * Selection policies. At most `capacity` rows are written; `count` says how many were chosen.
 */
KVASIR_API kvasir_code kvasir_select_rows(kvasir_sequence* sequence, const float* query,
                                          size_t query_floats, uint32_t* rows, size_t capacity,
                                          size_t* count, kvasir_error* error);
/* Retrieval policies. `runs` lives until the layer's next call. */
KVASIR_API kvasir_code kvasir_retrieve(kvasir_sequence* sequence, uint32_t layer,
                                       const float* query, size_t query_floats, const float* mass,
                                       size_t mass_floats, const kvasir_kept_run** runs,
                                       size_t* run_count, kvasir_error* error);

/* Of NULL: 0, "" and -1. */
KVASIR_API uint64_t kvasir_rows(const kvasir_sequence* sequence);
KVASIR_API uint64_t kvasir_sequence_id(const kvasir_sequence* sequence);
/* Live as long as the sequence. */
KVASIR_API const char* kvasir_retention(const kvasir_sequence* sequence);
KVASIR_API const char* kvasir_condensed_from(const kvasir_sequence* sequence);
KVASIR_API uint32_t kvasir_slots_per_block(const kvasir_sequence* sequence);
/* Selection policies: the layer whose keys are scored; -1: another policy. */
KVASIR_API int64_t kvasir_filter_layer(const kvasir_sequence* sequence);
KVASIR_API uint32_t kvasir_retrieves(const kvasir_sequence* sequence);

typedef struct kvasir_footprint {
  uint64_t held_bytes;
  uint64_t kept_rows;
  uint64_t version;
} kvasir_footprint;

KVASIR_API kvasir_code kvasir_measure_footprint(kvasir_sequence* sequence,
                                                kvasir_footprint* footprint, kvasir_error* error);

#ifdef __cplusplus
}
#endif

#endif /* KVASIR_CLIENT_C_KVASIR_H_ */
