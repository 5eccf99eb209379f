// Checks a model file's vocabulary before libllama reads it: libllama ends the process for some of
// what is wrong in a hostile file.
#ifndef KVASIR_ENGINE_VOCABULARY_CHECK_H_
#define KVASIR_ENGINE_VOCABULARY_CHECK_H_

#include <cstdint>

#include <absl/status/statusor.h>

#include "engine/gguf_file.h"

namespace kvasir::engine {

// Number of tokens of the vocabulary in `file`. Cost: one pass over the token texts.
// Errors: kInvalidArgument, naming the key: a tokenizer other than SentencePiece or byte-level BPE,
// arrays of the wrong type or size, a text twice, a byte token without a byte.
absl::StatusOr<uint32_t> CheckVocabulary(const GgufFile& file);

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_VOCABULARY_CHECK_H_
