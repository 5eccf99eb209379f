/* An engine in C: every verb of kvasir.h against a daemon, good and bad. Says the line that fails. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "client/c/kvasir_async.h"
#include "client/c/kvasir_tenant.h"

#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "line %d: %s (%d: %s)\n", __LINE__, #condition,         \
              (int)error.code, error.text);                                   \
      return 1;                                                               \
    }                                                                         \
  } while (0)

enum { kLayers = 2, kDims = 8, kRows = 40, kVocabulary = 100 };

/* Of K (plane 0) or V of a row. */
static uint16_t ElementOf(uint64_t row, uint32_t layer, int plane, uint32_t dim) {
  return (uint16_t)(row * 64 + layer * 32 + (uint64_t)plane * 16 + dim);
}

static void WriteRows(const kvasir_step* step) {
  for (uint32_t l = 0; l < step->layer_count; ++l) {
    const kvasir_layer_view* view = &step->layers[l];
    for (uint64_t row = step->row; row < step->row + step->count; ++row) {
      const uint64_t at = row - view->recent_base;
      const kvasir_recent_block* block = &view->recent[at / view->slots_per_block];
      for (uint32_t d = 0; d < kDims; ++d) {
        const uint16_t k = ElementOf(row, l, 0, d), v = ElementOf(row, l, 1, d);
        memcpy((char*)block->k + at % view->slots_per_block * view->k_stride + 2 * d, &k, 2);
        memcpy((char*)block->v + at % view->slots_per_block * view->v_stride + 2 * d, &v, 2);
      }
    }
  }
}

/* Kept rows of the view that are as they were written; 0 where one is not. */
static uint64_t RightRows(const kvasir_layer_view* view, uint32_t layer) {
  uint64_t right = 0;
  for (size_t r = 0; r < view->kept_count; ++r) {
    const kvasir_kept_run* run = &view->kept[r];
    for (uint32_t i = 0; i < run->rows; ++i) {
      for (uint32_t d = 0; d < kDims; ++d) {
        const uint16_t k = ElementOf(run->positions[i], layer, 0, d);
        const uint16_t v = ElementOf(run->positions[i], layer, 1, d);
        if (memcmp((const char*)run->k + (size_t)i * run->k_stride + 2 * d, &k, 2) != 0 ||
            memcmp((const char*)run->v + (size_t)i * run->v_stride + 2 * d, &v, 2) != 0) {
          return 0;
        }
      }
      ++right;
    }
  }
  return right;
}

