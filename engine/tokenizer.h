// Tokenizer: text to token ids and back, and the model's chat template, all from libllama.
#ifndef KVASIR_ENGINE_TOKENIZER_H_
#define KVASIR_ENGINE_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

struct llama_model;
struct llama_vocab;

namespace kvasir::engine {

struct ChatMessage {
  std::string role;  // "system", "user" or "assistant"
  std::string text;
};

// Move-only. Const methods are thread-safe.
class Tokenizer {
 public:
  // Loads the vocabulary of a GGUF file, not its weights. Check the file with GgufModel::Load()
  // first: libllama trusts more of it. Errors: kInvalidArgument with libllama's reason.
  static absl::StatusOr<Tokenizer> Load(const std::string& path);

  // Ids of `text`. With `document`, special tokens (as BOS) are added if the model asks for them.
  // With `special`, texts like <|im_end|> become their control tokens; never for untrusted text.
  // Errors: kInvalidArgument for a text above 2 GiB.
  absl::StatusOr<std::vector<uint32_t>> Encode(const std::string& text, bool document,
                                               bool special) const;

  // Bytes of one token; may be a part of a UTF-8 character. Control tokens give nothing.
  // Errors: kInvalidArgument beyond the vocabulary.
  absl::StatusOr<std::string> Piece(uint32_t id) const;

  // Bytes of a run of tokens. Errors: as Piece().
  absl::StatusOr<std::string> Decode(std::span<const uint32_t> ids) const;

  // The prompt for an answer to `messages`, with the start of the assistant's turn.
  // Errors: kFailedPrecondition for a model without a template that libllama knows.
  absl::StatusOr<std::string> ApplyTemplate(const std::vector<ChatMessage>& messages) const;

  // True for the tokens that end an answer.
  bool IsEnd(uint32_t id) const;
  bool adds_bos() const;
  uint32_t vocabulary() const { return vocabulary_; }

 private:
  struct ModelDeleter {
    void operator()(llama_model* model) const;
  };

  std::unique_ptr<llama_model, ModelDeleter> model_;
  const llama_vocab* vocab_ = nullptr;
  uint32_t vocabulary_ = 0;
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_TOKENIZER_H_
