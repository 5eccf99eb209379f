#include "engine/running_text.h"

#include <utility>

#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir::engine {

RunningText::RunningText(const Tokenizer& tokenizer, bool chat, const std::string& system)
    : tokenizer_(&tokenizer), chat_(chat) {
  if (!system.empty()) messages_.push_back({"system", system});
}

absl::StatusOr<RunningText> RunningText::Resume(const Tokenizer& tokenizer, bool chat,
                                                const SuspendedText& suspended) {
  if (chat != !suspended.messages.empty()) {
    return InvalidArgument("the suspended text is {} chat: messages={}", chat ? "no" : "a",
                           suspended.messages.size());
  }
  RunningText text(tokenizer, chat, "");
  text.begun_ = true;
  text.messages_ = suspended.messages;
  text.done_ = suspended.done;
  text.pending_ = suspended.pending;
  return text;
}

absl::StatusOr<std::vector<uint32_t>> RunningText::Next(const std::string& input, bool* anew) {
  *anew = false;
  std::string text = input;
  if (chat_) {
    messages_.push_back({"user", input});
    KVASIR_ASSIGN_OR_RETURN(prompt_, tokenizer_->ApplyTemplate(messages_));
    if (prompt_.compare(0, done_.size(), done_) != 0) {
      *anew = std::exchange(begun_, false);
      done_.clear();
      pending_.clear();
    }
    text = prompt_.substr(done_.size());
  }
  KVASIR_ASSIGN_OR_RETURN(const std::vector<uint32_t> added,
                          tokenizer_->Encode(text, !begun_, chat_));
  std::vector<uint32_t> tokens = pending_;
  tokens.insert(tokens.end(), added.begin(), added.end());
  return tokens;
}

void RunningText::Add(const GenerateResult& result) {
  begun_ = true;
  pending_.clear();
  if (!result.ended && !result.tokens.empty()) pending_.push_back(result.tokens.back());
  if (!chat_) return;
  done_ = prompt_ + result.text;
  messages_.push_back({"assistant", result.text});
}

SuspendedText RunningText::Suspend(const KvSnapshot& saved) const {
  return {saved.id, saved.rows, saved.retention, pending_, messages_, done_};
}

}  // namespace kvasir::engine