static int FillAndPublish(kvasir_session* session, const kvasir_model* model,
                          const kvasir_prompt* prompt) {
  kvasir_error error = {0};
  kvasir_open_options open = {0};
  open.struct_size = sizeof(open);
  open.model = model;
  open.retention = "full";
  open.prefix = prompt;
  kvasir_sequence* sequence = NULL;
  CHECK(kvasir_open(session, &open, &sequence, &error) == KVASIR_OK);
  CHECK(strcmp(kvasir_retention(sequence), "full") == 0);
  CHECK(kvasir_slots_per_block(sequence) == model->slots_per_block);
  CHECK(kvasir_filter_layer(sequence) == -1 && kvasir_retrieves(sequence) == 0);
  CHECK(kvasir_sequence_id(sequence) != 0 && *kvasir_condensed_from(sequence) == '\0');
  kvasir_step step;
  CHECK(kvasir_begin(sequence, 0, &step, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(error.code == KVASIR_INVALID_ARGUMENT && strstr(error.text, "want_rows") != NULL);
  while (kvasir_rows(sequence) < kRows) {
    const uint64_t left = kRows - kvasir_rows(sequence);
    CHECK(kvasir_begin(sequence, (uint32_t)left, &step, &error) == KVASIR_OK);
    CHECK(step.layer_count == kLayers && step.row == kvasir_rows(sequence));
    WriteRows(&step);
    const uint32_t beyond = kVocabulary;
    CHECK(kvasir_commit(sequence, &beyond, 1, &error) == KVASIR_INVALID_ARGUMENT);
    CHECK(kvasir_commit(sequence, prompt->tokens + step.row, step.count, &error) == KVASIR_OK);
  }
  uint64_t rows = 0, held = 0;
  CHECK(kvasir_publish_prefix(sequence, &rows, &held, &error) == KVASIR_OK);
  CHECK(rows == kRows && held > 0);
  kvasir_snapshot snapshot;
  CHECK(kvasir_save(sequence, &snapshot, &error) == KVASIR_OK && snapshot.rows == kRows);
  kvasir_footprint footprint;
  CHECK(kvasir_measure_footprint(sequence, &footprint, &error) == KVASIR_OK);
  CHECK(footprint.kept_rows > 0 && footprint.held_bytes > 0);
  CHECK(kvasir_truncate(sequence, kRows + 1, &error) == KVASIR_OUT_OF_RANGE);
  CHECK(kvasir_close(sequence, &error) == KVASIR_OK);

  open.prefix = NULL;
  open.snapshot = &snapshot;
  CHECK(kvasir_open(session, &open, &sequence, &error) == KVASIR_OK);
  CHECK(kvasir_rows(sequence) == kRows);
  CHECK(kvasir_close(sequence, NULL) == KVASIR_OK);
  CHECK(kvasir_drop_snapshot(session, snapshot.id, &error) == KVASIR_OK);
  CHECK(kvasir_drop_snapshot(session, snapshot.id, &error) == KVASIR_NOT_FOUND);
  return 0;
}

static int Attach(kvasir_session* session, const kvasir_model* model,
                  const kvasir_prompt* prompt) {
  kvasir_error error = {0};
  kvasir_prefix_forms* forms = NULL;
  CHECK(kvasir_match_prefix(session, model, prompt, 0, &forms, &error) == KVASIR_OK);
  CHECK(kvasir_prefix_forms_count(forms) == 1);
  const kvasir_prefix_form* form = kvasir_prefix_forms_at(forms, 0);
  CHECK(form->rows >= kRows / 16 * 16 && form->quality == KVASIR_FULL && form->is_public == 0);
  CHECK(strcmp(form->retention, "full") == 0 && strcmp(form->place, "memory") == 0);
  CHECK(kvasir_prefix_forms_at(forms, 1) == NULL);
  kvasir_prefix_forms_free(forms);

  kvasir_open_options open = {0};
  open.struct_size = sizeof(open);
  open.model = model;
  open.retention = "full";
  open.prefix = prompt;
  kvasir_sequence* sequences[3] = {NULL, NULL, NULL};
  for (int i = 0; i < 3; ++i) {
    CHECK(kvasir_open(session, &open, &sequences[i], &error) == KVASIR_OK);
  }
  const uint64_t rows = kvasir_rows(sequences[0]);
  CHECK(rows >= kRows / 16 * 16);
  kvasir_step steps[3];
  int32_t codes[3];
  CHECK(kvasir_begin_many(sequences, 3, 1, steps, codes, &error) == KVASIR_OK);
  for (int i = 0; i < 3; ++i) {
    CHECK(codes[i] == KVASIR_OK && steps[i].row == rows && steps[i].count == 1);
    for (uint32_t l = 0; l < kLayers; ++l) {
      CHECK(RightRows(&steps[i].layers[l], l) == rows);
    }
    WriteRows(&steps[i]);
  }
  /* All read the same memory. */
  CHECK(steps[0].layers[0].kept[0].k == steps[1].layers[0].kept[0].k);
  const uint32_t ids[3] = {1, kVocabulary, 2};
  CHECK(kvasir_commit_many(sequences, 3, ids, codes, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(codes[0] == KVASIR_OK && codes[1] == KVASIR_INVALID_ARGUMENT && codes[2] == KVASIR_OK);
  CHECK(kvasir_rows(sequences[0]) == rows + 1 && kvasir_rows(sequences[1]) == rows);
  CHECK(kvasir_truncate(sequences[0], rows, &error) == KVASIR_OK);
  CHECK(kvasir_rows(sequences[0]) == rows);
  for (int i = 0; i < 3; ++i) CHECK(kvasir_close(sequences[i], &error) == KVASIR_OK);
  return 0;
}

/* Commits ahead of a stream, which is this thread: it raises the word once the rows are written. */
static int CommitAhead(kvasir_session* session, const kvasir_model* model) {
  kvasir_error error = {0};
  kvasir_open_options open = {.struct_size = sizeof(open), .model = model, .retention = "full"};
  kvasir_sequence* sequences[2] = {NULL, NULL};
  for (int i = 0; i < 2; ++i) {
    CHECK(kvasir_open(session, &open, &sequences[i], &error) == KVASIR_OK);
  }
  kvasir_step steps[2];
  const uint32_t ids[2] = {1, 2};
  uint64_t word = 0;
  kvasir_timeline_point done = {&word, 1};
  CHECK(kvasir_begin(sequences[0], 2, &steps[0], &error) == KVASIR_OK);
  CHECK(kvasir_commit_async(sequences[0], ids, 2, NULL, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(kvasir_commit_async(NULL, ids, 2, &done, &error) == KVASIR_INVALID_ARGUMENT);
  done.word = NULL;
  CHECK(kvasir_commit_async(sequences[0], ids, 2, &done, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(strstr(error.text, "done.word") != NULL);
  done.word = &word;
  CHECK(kvasir_commit_async(sequences[0], ids, 2, &done, &error) == KVASIR_OK);
  CHECK(kvasir_rows(sequences[0]) == 2);
  WriteRows(&steps[0]);
  *(volatile uint64_t*)&word = 1;
  kvasir_snapshot snapshot;
  CHECK(kvasir_save(sequences[0], &snapshot, &error) == KVASIR_OK && snapshot.rows == 2);
  CHECK(kvasir_drop_snapshot(session, snapshot.id, &error) == KVASIR_OK);

  int32_t codes[2];
  CHECK(kvasir_begin_many(sequences, 2, 1, steps, codes, &error) == KVASIR_OK);
  done.value = 2;
  CHECK(kvasir_commit_many_async(sequences, 2, ids, NULL, codes, &error) ==
        KVASIR_INVALID_ARGUMENT);
  CHECK(kvasir_commit_many_async(NULL, 2, ids, &done, codes, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(kvasir_commit_many_async(sequences, 2, NULL, &done, codes, &error) ==
        KVASIR_INVALID_ARGUMENT);
  const uint32_t bad[2] = {1, kVocabulary};
  CHECK(kvasir_commit_many_async(sequences, 2, bad, &done, codes, &error) ==
        KVASIR_INVALID_ARGUMENT);
  CHECK(codes[0] == KVASIR_OK && codes[1] == KVASIR_INVALID_ARGUMENT);
  CHECK(kvasir_commit_many_async(&sequences[1], 1, ids, &done, NULL, &error) == KVASIR_OK);
  CHECK(kvasir_rows(sequences[0]) == 3 && kvasir_rows(sequences[1]) == 1);
  for (int i = 0; i < 2; ++i) WriteRows(&steps[i]);
  *(volatile uint64_t*)&word = 2;
  for (int i = 0; i < 2; ++i) CHECK(kvasir_close(sequences[i], &error) == KVASIR_OK);
  return 0;
}

static int Lease(kvasir_session* session, const kvasir_model* model, const kvasir_prompt* prompt) {
  kvasir_error error = {0};
  kvasir_lease_member member = {.retention = "full"};
  memcpy(member.model_fingerprint, model->fingerprint, sizeof(member.model_fingerprint));
  kvasir_lease_options options = {
      .struct_size = sizeof(options), .members = &member, .member_count = 1, .prompt = prompt};
  kvasir_lease* lease = NULL;
  CHECK(kvasir_lease_prefix(session, &options, &lease, &error) == KVASIR_OK);
  CHECK(kvasir_lease_rows(lease) >= kRows / 16 * 16 && kvasir_lease_ttl_ms(lease) > 0);
  CHECK(kvasir_lease_id(lease) != NULL && kvasir_lease_form(lease, 1) == NULL);
  CHECK(strcmp(kvasir_lease_form(lease, 0)->retention, "full") == 0);

  kvasir_hints hints = {.struct_size = sizeof(hints), .priority = -3, .has_prediction = 1};
  hints.predicted_rows = 100;
  kvasir_open_options open = {.struct_size = sizeof(open), .model = model, .prefix = prompt};
  open.lease = kvasir_lease_id(lease);
  open.hints = &hints;
  kvasir_sequence* sequence = NULL;
  CHECK(kvasir_open(session, &open, &sequence, &error) == KVASIR_OK);
  CHECK(kvasir_rows(sequence) == kvasir_lease_rows(lease));
  CHECK(kvasir_suspend_wanted(sequence) == 0 && kvasir_wanted_back(session) == 0);
  hints.has_prediction = 2;
  hints.predicted_rank = 7;
  CHECK(kvasir_set_hints(sequence, &hints, &error) == KVASIR_OK);
  hints.priority = 101;
  CHECK(kvasir_set_hints(sequence, &hints, &error) == KVASIR_INVALID_ARGUMENT);
  hints.has_prediction = 3;
  CHECK(kvasir_set_hints(sequence, &hints, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(strstr(error.text, "has_prediction") != NULL);

  kvasir_text* text = NULL;
  CHECK(kvasir_describe_rows(session, kvasir_sequence_id(sequence), 0, 0, 0, &text, &error) ==
        KVASIR_OK);
  CHECK(strstr(kvasir_text_data(text), "\"kept\":true") != NULL);
  kvasir_text_free(text);
  CHECK(kvasir_release_lease(lease, &error) == KVASIR_OK);
  CHECK(kvasir_close(sequence, &error) == KVASIR_OK);
  return 0;
}

static int Describe(kvasir_session* session, const kvasir_model* model) {
  kvasir_error error = {0};
  const kvasir_bytes texts[2] = {{"a", 1}, {" b", 2}};
  CHECK(kvasir_put_token_texts(session, model, 5, texts, 2, &error) == KVASIR_OK);
  CHECK(kvasir_session_id(session) != 0 && kvasir_boot_epoch(session) != 0);
  kvasir_text* text = NULL;
  CHECK(kvasir_describe_tenant(session, &text, &error) == KVASIR_OK);
  CHECK(strstr(kvasir_text_data(text), "\"prefix_hits\"") != NULL);
  kvasir_text_free(text);
  CHECK(kvasir_describe_policies(session, &text, &error) == KVASIR_OK);
  CHECK(strstr(kvasir_text_data(text), "\"sepllm\"") != NULL);
  kvasir_text_free(text);
  CHECK(kvasir_describe_rows(session, 12345678, 0, 0, 0, &text, &error) == KVASIR_NOT_FOUND);
  CHECK(text == NULL);
  return 0;
}

/* What was begun and committed, closed and disconnected can be read as long as it is held. */
static int Hold(const kvasir_connect_options* options, const kvasir_model_spec* spec,
                const kvasir_prompt* prompt) {
  kvasir_error error = {0};
  kvasir_session* session = NULL;
  kvasir_model model;
  CHECK(kvasir_connect(options, &session, &error) == KVASIR_OK);
  CHECK(kvasir_register_model(session, spec, &model, &error) == KVASIR_OK);
  kvasir_open_options open = {.struct_size = sizeof(open), .model = &model, .prefix = prompt};
  open.retention = "full";
  kvasir_sequence* sequence = NULL;
  CHECK(kvasir_open(session, &open, &sequence, &error) == KVASIR_OK);
  kvasir_step step;
  CHECK(kvasir_begin(sequence, 1, &step, &error) == KVASIR_OK);
  const kvasir_kept_run run = step.layers[1].kept[0];
  uint16_t* const recent = step.layers[0].recent[step.layers[0].recent_count - 1].k;
  kvasir_hold* hold = NULL;
  CHECK(kvasir_hold_memory(session, &hold, &error) == KVASIR_OK);
  CHECK(kvasir_close(sequence, &error) == KVASIR_OK);
  kvasir_disconnect(session);
  uint16_t k;
  memcpy(&k, run.k, 2);
  CHECK(k == ElementOf(run.positions[0], 1, 0, 0));
  *recent = 1; /* nobody's any more, and mapped */
  kvasir_let_go(hold);
  return 0;
}

/* Of nothing there is nothing, and what is wrong with memory is an error as well. */
static int Nothing(kvasir_session* session, const kvasir_model* model) {
  kvasir_error error = {0};
  CHECK(kvasir_rows(NULL) == 0 && kvasir_sequence_id(NULL) == 0 && *kvasir_retention(NULL) == 0);
  CHECK(*kvasir_condensed_from(NULL) == 0 && kvasir_slots_per_block(NULL) == 0);
  CHECK(kvasir_filter_layer(NULL) == -1 && kvasir_retrieves(NULL) == 0);
  CHECK(kvasir_suspend_wanted(NULL) == 0 && kvasir_wanted_back(NULL) == 0);
  CHECK(kvasir_session_id(NULL) == 0 && kvasir_boot_epoch(NULL) == 0);
  CHECK(kvasir_lease_id(NULL) == NULL && kvasir_lease_rows(NULL) == 0);
  CHECK(kvasir_lease_ttl_ms(NULL) == 0 && kvasir_lease_form(NULL, 0) == NULL);
  CHECK(kvasir_release_lease(NULL, &error) == KVASIR_OK && *kvasir_text_data(NULL) == 0);
  kvasir_text_free(NULL);
  kvasir_let_go(NULL);
  CHECK(kvasir_set_hints(NULL, NULL, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(kvasir_lease_prefix(session, NULL, NULL, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(kvasir_describe_tenant(session, NULL, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(kvasir_hold_memory(NULL, NULL, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(kvasir_put_token_texts(session, model, 0, NULL, 1, &error) == KVASIR_INVALID_ARGUMENT);

  const uint32_t token = 1;
  kvasir_prompt prompt = {.struct_size = sizeof(prompt), .tokens = &token};
  kvasir_prefix_forms* forms = NULL;
  prompt.token_count = SIZE_MAX / sizeof(token); /* more than a vector can have */
  CHECK(kvasir_match_prefix(session, model, &prompt, 0, &forms, &error) ==
        KVASIR_INVALID_ARGUMENT);
  CHECK(forms == NULL && error.text[0] != 0);
  kvasir_shortage shortage;
  CHECK(kvasir_last_shortage(&shortage) == 0 && kvasir_last_shortage(NULL) == 0);
  return 0;
}

/* Sequences without end are refused, with what is short and when to ask again. */
static int RunShort(kvasir_session* session, const kvasir_model* model, int by_grpc) {
  kvasir_error error = {0};
  kvasir_open_options open = {.struct_size = sizeof(open), .model = model, .retention = "full"};
  kvasir_sequence* sequences[256] = {NULL};
  static const uint32_t ids[4096];
  kvasir_code code = KVASIR_OK;
  for (int i = 0; i < 256 && code == KVASIR_OK; ++i) {
    code = kvasir_open(session, &open, &sequences[i], &error);
    while (code == KVASIR_OK && kvasir_rows(sequences[i]) < 60000) {
      kvasir_step step;
      code = kvasir_begin(sequences[i], 4096, &step, &error);
      if (code == KVASIR_OK) code = kvasir_commit(sequences[i], ids, step.count, &error);
    }
  }
  kvasir_shortage shortage;
  CHECK(code == KVASIR_RESOURCE_EXHAUSTED && kvasir_last_shortage(&shortage) == 1);
  CHECK(shortage.retry_after_ms > 0);
  /* The ring says when; the figures are in the text there. */
  if (by_grpc) CHECK(shortage.budget[0] != 0 && shortage.missing > 0);
  for (int i = 0; i < 256; ++i) CHECK(kvasir_close(sequences[i], &error) == KVASIR_OK);
  CHECK(kvasir_last_shortage(&shortage) == 0); /* of the last function only */
  return 0;
}

/* What a program does wrong is an error with a name in it. */
static int Misuse(kvasir_session* session, const kvasir_model* model) {
  kvasir_error error = {0};
  kvasir_sequence* sequence = NULL;
  kvasir_open_options open = {0};
  open.model = model;
  CHECK(kvasir_open(session, &open, &sequence, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(strstr(error.text, "struct_size") != NULL && sequence == NULL);
  CHECK(kvasir_open(session, NULL, &sequence, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(kvasir_open(NULL, &open, &sequence, &error) == KVASIR_INVALID_ARGUMENT);
  open.struct_size = sizeof(open);
  open.retention = "nothing-of-that-name";
  CHECK(kvasir_open(session, &open, &sequence, NULL) == KVASIR_INVALID_ARGUMENT);
  open.model = NULL;
  CHECK(kvasir_open(session, &open, &sequence, &error) == KVASIR_INVALID_ARGUMENT);
  kvasir_prompt prompt = {0};
  prompt.struct_size = sizeof(prompt);
  prompt.token_count = 3; /* and no tokens */
  kvasir_prefix_forms* forms = NULL;
  CHECK(kvasir_match_prefix(session, model, &prompt, 0, &forms, &error) ==
        KVASIR_INVALID_ARGUMENT);
  CHECK(strstr(error.text, "prompt.tokens") != NULL && forms == NULL);
  CHECK(kvasir_prefix_forms_count(NULL) == 0 && kvasir_close(NULL, &error) == KVASIR_OK);
  CHECK(kvasir_begin_many(NULL, 1, 1, NULL, NULL, &error) == KVASIR_INVALID_ARGUMENT);
  kvasir_model_spec spec = {0};
  spec.struct_size = sizeof(spec);
  spec.kv_type = 7;
  kvasir_model other;
  CHECK(kvasir_register_model(session, &spec, &other, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(strstr(error.text, "kv_type") != NULL);
  uint8_t digest[32];
  CHECK(kvasir_digest_file("/nonexistent", digest, &error) == KVASIR_NOT_FOUND);
  kvasir_session* none = NULL;
  kvasir_connect_options nowhere = {0};
  nowhere.struct_size = sizeof(nowhere);
  nowhere.control_socket = nowhere.data_socket = "/nonexistent/kvasir.sock";
  CHECK(kvasir_connect(&nowhere, &none, &error) != KVASIR_OK && none == NULL);
  kvasir_disconnect(NULL);
  return 0;
}

int main(int argc, char** argv) {
  kvasir_error error = {0};
  CHECK(argc == 4 && kvasir_abi() == KVASIR_ABI && *kvasir_version() != '\0');
  kvasir_connect_options options = {0};
  options.struct_size = sizeof(options);
  options.control_socket = argv[1];
  options.data_socket = argv[2];
  options.deadline_ms = 30000;
  options.without_ring = strcmp(argv[3], "grpc") == 0;
  kvasir_session* session = NULL;
  CHECK(kvasir_connect(&options, &session, &error) == KVASIR_OK);

  const kvasir_layer layers[kLayers] = {{1, kDims, kDims, 0, 1}, {1, kDims, kDims, 0, 1}};
  kvasir_model_spec spec = {0};
  /* As a program does that was built before the last field was there. */
  spec.struct_size = offsetof(kvasir_model_spec, prefill_rows_per_s);
  spec.name = "of C";
  spec.layers = layers;
  spec.layer_count = kLayers;
  spec.vocabulary_size = kVocabulary;
  spec.slots_per_block = 16;
  const char digest[] = "sixteen bytes!!!";
  spec.weights_digest.data = digest;
  spec.weights_digest.size = 16;
  kvasir_model model;
  CHECK(kvasir_register_model(session, &spec, &model, &error) == KVASIR_OK);
  CHECK(model.slots_per_block == 16);

  uint32_t tokens[kRows];
  for (uint32_t i = 0; i < kRows; ++i) tokens[i] = i * 7 % kVocabulary;
  kvasir_prompt prompt = {0};
  prompt.struct_size = sizeof(prompt);
  prompt.tokens = tokens;
  prompt.token_count = kRows;
  prompt.salt.data = argv[3];
  prompt.salt.size = strlen(argv[3]);
  if (FillAndPublish(session, &model, &prompt) != 0) return 1;
  if (Attach(session, &model, &prompt) != 0) return 1;
  if (CommitAhead(session, &model) != 0) return 1;
  if (Lease(session, &model, &prompt) != 0) return 1;
  if (Describe(session, &model) != 0) return 1;
  if (Hold(&options, &spec, &prompt) != 0) return 1;
  if (Misuse(session, &model) != 0) return 1;
  if (Nothing(session, &model) != 0) return 1;
  if (RunShort(session, &model, (int)options.without_ring) != 0) return 1;
  kvasir_disconnect(session);
  puts("ok");
  return 0;
}
