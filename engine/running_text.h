// RunningText: a text or chat that grows, input by input, in one sequence: what is computed
// already, and which tokens come next.
#ifndef KVASIR_ENGINE_RUNNING_TEXT_H_
#define KVASIR_ENGINE_RUNNING_TEXT_H_

#include <cstdint>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "engine/generator.h"
#include "engine/kv_store.h"
#include "engine/suspended_text.h"
#include "engine/tokenizer.h"

namespace kvasir::engine {

// Not thread-safe.
class RunningText {
 public:
  // Empty. With `chat` each input is a message, in the model's template; `system` may be empty.
  // `tokenizer` must outlive it.
  RunningText(const Tokenizer& tokenizer, bool chat, const std::string& system);
  // One that was suspended. Errors: kInvalidArgument where it was a chat and is to be none, or the
  // other way round.
  static absl::StatusOr<RunningText> Resume(const Tokenizer& tokenizer, bool chat,
                                            const SuspendedText& suspended);

  // Tokens to compute for `input`, those before it that are not computed yet included. With
  // *anew the template has changed earlier turns: the sequence has to be emptied first.
  // Errors: the tokenizer's.
  absl::StatusOr<std::vector<uint32_t>> Next(const std::string& input, bool* anew);
  // The tokens are computed, and this was generated behind them.
  void Add(const GenerateResult& result);

  // What is needed to go on from `saved`, a snapshot of the sequence as it is now.
  SuspendedText Suspend(const KvSnapshot& saved) const;

 private:
  const Tokenizer* tokenizer_;
  bool chat_;
  bool begun_ = false;  // the sequence has rows
  std::vector<ChatMessage> messages_;
  std::string prompt_;             // the template up to the answer that is to come
  std::string done_;               // text of it that the sequence holds already
  std::vector<uint32_t> pending_;  // tokens behind it that are not computed yet
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_RUNNING_TEXT_H_
