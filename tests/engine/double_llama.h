// DoubleLlama: a plain forward pass in double with explicit visibility, the oracle for block
// tables.
//
// Not thread-safe. Slow and obvious: every key is kept unrotated, and each (layer, query, key) asks
// `sees` whether it is visible and at which distance. Shares nothing with the engine but the
// weights.
#ifndef KVASIR_TESTS_ENGINE_DOUBLE_LLAMA_H_
#define KVASIR_TESTS_ENGINE_DOUBLE_LLAMA_H_

#include <complex>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/gguf_model.h"

namespace kvasir::engine::testing {

class DoubleLlama {
 public:
  // Position of the query minus position of the key, or nothing where it does not see the key.
  using Sees = std::function<std::optional<int64_t>(uint32_t layer, uint64_t query, uint64_t key)>;

  // The same where the kv heads of a layer see different rows.
  using HeadSees = std::function<std::optional<int64_t>(uint32_t layer, uint32_t kv_head,
                                                        uint64_t query, uint64_t key)>;
  // Is told what is computed on the way; any of them may be null.
  struct Probe {
    // Softmax probability of a key that a query head sees.
    std::function<void(uint32_t layer, uint32_t head, uint64_t query, uint64_t key, double share)>
        probability = nullptr;
    // Query and key of a row, [head][head_dim], not rotated.
    std::function<void(uint32_t layer, uint64_t row, const std::vector<double>& q,
                       const std::vector<double>& k)>
        rows = nullptr;
    // The value of a key, head_dim elements, as the query sees it: may change it.
    std::function<void(uint32_t layer, uint32_t kv_head, uint64_t query, uint64_t key,
                       std::span<double> value)>
        value = nullptr;
  };

  // REQUIRES: `model` has F32 weights; it must outlive this.
  explicit DoubleLlama(const GgufModel& model) : model_(model) {}

  // Logits of all rows.
  std::vector<float> Forward(std::span<const uint32_t> tokens, const Sees& sees) const;
  std::vector<float> ForwardByHead(std::span<const uint32_t> tokens, const HeadSees& sees,
                                   const Probe& probe) const;

  // Turns a query or key, [head][head_dim], from position 0 to `position`.
  void Turn(int64_t position, std::vector<double>& heads) const;

 private:
  using Vector = std::vector<double>;
  // cos + i sin of every pair's angle, by distance.
  class Turns {
   public:
    const std::vector<std::complex<double>>& Of(int64_t distance, const HyperParameters& p);

   private:
    std::unordered_map<int64_t, std::vector<std::complex<double>>> by_distance_;
  };

  Vector Norm(const Vector& x, const ggml_tensor* weight) const;
  Vector Attend(uint32_t layer, uint64_t row, const Vector& q, const std::vector<Vector>& keys,
                const std::vector<Vector>& values, const HeadSees& sees, const Probe& probe) const;

  const GgufModel& model_;
  mutable Turns turns_;
};

// Every earlier row and the query's own, at their distance.
std::optional<int64_t> SeesAll(uint32_t layer, uint64_t query, uint64_t key);

}  // namespace kvasir::engine::testing

#endif  // KVASIR_TESTS_ENGINE_DOUBLE_LLAMA_H_
