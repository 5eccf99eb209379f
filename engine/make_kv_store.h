// The one place that chooses where a program's K and V rows live.
#ifndef KVASIR_ENGINE_MAKE_KV_STORE_H_
#define KVASIR_ENGINE_MAKE_KV_STORE_H_

#include <cstdint>
#include <memory>

#include <absl/status/statusor.h>

#include "engine/gguf_model.h"
#include "engine/kv_store.h"
#include "engine/kvasir_kv_store.h"
#include "engine/tokenizer.h"

namespace kvasir::engine {

struct KvStoreOptions {
  bool private_memory = false;
  KvasirStoreOptions kvasir;  // its kv_type and retention are used with private memory as well
  uint64_t rows_max = 0;      // of the sequence, with private memory
};

// A store for one sequence of `model`.
// Errors: kInvalidArgument for a retention other than full with private memory; kUnavailable
// without a daemon; the store's own.
absl::StatusOr<std::unique_ptr<KvStore>> MakeKvStore(const GgufModel& model,
                                                     const Tokenizer& tokenizer,
                                                     const KvStoreOptions& options);

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_MAKE_KV_STORE_H_
