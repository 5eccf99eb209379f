// What the daemon is told of llama.cpp's caches: their layers, and what keeps them apart.
#ifndef KVASIR_CLIENT_LLAMA_CPP_DAEMON_MODEL_H_
#define KVASIR_CLIENT_LLAMA_CPP_DAEMON_MODEL_H_

#include <cstdint>
#include <span>
#include <string>

#include "client/c/kvasir.h"
#include "client/llama_cpp/daemon_buffer.h"
#include "client/llama_cpp/state_layout.h"

namespace kvasir::llama_cpp {

// Writes code and text, and returns the code.
kvasir_code Fail(kvasir_error* error, kvasir_code code, const std::string& text);

struct CacheIdentity {
  std::string name;            // for people
  std::string weights_digest;  // 16 to 64 bytes
  std::string rows_digest;  // 16 bytes of what else makes rows what they are, the layout included
  uint32_t kv_heads = 0;    // 0: not known
  uint32_t vocabulary_size = 0;
  std::span<const uint32_t> separators = {};
};

// kvasir_digest_file() as a string.
kvasir_code DigestOf(const char* path, std::string* digest, kvasir_error* error);
// 16 bytes of a text of any length; no secret is kept by it.
std::string ShortDigest(const std::string& text);

// Errors: KVASIR_UNIMPLEMENTED (rows of an odd number of bytes); those of kvasir_register_model().
kvasir_code RegisterCache(kvasir_session* session, const StateLayout& layout,
                          const CacheIdentity& identity, kvasir_model* model, kvasir_error* error);

// `prompt` null: private rows.
kvasir_code OpenCache(kvasir_session* session, const kvasir_model& model, const char* retention,
                      const kvasir_prompt* prompt, OwnedSequence* sequence, kvasir_error* error);

// Refers to `tokens` and `salt`. `rows_max` 0: no bound.
kvasir_prompt PromptOf(std::span<const uint32_t> tokens, uint64_t rows_max,
                       const std::string& salt);

}  // namespace kvasir::llama_cpp

#endif  // KVASIR_CLIENT_LLAMA_CPP_DAEMON_MODEL_H_
