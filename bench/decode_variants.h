// One way to compute a decode step of one model: llama.cpp's own, or the engine on a store.
#ifndef KVASIR_BENCH_DECODE_VARIANTS_H_
#define KVASIR_BENCH_DECODE_VARIANTS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "bench/daemon_process.h"
#include "engine/gguf_model.h"
#include "engine/kv_store.h"
#include "engine/llama_engine.h"

struct llama_model;

namespace kvasir::bench {

// Not thread-safe. Rows are f16.
class DecodeVariant {
 public:
  virtual ~DecodeVariant() = default;

  // Makes the sequence `rows` long, with rows that only timing needs, or cuts it there.
  virtual absl::Status FillTo(uint64_t rows) = 0;
  // Computes one more row and its logits.
  virtual absl::Status Step() = 0;
  // Rows that the next query sees, of those in the sequence.
  virtual absl::StatusOr<double> KeptShare() = 0;
};

// libllama with `threads` threads a step. FillTo() computes the rows, with all cores.
// Errors: kInternal with libllama's reason.
absl::StatusOr<std::unique_ptr<DecodeVariant>> MakeLlamaVariant(llama_model* model,
                                                                uint64_t rows_max, uint32_t threads,
                                                                bool flash_attention);

// `engine` on `store`. A separator_share of the rows, evenly spread, has the token kSeparator.
// FillTo() writes made-up rows. `engine` must outlive the variant.
std::unique_ptr<DecodeVariant> MakeStoreVariant(engine::LlamaEngine& engine,
                                                std::unique_ptr<engine::KvStore> store,
                                                double separator_share);

inline constexpr uint32_t kSeparator = 30;

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_DECODE_VARIANTS_H_
