/*
 * kvasir_tenant.h: what a session may know of its tenant and what it shares with others of it:
 * shortages, hints, leases, statistics, which rows are kept. Completes kvasir.h, whose rules hold.
 *
 * Names of this header are exported under the version KVASIR_2; kvasir_abi() is then at least 2.
 */
#ifndef KVASIR_CLIENT_C_KVASIR_TENANT_H_
#define KVASIR_CLIENT_C_KVASIR_TENANT_H_

#include "kvasir.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- shortages ------------------------------------------------------------------------------ */

typedef struct kvasir_shortage {
  char budget[64];         /* key of the configuration that sets it: "tenant.limit_bytes" */
  char holder[64];         /* who has what is missing, as far as the caller may know */
  uint64_t missing;        /* in the budget's unit */
  uint64_t retry_after_ms; /* to ask sooner is of no use */
} kvasir_shortage;

/*
 * What stands behind the KVASIR_RESOURCE_EXHAUSTED that this thread's last function has returned;
 * 0: it has returned something else, or the daemon has not said. Texts that do not fit are cut.
 * Of a call through the ring there is retry_after_ms alone: the error's text has the rest.
 */
KVASIR_API uint32_t kvasir_last_shortage(kvasir_shortage* shortage);

/* ---- hints ---------------------------------------------------------------------------------- */

/* What an engine knows of the request behind a sequence (docs/hints.md). */
typedef struct kvasir_hints {
  size_t struct_size;
  int32_t priority;        /* -100 to 100; larger: gives its memory up later */
  uint32_t has_prediction; /* 0 none; 1 predicted_rows, 2 predicted_rank */
  uint64_t predicted_rows; /* of the response in all, at most 2^32 */
  uint32_t predicted_rank; /* larger is longer, on any scale */
  uint64_t age_ms;         /* since the request came in */
} kvasir_hints;

/* From now on; an age of 0: as it was. */
KVASIR_API kvasir_code kvasir_set_hints(kvasir_sequence* sequence, const kvasir_hints* hints,
                                        kvasir_error* error);
/*
 * 1: the tenant is short of memory and this sequence should be saved and closed. Cost: a load;
 * meant to be looked at every step. NULL: 0.
 */
KVASIR_API uint32_t kvasir_suspend_wanted(const kvasir_sequence* sequence);
/* Bytes that the tenant has borrowed and that their owners want back now. Cost: a load. NULL: 0. */
KVASIR_API uint64_t kvasir_wanted_back(const kvasir_session* session);
/* NULL: 0. The epoch tells a daemon that was started again. */
KVASIR_API uint32_t kvasir_session_id(const kvasir_session* session);
KVASIR_API uint64_t kvasir_boot_epoch(const kvasir_session* session);

/* ---- leases --------------------------------------------------------------------------------- */

typedef struct kvasir_lease kvasir_lease;

/* A model that goes through the prompt, such as a rank's shard of the weights. */
typedef struct kvasir_lease_member {
  uint8_t model_fingerprint[16]; /* kvasir_model.fingerprint, of any session of the tenant */
  const char* retention;         /* NULL: the tenant's default */
  int32_t least_quality;         /* kvasir_quality; KVASIR_ANY_QUALITY: what the retention makes */
  uint32_t reads_records;
} kvasir_lease_member;

typedef struct kvasir_lease_options {
  size_t struct_size;
  const kvasir_lease_member* members; /* 1 to 32, of different models */
  size_t member_count;
  const kvasir_prompt* prompt; /* its least_quality is not looked at */
  uint64_t prompt_rows;
  uint64_t ttl_ms; /* 0: as long as the daemon allows */
} kvasir_lease_options;

typedef struct kvasir_leased_form {
  const char* retention;
  int32_t quality; /* kvasir_quality */
  uint32_t is_public;
} kvasir_leased_form;

/*
 * Leases the longest rows at which every member can go on: sequences that are opened with its id
 * (kvasir_open_options.lease) begin there, whatever is given up meanwhile.
 */
KVASIR_API kvasir_code kvasir_lease_prefix(kvasir_session* session,
                                           const kvasir_lease_options* options,
                                           kvasir_lease** lease, kvasir_error* error);
/* 16 bytes that live as long as the lease; NULL: it has no rows. */
KVASIR_API const uint8_t* kvasir_lease_id(const kvasir_lease* lease);
/* 0: the members have none in common, and nothing is leased. */
KVASIR_API uint64_t kvasir_lease_rows(const kvasir_lease* lease);
KVASIR_API uint64_t kvasir_lease_ttl_ms(const kvasir_lease* lease);
/* Of member `index`; NULL beyond the members, and with no rows. Lives as long as the lease. */
KVASIR_API const kvasir_leased_form* kvasir_lease_form(const kvasir_lease* lease, size_t index);
/* Gives it back, whatever is returned; sequences that were opened with it go on. NULL is allowed.
 */
KVASIR_API kvasir_code kvasir_release_lease(kvasir_lease* lease, kvasir_error* error);

/* ---- what there is -------------------------------------------------------------------------- */

/* Texts of the ids first, first + 1, ... for people who inspect; at most 64 bytes of each. */
KVASIR_API kvasir_code kvasir_put_token_texts(kvasir_session* session, const kvasir_model* model,
                                              uint32_t first, const kvasir_bytes* texts,
                                              size_t count, kvasir_error* error);

/* JSON, as `kvasirctl --output=json` prints it; numbers of 64 bits are strings in it. */
typedef struct kvasir_text kvasir_text;
KVASIR_API const char* kvasir_text_data(const kvasir_text* text); /* NULL: "" */
KVASIR_API void kvasir_text_free(kvasir_text* text);

/* GetStatsResponse of proto/kvasir/v1/admin.proto, of the own tenant. */
KVASIR_API kvasir_code kvasir_describe_tenant(kvasir_session* session, kvasir_text** text,
                                              kvasir_error* error);
/* ListPoliciesResponse: what a retention may say, with bounds and defaults. */
KVASIR_API kvasir_code kvasir_describe_policies(kvasir_session* session, kvasir_text** text,
                                                kvasir_error* error);
/* InspectSequenceResponse: which rows of a layer are kept; `rows_max` 0: 4096. */
KVASIR_API kvasir_code kvasir_describe_rows(kvasir_session* session, uint64_t sequence_id,
                                            uint32_t layer, uint64_t first_row, uint32_t rows_max,
                                            kvasir_text** text, kvasir_error* error);

/* ---- for languages that hand views on ------------------------------------------------------- */

typedef struct kvasir_hold kvasir_hold;

/*
 * Keeps mapped what the views of the session's sequences show now, until it is given back, also
 * beyond the session: a view's k, v, positions and tokens can then be read (what they show may
 * change). Memory that is held counts as the tenant's. Reading it ends the process with SIGBUS
 * where the daemon has taken the tenant's memory back. Cost: a lock and an allocation.
 */
KVASIR_API kvasir_code kvasir_hold_memory(kvasir_session* session, kvasir_hold** hold,
                                          kvasir_error* error);
KVASIR_API void kvasir_let_go(kvasir_hold* hold); /* NULL is allowed */

#ifdef __cplusplus
}
#endif

#endif /* KVASIR_CLIENT_C_KVASIR_TENANT_H_ */
