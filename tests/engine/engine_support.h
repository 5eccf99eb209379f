// What several engine tests need: the tiny model, a store in private memory, and libllama itself as
// the independent reference.
#ifndef KVASIR_TESTS_ENGINE_ENGINE_SUPPORT_H_
#define KVASIR_TESTS_ENGINE_ENGINE_SUPPORT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "engine/gguf_model.h"
#include "engine/kv_store.h"
#include "engine/llama_engine.h"
#include "engine/private_kv_store.h"

struct llama_context;
struct llama_model;

namespace kvasir::engine::testing {

inline constexpr char kTinyModel[] = "tests/data/tinylm/model.gguf";
inline constexpr char kTinyFixture[] = "tests/data/tinylm/model.fixture.json";

[[noreturn]] void Die(const absl::Status& status);

// The value of a StatusOr, or the end of the test program with the error's text.
template <typename T>
T ValueOrDie(absl::StatusOr<T> result) {
  if (!result.ok()) Die(result.status());
  return std::move(result).value();
}

// The first `tokens` ids of the tiny model's texts, one behind the other.
std::vector<uint32_t> Prose(size_t tokens);

std::unique_ptr<PrivateKvStore> MakePrivateStore(const GgufModel& model, kernels::RowType type,
                                                 uint32_t slots_per_block = 64);

// Computes `tokens` in steps of at most `batch` rows; returns the logits of all of them. `far`: of
// the store's sequence; null: one for this call alone.
std::vector<float> ComputeAll(LlamaEngine& engine, KvStore& store, std::span<const uint32_t> tokens,
                              uint32_t batch, FarBlocks* far = nullptr);

// Writes a copy of the GGUF file at `from` with all weights as F32.
void WriteF32Copy(const std::string& from, const std::string& to);

struct Difference {
  double logit = 0.0;           // largest absolute one
  uint32_t argmax_changes = 0;  // rows whose likeliest token differs
  void Add(std::span<const float> a, std::span<const float> b, size_t vocabulary);
};

// libllama without flash attention, one sequence, one thread.
class LlamaReference {
 public:
  LlamaReference(const std::string& path, kernels::RowType type, uint32_t context);
  LlamaReference(const LlamaReference&) = delete;
  LlamaReference& operator=(const LlamaReference&) = delete;
  ~LlamaReference();

  // Logits of `tokens`, at most 512, at the sequence's end.
  std::vector<float> Compute(std::span<const uint32_t> tokens);
  // Takes the key and value of a row out of the cache; the others keep their positions.
  void Remove(uint64_t row);

 private:
  llama_model* model_ = nullptr;
  llama_context* context_ = nullptr;
  size_t vocabulary_ = 0;
  int32_t row_ = 0;
};

// Runs the prompt and then `steps` greedy steps (the engine's picks) through both; all logits
// compared.
Difference CompareWithLibllama(LlamaEngine& engine, KvStore& store, LlamaReference& reference,
                               std::span<const uint32_t> prompt, uint32_t steps);

// The file of the big model for slow tests: $KVASIR_MODEL, else where ./dev setup puts it; none if
// it is not there.
std::optional<std::string> SmolLmPath();

}  // namespace kvasir::engine::testing

#endif  // KVASIR_TESTS_ENGINE_ENGINE_SUPPORT_H_
