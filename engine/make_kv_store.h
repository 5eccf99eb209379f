// The one place that chooses where a program's K and V rows live.
#ifndef KVASIR_ENGINE_MAKE_KV_STORE_H_
#define KVASIR_ENGINE_MAKE_KV_STORE_H_

#include <cstdint>
#include <memory>
#include <string>

#include <absl/status/statusor.h>

#include "engine/gguf_model.h"
#include "engine/kv_store.h"
#include "kernels/attention.h"

namespace kvasir::engine {

struct KvStoreOptions {
  bool private_memory = false;
  std::string retention = "full";  // the policy grammar, parsed by the daemon
  std::string socket;              // gRPC
  std::string data_socket;         // file descriptors
  kernels::RowType kv_type = kernels::RowType::kF16;
  uint64_t rows_max = 0;  // of the sequence
};

// A store for one sequence of `model`.
// Errors: kInvalidArgument for a retention other than full with private memory; kUnavailable
// without a daemon; the store's own.
absl::StatusOr<std::unique_ptr<KvStore>> MakeKvStore(const GgufModel& model,
                                                     const KvStoreOptions& options);

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_MAKE_KV_STORE_H_
