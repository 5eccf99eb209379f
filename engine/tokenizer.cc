#include "engine/tokenizer.h"

#include <exception>
#include <limits>

#include "base/error.h"
#include "base/status_macros.h"
#include "engine/ggml_log.h"

#include <llama.h>

namespace kvasir::engine {
namespace {

constexpr size_t kTextBytesMax = std::numeric_limits<int32_t>::max() / 2;

// Number of ids in `text`, or minus the number there would be room needed for.
absl::StatusOr<int32_t> Tokenize(const llama_vocab* vocab, const std::string& text, bool document,
                                 bool special, std::vector<llama_token>& ids) {
  try {  // a SentencePiece vocabulary without byte tokens makes libllama throw through its C
         // interface
    return llama_tokenize(vocab, text.data(), static_cast<int32_t>(text.size()), ids.data(),
                          static_cast<int32_t>(ids.size()), document, special);
  } catch (const std::exception& error) {
    return InvalidArgument("text could not be tokenised: bytes={} reason={}", text.size(),
                           error.what());
  }
}

}  // namespace

void Tokenizer::ModelDeleter::operator()(llama_model* model) const { llama_model_free(model); }

absl::StatusOr<Tokenizer> Tokenizer::Load(const std::string& path) {
  QuietLibraries();
  TakeLibraryErrors();
  llama_model_params params = llama_model_default_params();
  params.vocab_only = true;
  params.n_gpu_layers = 0;
  Tokenizer tokenizer;
  tokenizer.model_.reset(llama_model_load_from_file(path.c_str(), params));
  if (tokenizer.model_ == nullptr) {
    return InvalidArgument("vocabulary could not be loaded: path={} reason={}", path,
                           TakeLibraryErrors());
  }
  tokenizer.vocab_ = llama_model_get_vocab(tokenizer.model_.get());
  if ((llama_vocab_get_add_bos(tokenizer.vocab_) && llama_vocab_bos(tokenizer.vocab_) < 0) ||
      (llama_vocab_get_add_eos(tokenizer.vocab_) && llama_vocab_eos(tokenizer.vocab_) < 0)) {
    return InvalidArgument("vocabulary wants a BOS or EOS token that it lacks: path={}", path);
  }
  tokenizer.vocabulary_ = static_cast<uint32_t>(llama_vocab_n_tokens(tokenizer.vocab_));
  return tokenizer;
}

absl::StatusOr<std::vector<uint32_t>> Tokenizer::Encode(const std::string& text, bool document,
                                                        bool special) const {
  if (text.size() > kTextBytesMax) {
    return InvalidArgument("text is too long: bytes={} max={}", text.size(), kTextBytesMax);
  }
  std::vector<llama_token> ids(text.size() + 2);  // BOS and EOS; a token is at least a byte
  KVASIR_ASSIGN_OR_RETURN(int32_t count, Tokenize(vocab_, text, document, special, ids));
  if (count < 0) {  // more: some vocabularies have several tokens for a byte
    ids.resize(static_cast<size_t>(-static_cast<int64_t>(count)));
    KVASIR_ASSIGN_OR_RETURN(count, Tokenize(vocab_, text, document, special, ids));
  }
  if (count < 0) return InvalidArgument("text could not be tokenised: bytes={}", text.size());
  return std::vector<uint32_t>(ids.begin(), ids.begin() + count);
}

absl::StatusOr<std::string> Tokenizer::Piece(uint32_t id) const {
  if (id >= vocabulary_) {
    return InvalidArgument("token id beyond the vocabulary: token_id={} vocabulary={}", id,
                           vocabulary_);
  }
  std::string piece(32, '\0');
  const auto token = static_cast<llama_token>(id);
  int32_t bytes = llama_token_to_piece(vocab_, token, piece.data(),
                                       static_cast<int32_t>(piece.size()), 0, false);
  if (bytes < 0) {
    piece.resize(static_cast<size_t>(-static_cast<int64_t>(bytes)));
    bytes = llama_token_to_piece(vocab_, token, piece.data(), static_cast<int32_t>(piece.size()), 0,
                                 false);
  }
  if (bytes < 0) return Internal("token has no text: token_id={}", id);
  piece.resize(static_cast<size_t>(bytes));
  return piece;
}

absl::StatusOr<std::string> Tokenizer::Decode(std::span<const uint32_t> ids) const {
  std::string text;
  for (const uint32_t id : ids) {
    KVASIR_ASSIGN_OR_RETURN(const std::string piece, Piece(id));
    text += piece;
  }
  return text;
}

absl::StatusOr<std::string> Tokenizer::ApplyTemplate(
    const std::vector<ChatMessage>& messages) const {
  const char* chat_template = llama_model_chat_template(model_.get(), nullptr);
  if (chat_template == nullptr) return FailedPrecondition("model has no chat template");
  std::vector<llama_chat_message> chat;
  size_t text_bytes = 0;
  for (const ChatMessage& message : messages) {
    chat.push_back({message.role.c_str(), message.text.c_str()});
    text_bytes += message.role.size() + message.text.size();
  }
  if (text_bytes > kTextBytesMax / 4) {
    return InvalidArgument("chat is too long: bytes={} max={}", text_bytes, kTextBytesMax / 4);
  }
  std::string prompt(text_bytes * 2 + 256, '\0');
  int32_t bytes = 0;
  for (int attempt = 0; attempt < 2; ++attempt) {
    bytes = llama_chat_apply_template(chat_template, chat.data(), chat.size(), true, prompt.data(),
                                      static_cast<int32_t>(prompt.size()));
    if (bytes <= static_cast<int32_t>(prompt.size())) break;
    prompt.resize(static_cast<size_t>(bytes));
  }
  if (bytes < 0) return FailedPrecondition("model's chat template is not known to libllama");
  prompt.resize(static_cast<size_t>(bytes));
  return prompt;
}

bool Tokenizer::IsEnd(uint32_t id) const {
  return llama_vocab_is_eog(vocab_, static_cast<llama_token>(id));
}

bool Tokenizer::adds_bos() const { return llama_vocab_get_add_bos(vocab_); }

}  // namespace kvasir::engine
