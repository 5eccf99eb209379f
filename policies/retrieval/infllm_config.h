// Parameters of InfLLM, with the names and defaults of the authors' code. Source: arXiv 2402.04617,
// inf_llm/attention/context_manager.py and config/*.yaml.
#ifndef KVASIR_POLICIES_RETRIEVAL_INFLLM_CONFIG_H_
#define KVASIR_POLICIES_RETRIEVAL_INFLLM_CONFIG_H_

#include <cstdint>

#include <absl/status/status.h>

namespace kvasir {

enum class CacheStrategy {
  kLru,   // score: the step of the last use
  kLruS,  // score: attention mass, less by score_decay at each step
};

struct InfLlmConfig {
  uint64_t n_init = 128;           // first rows, attended for ever; 0 to 2^20
  uint64_t n_local = 4096;         // rows of the local window, the query's own included; 1 to 2^24
  uint64_t block_size = 128;       // rows of a sealed block; 1 to 65536
  uint32_t topk = 16;              // blocks a lookup gives; 1 to max_cached_block
  uint32_t repr_topk = 4;          // keys behind a representative; 1 to block_size
  uint32_t max_cached_block = 32;  // slots; 1 to 65536
  uint64_t exc_block_size = 512;   // queries that share a lookup; 1 to n_local
  CacheStrategy cache_strategy = CacheStrategy::kLru;
  double score_decay = 0.1;  // lru-s: 0 to 1
  // lru-s: a selected block starts again at 0, as the authors' code does; false is the rule of the
  // paper, where the history stays.
  bool reset_selected = false;
};

// kInvalidArgument with field, value and bound.
absl::Status CheckInfLlmConfig(const InfLlmConfig& config);

}  // namespace kvasir

#endif  // KVASIR_POLICIES_RETRIEVAL_INFLLM_CONFIG_H_
