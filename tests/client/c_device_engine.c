/*
 * An engine in C whose rows lie on a device: every verb of kvasir_device.h, good and bad. Says the
 * line that fails. Follows no address of the device: it would end.
 */
#include "client/c/kvasir_device.h"
#include "client/c/kvasir_tenant.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define CHECK(condition)                                                               \
  do {                                                                                 \
    if (!(condition)) {                                                                \
      fprintf(stderr, "line %d: %s (%d: %s)\n", __LINE__, #condition, (int)error.code, \
              error.text);                                                             \
      return 1;                                                                        \
    }                                                                                  \
  } while (0)

enum { kLayers = 2, kDims = 8, kRows = 100, kRowBytes = 2 * kDims };

static const char* control_socket;
static const char* data_socket;
static const char* device_name; /* of the daemon's pool gpu0 */

/* K (plane 0) or V of a row. */
static void MakeRow(uint64_t row, uint32_t layer, int plane, uint16_t out[kDims]) {
  for (uint32_t d = 0; d < kDims; ++d) {
    out[d] = (uint16_t)(row * 64 + layer * 32 + (uint64_t)plane * 16 + d);
  }
}

static void SetSpec(kvasir_model_spec* spec, const char* pool) {
  static const kvasir_layer layers[kLayers] = {{1, kDims, kDims, 0, 0}, {1, kDims, kDims, 0, 0}};
  memset(spec, 0, sizeof(*spec));
  spec->struct_size = sizeof(*spec);
  spec->name = "c on a device";
  spec->layers = layers;
  spec->layer_count = kLayers;
  spec->vocabulary_size = 100;
  spec->slots_per_block = 16;
  spec->weights_digest.data = "sixteen bytes!!!";
  spec->weights_digest.size = 16;
  spec->pool = pool;
}

static void SetOptions(kvasir_connect_options* options, kvasir_device* const* devices,
                       size_t count) {
  memset(options, 0, sizeof(*options));
  options->struct_size = sizeof(*options);
  options->control_socket = control_socket;
  options->data_socket = data_socket;
  options->devices = devices;
  options->device_count = count;
}

