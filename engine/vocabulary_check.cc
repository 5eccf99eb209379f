#include "engine/vocabulary_check.h"

#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"

#include <fmt/format.h>

namespace kvasir::engine {
namespace {

constexpr uint64_t kVocabularyMax = 1 << 22;
constexpr int32_t kByteToken = 6;   // token type of <0x00> to <0xFF>
constexpr size_t kByteTextMin = 5;  // "<0xAB"
constexpr size_t kTokenBytesMax = 64 << 10;
constexpr char kTokens[] = "tokenizer.ggml.tokens";
constexpr char kTypes[] = "tokenizer.ggml.token_type";
constexpr char kScores[] = "tokenizer.ggml.scores";
constexpr char kMerges[] = "tokenizer.ggml.merges";

// The array `key`, if there, must have `tokens` entries of `type`.
absl::Status CheckParallelArray(const GgufFile& file, const char* key, gguf_type type,
                                uint64_t tokens) {
  if (!file.Has(key)) return absl::OkStatus();
  KVASIR_ASSIGN_OR_RETURN(const uint64_t size, file.ArraySize(key, type));
  if (size == tokens) return absl::OkStatus();
  return InvalidArgument("model arrays differ in size: key={} size={} {}={}", key, size, kTokens,
                         tokens);
}

absl::Status CheckTexts(const std::vector<std::string>& texts, const std::vector<int32_t>& types) {
  std::unordered_set<std::string> seen;
  for (size_t id = 0; id < texts.size(); ++id) {
    const std::string& text = texts[id];
    if (text.size() > kTokenBytesMax) {
      return InvalidArgument("token text is too long: key={} token_id={} bytes={} max={}", kTokens,
                             id, text.size(), kTokenBytesMax);
    }
    // libllama names empty tokens so.
    if (!seen.insert(text.empty() ? fmt::format("[EMPTY_{}]", id) : text).second) {
      return InvalidArgument("token text is there twice: key={} token_id={}", kTokens, id);
    }
    if (!types.empty() && types[id] == kByteToken && text.size() < kByteTextMin) {
      return InvalidArgument("byte token names no byte: key={} token_id={}", kTokens, id);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<uint32_t> CheckVocabulary(const GgufFile& file) {
  KVASIR_ASSIGN_OR_RETURN(const std::string model, file.Text("tokenizer.ggml.model"));
  if (model != "llama" && model != "gpt2") {
    return InvalidArgument(
        "tokenizer is not supported, want llama or gpt2: key=tokenizer.ggml.model value={}", model);
  }
  KVASIR_ASSIGN_OR_RETURN(const uint64_t tokens, file.ArraySize(kTokens, GGUF_TYPE_STRING));
  if (tokens == 0 || tokens > kVocabularyMax) {
    return InvalidArgument("model key out of bounds: key={} size={} min=1 max={}", kTokens, tokens,
                           kVocabularyMax);
  }
  KVASIR_RETURN_IF_ERROR(CheckParallelArray(file, kTypes, GGUF_TYPE_INT32, tokens));
  KVASIR_RETURN_IF_ERROR(CheckParallelArray(file, kScores, GGUF_TYPE_FLOAT32, tokens));
  if (file.Has(kMerges)) {
    KVASIR_RETURN_IF_ERROR(file.ArraySize(kMerges, GGUF_TYPE_STRING).status());
  }
  if (file.Has("llama.vocab_size")) {
    KVASIR_RETURN_IF_ERROR(file.Integer("llama.vocab_size", tokens, tokens).status());
  }
  KVASIR_ASSIGN_OR_RETURN(const std::vector<std::string> texts, file.Texts(kTokens));
  std::vector<int32_t> types;
  if (file.Has(kTypes)) {
    KVASIR_ASSIGN_OR_RETURN(types, file.Integers(kTypes));
  }
  KVASIR_RETURN_IF_ERROR(CheckTexts(texts, types));
  return static_cast<uint32_t>(tokens);
}

}  // namespace kvasir::engine