/* `cuda`: of the toolkit that the library is built with; "": without. */
static int OpenBadDevices(const char* cuda) {
  kvasir_error error = {0};
  kvasir_device* device = NULL;
  CHECK(kvasir_open_device(NULL, &device, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(kvasir_open_device("host-gpu0", NULL, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(kvasir_open_device("tpu:0", &device, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(strstr(error.text, "device=tpu:0") != NULL && device == NULL);
  CHECK(kvasir_open_device("host-", &device, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(strstr(error.text, "min=6") != NULL);
  char name[64];
  memset(name, 'x', sizeof(name) - 1);
  name[sizeof(name) - 1] = '\0';
  memcpy(name, "host-", 5);
  CHECK(kvasir_open_device(name, &device, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(strstr(error.text, "bytes=63") != NULL && strstr(error.text, "max=47") != NULL);
  /* No GPU has this uuid, whatever the machine has. */
  const kvasir_code code =
      kvasir_open_device("GPU-00000000-0000-0000-0000-000000000000", &device, &error);
  if (*cuda == '\0') {
    CHECK(code == KVASIR_UNIMPLEMENTED && strstr(error.text, "no CUDA") != NULL);
    CHECK(kvasir_open_device("cuda:0", &device, &error) == KVASIR_UNIMPLEMENTED);
  } else {
    CHECK(code == KVASIR_NOT_FOUND || code == KVASIR_UNAVAILABLE);
  }
  CHECK(device == NULL);
  kvasir_close_device(NULL);
  CHECK(*kvasir_device_uuid(NULL) == '\0' && *kvasir_device_name(NULL) == '\0');
  CHECK(kvasir_device_is_cuda(NULL) == 0 && *kvasir_model_device(NULL, NULL) == '\0');
  return 0;
}

static int ConnectBadly(kvasir_device* device) {
  kvasir_error error = {0};
  kvasir_session* session = NULL;
  kvasir_connect_options options;
  SetOptions(&options, NULL, 1);
  CHECK(kvasir_connect(&options, &session, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(strstr(error.text, "connect_options.devices is null: count=1") != NULL);
  kvasir_device* const missing[] = {device, NULL};
  SetOptions(&options, missing, 2);
  CHECK(kvasir_connect(&options, &session, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(strstr(error.text, "index=1") != NULL);
  kvasir_device* const twice[] = {device, device};
  SetOptions(&options, twice, 2);
  CHECK(kvasir_connect(&options, &session, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(strstr(error.text, "twice") != NULL && session == NULL);
  return 0;
}

/* A session that has none of the daemon's devices. */
static int RegisterWithoutTheDevice(void) {
  kvasir_error error = {0};
  kvasir_session* session = NULL;
  kvasir_connect_options options;
  SetOptions(&options, NULL, 0);
  CHECK(kvasir_connect(&options, &session, &error) == KVASIR_OK);
  kvasir_model_spec spec;
  kvasir_model model;
  SetSpec(&spec, "gpu0");
  CHECK(kvasir_register_model(session, &spec, &model, &error) == KVASIR_FAILED_PRECONDITION);
  CHECK(strstr(error.text, device_name) != NULL);
  SetSpec(&spec, "gpu1");
  CHECK(kvasir_register_model(session, &spec, &model, &error) == KVASIR_NOT_FOUND);
  CHECK(strstr(error.text, "known=gpu0") != NULL);
  /* A program of an older header has no pool, whatever lies behind its struct. */
  spec.struct_size = offsetof(kvasir_model_spec, pool);
  CHECK(kvasir_register_model(session, &spec, &model, &error) == KVASIR_OK);
  CHECK(*kvasir_model_device(session, &model) == '\0');
  kvasir_disconnect(session);
  /* Nor devices. */
  kvasir_device* const missing[] = {NULL};
  SetOptions(&options, missing, 1);
  options.struct_size = offsetof(kvasir_connect_options, devices);
  CHECK(kvasir_connect(&options, &session, &error) == KVASIR_OK);
  kvasir_disconnect(session);
  return 0;
}

static int WriteRows(kvasir_device* device, const kvasir_step* step) {
  kvasir_error error = {0};
  for (uint32_t l = 0; l < step->layer_count; ++l) {
    const kvasir_layer_view* view = &step->layers[l];
    for (uint64_t row = step->row; row < step->row + step->count; ++row) {
      const uint64_t at = row - view->recent_base, slot = at % view->slots_per_block;
      const kvasir_recent_block* block = &view->recent[at / view->slots_per_block];
      uint16_t k[kDims], v[kDims];
      MakeRow(row, l, 0, k);
      MakeRow(row, l, 1, v);
      CHECK(kvasir_write_device(device, k, (char*)block->k + slot * view->k_stride, kRowBytes,
                                &error) == KVASIR_OK);
      CHECK(kvasir_write_device(device, v, (char*)block->v + slot * view->v_stride, kRowBytes,
                                &error) == KVASIR_OK);
    }
  }
  return 0;
}

/* All kept rows are as they were written; `kept` of layer 0. */
static int CheckKept(kvasir_device* device, const kvasir_step* step, uint64_t* kept) {
  kvasir_error error = {0};
  *kept = 0;
  for (uint32_t l = 0; l < step->layer_count; ++l) {
    const kvasir_layer_view* view = &step->layers[l];
    for (size_t r = 0; r < view->kept_count; ++r) {
      const kvasir_kept_run* run = &view->kept[r];
      for (uint32_t i = 0; i < run->rows; ++i) {
        uint16_t wanted[kDims], k[kDims], v[kDims];
        CHECK(kvasir_read_device(device, (const char*)run->k + (size_t)i * run->k_stride, k,
                                 kRowBytes, &error) == KVASIR_OK);
        CHECK(kvasir_read_device(device, (const char*)run->v + (size_t)i * run->v_stride, v,
                                 kRowBytes, &error) == KVASIR_OK);
        MakeRow(run->positions[i], l, 0, wanted);
        CHECK(memcmp(k, wanted, kRowBytes) == 0);
        MakeRow(run->positions[i], l, 1, wanted);
        CHECK(memcmp(v, wanted, kRowBytes) == 0);
        CHECK(run->tokens[i] == 3);
        if (l == 0) ++*kept;
      }
    }
  }
  return 0;
}

static int RefuseBadCopies(kvasir_device* device, kvasir_device* other, const kvasir_step* step) {
  kvasir_error error = {0};
  uint16_t here[kDims] = {0};
  const kvasir_kept_run* run = &step->layers[0].kept[0];
  CHECK(kvasir_read_device(NULL, run->k, here, kRowBytes, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(kvasir_read_device(device, NULL, here, kRowBytes, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(kvasir_write_device(device, here, NULL, kRowBytes, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(kvasir_read_device(device, NULL, NULL, 0, &error) == KVASIR_OK);
  /* Memory of the processor, and of an extent that another device object has. */
  CHECK(kvasir_read_device(device, here, here, kRowBytes, &error) == KVASIR_INVALID_ARGUMENT);
  CHECK(kvasir_read_device(other, run->k, here, kRowBytes, &error) == KVASIR_INVALID_ARGUMENT);
  /* Kept rows are lent for reading. */
  CHECK(kvasir_write_device(device, here, (char*)run->k, kRowBytes, &error) ==
        KVASIR_FAILED_PRECONDITION);
  return 0;
}

static int Run(kvasir_device* device, kvasir_device* other) {
  kvasir_error error = {0};
  kvasir_session* session = NULL;
  kvasir_connect_options options;
  SetOptions(&options, &device, 1);
  CHECK(kvasir_connect(&options, &session, &error) == KVASIR_OK);
  kvasir_model_spec spec;
  kvasir_model model;
  SetSpec(&spec, "gpu0");
  CHECK(kvasir_register_model(session, &spec, &model, &error) == KVASIR_OK);
  CHECK(strcmp(kvasir_model_device(session, &model), device_name) == 0);
  kvasir_open_options open = {0};
  open.struct_size = sizeof(open);
  open.model = &model;
  kvasir_sequence* sequence = NULL;
  open.retention = "full+int8";
  CHECK(kvasir_open(session, &open, &sequence, &error) != KVASIR_OK && sequence == NULL);
  open.retention = "streamingllm:start_size=4,recent_size=30,positions=original";
  CHECK(kvasir_open(session, &open, &sequence, &error) == KVASIR_OK);
  kvasir_step step;
  uint64_t kept = 0;
  while (kvasir_rows(sequence) < kRows) {
    CHECK(kvasir_begin(sequence, 7, &step, &error) == KVASIR_OK);
    CHECK(WriteRows(device, &step) == 0);
    CHECK(CheckKept(device, &step, &kept) == 0);
    const uint32_t ids[7] = {3, 3, 3, 3, 3, 3, 3};
    CHECK(kvasir_commit(sequence, ids, step.count, &error) == KVASIR_OK);
  }
  CHECK(kvasir_begin(sequence, 1, &step, &error) == KVASIR_OK);
  CHECK(CheckKept(device, &step, &kept) == 0 && kept >= 4);
  CHECK(RefuseBadCopies(device, other, &step) == 0);
  /* In the order that is worst: what is left keeps what it needs. */
  kvasir_hold* hold = NULL;
  CHECK(kvasir_hold_memory(session, &hold, &error) == KVASIR_OK);
  kvasir_close_device(device);
  kvasir_disconnect(session);
  CHECK(kvasir_begin(sequence, 1, &step, &error) == KVASIR_OK);
  CHECK(kvasir_close(sequence, &error) == KVASIR_OK);
  kvasir_let_go(hold);
  return 0;
}

/* c_device_engine CONTROL_SOCKET DATA_SOCKET DEVICE CUDA_VERSION */
int main(int argc, char** argv) {
  if (argc != 5) return 2;
  kvasir_error error = {0};
  control_socket = argv[1];
  data_socket = argv[2];
  device_name = argv[3];
  CHECK(kvasir_abi() == KVASIR_ABI);
  if (OpenBadDevices(argv[4]) != 0) return 1;
  kvasir_device *device = NULL, *other = NULL;
  CHECK(kvasir_open_device(device_name, &device, &error) == KVASIR_OK);
  CHECK(kvasir_open_device("host-gpu7", &other, &error) == KVASIR_OK);
  CHECK(strcmp(kvasir_device_uuid(device), device_name) == 0);
  CHECK(*kvasir_device_name(device) != '\0');
  CHECK(kvasir_device_is_cuda(other) == 0);
  if (ConnectBadly(device) != 0 || RegisterWithoutTheDevice() != 0) return 1;
  if (Run(device, other) != 0) return 1;
  kvasir_close_device(other);
  puts("ok");
  return 0;
}
